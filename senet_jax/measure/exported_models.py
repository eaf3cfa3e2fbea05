"""Exported files, to be measured beside networks: ours, and those of PyTorch's exporter."""

import dataclasses
import functools
import json
import pathlib
import tempfile
import time
from importlib import metadata

import numpy as np
from ml_collections import ConfigDict

from senet_jax import config as config_lib
from senet_jax.data.preprocessing import Transform
from senet_jax.errors import UserError
from senet_jax.export import backends, card, formats, network, onnx
from senet_jax.measure import programs, torch_models
from senet_jax.measure.timing import Workload
from senet_jax.workdir.network import build_model


@dataclasses.dataclass(frozen=True)
class Runtime:
  """A file in a runtime.

  Attributes:
    of_torch: whether PyTorch's exporter wrote the file, of timm's network.
    backend: of `backends.BACKENDS`.
    options: of it.
  """

  of_torch: bool
  backend: str
  options: tuple[tuple[str, str], ...] = ()


_BF16 = (('precision', 'bf16'),)
# By the name that they have in tables; each of ours with that of PyTorch's exporter behind it.
RUNTIMES = {
  'exported, onnxruntime': Runtime(False, 'onnxruntime'),
  'torch.onnx, onnxruntime': Runtime(True, 'onnxruntime'),
  'exported, openvino': Runtime(False, 'openvino'),
  'torch.onnx, openvino': Runtime(True, 'openvino'),
  'exported, openvino bf16': Runtime(False, 'openvino', _BF16),
  'torch.onnx, openvino bf16': Runtime(True, 'openvino', _BF16),
}
PAIRS = list(zip(list(RUNTIMES)[::2], list(RUNTIMES)[1::2], strict=True))


def check(device: str) -> None:
  """Raises UserError if a library is missing, or JAX does not use the CPU, `device` of PyTorch."""
  if device != 'cpu':
    raise UserError('--against=exported compares on the CPU; set JAX_PLATFORMS=cpu.')
  formats.load('onnx')
  formats.require('openvino', '--against=exported')
  formats.require('onnxscript', '--against=exported')


def versions() -> dict[str, str]:
  """Returns the versions of what the numbers of files depend on."""
  return {
    name: metadata.version(name) for name in ('onnx', 'onnxruntime', 'openvino', 'onnxscript')
  }


def prepare(config: ConfigDict, name: str) -> Workload:
  """Returns a file of a network in one of `RUNTIMES`, with images to run it on.

  Args:
    config: of our network; float32.
    name: of the runtime.
  """
  runtime = RUNTIMES[name]
  size, n = config.data.image_size, config.batch_size
  start = time.perf_counter()
  alone = config.copy_and_resolve_references()
  alone.batch_size = 1  # the file takes any
  data = (_by_torch if runtime.of_torch else _by_us)(alone.to_json())
  with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch, 'net.onnx')
    path.write_bytes(data)
    call = backends.BACKENDS[runtime.backend](path, **dict(runtime.options))
  images = np.random.default_rng(0).standard_normal((n, 3, size, size), np.float32)
  call(images)
  return Workload(
    images=n,
    dispatch=lambda: call(images),
    wait=lambda: None,
    compile_s=time.perf_counter() - start,
  )


@functools.cache
def _by_us(text: str) -> bytes:
  """Returns the file of our network, by its configuration as JSON."""
  config = config_lib.from_dict(json.loads(text))
  size, model = config.data.image_size, build_model(config)
  plain = Transform((size, size, 3), size, size, (0.0,) * 3, (1.0,) * 3)
  graph = network.graph(model, programs.made_up_variables(config, model), plain)
  about = card.Card(
    format='onnx', network=config.model.name, model=config.model.name, step=0, params_sha256='',
    git_commit='', versions={}, layout=onnx.LAYOUT, uint8=False, batch=None,
    outputs=(card.LOGITS,), dtype='float32', preprocessing=plain, class_names=(),
  )  # fmt: skip
  with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch, 'net.onnx')
    onnx.write(graph, path, about)
    return path.read_bytes()


@functools.cache
def _by_torch(text: str) -> bytes:
  """Returns the file of timm's network that PyTorch's own exporter writes."""
  torch, timm = torch_models.import_timm()
  config = config_lib.from_dict(json.loads(text))
  variant, size = torch_models.variant(config.model.name), config.data.image_size
  assert variant is not None  # or it was left out
  model = timm.create_model(
    variant.name.partition(':')[2], num_classes=config.model.num_classes
  ).eval()
  with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch, 'net.onnx')
    torch.onnx.export(
      model,
      (torch.randn(2, 3, size, size),),
      path,
      dynamic_shapes=({0: torch.export.Dim('N')},),
      external_data=False,
      verbose=False,
    )
    return path.read_bytes()
