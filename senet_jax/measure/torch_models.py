"""The same networks in PyTorch, as timm has them, to be measured beside ours."""

import dataclasses
import functools
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.interop.names import VARIANTS, Variant
from senet_jax.measure import torch_detectors
from senet_jax.measure.throughput import twin
from senet_jax.measure.timing import Workload
from senet_jax.models import CLASSIFICATION, DETECTION, list_models

_TIMM = 'timm:'


def variant(model: str) -> Variant | None:
  """Returns the form of a network in timm, of a detector in torchvision; None if there is none.

  Of several the one without `legacy_`, whose strides are those of timm's network without SE.
  """
  if model in list_models(task=DETECTION):
    return torch_detectors.variant(model)
  found = [v for v in VARIANTS.values() if v.model == model and v.name.startswith(_TIMM)]
  found.sort(key=lambda v: v.name.startswith(f'{_TIMM}legacy_'))
  return found[0] if found else None


def known(task: str = CLASSIFICATION) -> list[str]:
  """Returns our names of the networks of a task that have a form in PyTorch."""
  of_task = list_models(task=task)
  found = (v.model for v in VARIANTS.values() if v.model in of_task and variant(v.model))
  return list(dict.fromkeys(found))


def as_in_torch(config: ConfigDict) -> None:
  """Sets the options under which our network computes what timm's does.

  A network that timm has not gets those of its twin, so that SE stays the only difference of the
  two.
  """
  name = config.model.name
  chosen = variant(name) or variant(twin(name) or '')
  for field, value in chosen.overrides.items() if chosen else ():
    if field == 'se':
      config.model.se.update(dataclasses.asdict(value))
    else:
      config.model[field] = value


def import_timm() -> tuple[Any, Any]:
  """Imports and returns `torch` and `timm`.

  torchvision's compiled operators need the very build of torch that it was made with. No network
  here uses them, but its import asks for two of them by name; where they are missing, as beside
  torch's wheels for CPUs, they are declared without an implementation.

  Raises:
    UserError: one of them is not installed.
  """
  try:
    import torch

    try:
      import torchvision  # noqa: F401
    except RuntimeError:
      _declare_operators(torch)
    import timm
  except ImportError as error:
    raise UserError(
      f"--against=torch: {error}; timm and torch are needed: pip install 'senet_jax[test]'."
    ) from error
  return torch, timm


@functools.cache
def _declare_operators(torch: Any) -> Any:
  library = torch.library.Library('torchvision', 'DEF')
  for operator in ('nms', 'qnms'):
    library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
  return library  # its operators go with it


def check_device(devices: int) -> str:
  """Returns the device of PyTorch that JAX uses, too: `cuda` or `cpu`.

  Raises:
    UserError: PyTorch cannot use it, or JAX uses several.
  """
  torch, _ = import_timm()
  platform = jax.default_backend()
  if devices > 1:
    raise UserError(f'--against=torch compares on one device, not {devices}; add --devices=1.')
  if platform == 'cpu':
    return 'cpu'
  if platform == 'gpu' and torch.cuda.is_available():
    return 'cuda'
  raise UserError(
    f'--against=torch: JAX uses {runtime.describe_devices()}, and this PyTorch '
    f'({torch.__version__}) cannot; install one that can, or set JAX_PLATFORMS=cpu.'
  )


def prepare(config: ConfigDict, mode: str, device: str, compiled: str) -> Workload:
  """Builds timm's network and puts what its step needs on the device.

  channels_last; bfloat16 through autocast, with parameters in float32, as ours; float32 as cuDNN
  and XLA have it by default on a GPU, with TF32 products. Training is SGD with momentum and weight
  decay on the mean cross-entropy. On a CPU it has as many threads as there are cores.

  Args:
    config: of our network.
    mode: `train` or `inference`.
    device: `cuda` or `cpu`.
    compiled: a mode of torch.compile, or `off`.

  Raises:
    UserError: timm has not this network.
  """
  torch, timm = import_timm()
  found = variant(config.model.name)
  if found is None:
    raise UserError(f'timm has no {config.model.name}; it has {", ".join(known())}.')
  if device == 'cpu':
    torch.set_num_threads(runtime.usable_cores())
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
  torch.manual_seed(config.seed)
  model = timm.create_model(found.name.removeprefix(_TIMM), num_classes=config.model.num_classes)
  model = model.to(device, memory_format=torch.channels_last).train(mode == 'train')
  size, n = config.data.image_size, config.batch_size
  images = torch.randn(n, 3, size, size, device=device)
  images = images.contiguous(memory_format=torch.channels_last)
  labels = torch.randint(0, config.model.num_classes, (n,), device=device)
  # Networks that share their code are compiled again for each of them; behind the usual limit of 8
  # PyTorch would go on without compiling.
  torch._dynamo.config.recompile_limit = 1000
  forward = model if compiled == 'off' else torch.compile(model, mode=compiled)
  half = torch.autocast(device, torch.bfloat16, enabled=config.model.dtype == 'bfloat16')
  optimizer = torch.optim.SGD(
    model.parameters(),
    config.optimizer.learning_rate,
    config.optimizer.momentum,
    weight_decay=config.optimizer.weight_decay,
    fused=device == 'cuda',
  )

  def infer() -> None:
    with torch.inference_mode(), half:
      forward(images)

  def train() -> None:
    optimizer.zero_grad(set_to_none=True)
    with half:
      loss = torch.nn.functional.cross_entropy(forward(images), labels)
    loss.backward()
    optimizer.step()

  step = train if mode == 'train' else infer
  wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
  start = time.perf_counter()
  step()
  wait()
  return Workload(
    images=n, dispatch=step, wait=wait, compile_s=time.perf_counter() - start, program_mib=None
  )


def versions() -> dict[str, str]:
  """Returns the versions of what the numbers of PyTorch depend on."""
  torch, timm = import_timm()
  found = {'torch': torch.__version__, 'timm': timm.__version__}
  if torch.version.cuda:
    found |= {'torch_cuda': torch.version.cuda, 'cudnn': str(torch.backends.cudnn.version())}
  return found
