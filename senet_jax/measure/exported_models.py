"""Exported files, to be measured beside networks: ours, and those of PyTorch's exporter."""

import dataclasses
import functools
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from importlib import metadata

import numpy as np
from ml_collections import ConfigDict

from senet_jax import config as config_lib
from senet_jax.data.preprocessing import Transform
from senet_jax.errors import UserError
from senet_jax.export import backends, card, formats, network, savedmodel, stablehlo, tflite
from senet_jax.export.formats import Call
from senet_jax.measure import programs, torch_models
from senet_jax.measure.timing import Workload
from senet_jax.workdir.network import build_model


@dataclasses.dataclass(frozen=True)
class Runtime:
  """A file in a runtime.

  Attributes:
    format: of the file.
    opened: opens it.
    of_torch: whether PyTorch's exporter wrote the file, of timm's network.
  """

  format: str
  opened: Callable[[pathlib.Path], Call]
  of_torch: bool = False


_OURS, _THEIRS = 'exported', 'torch.onnx'
_OF_ONNX: dict[str, Callable[[pathlib.Path], Call]] = {
  'onnxruntime': backends.onnxruntime,
  'openvino': backends.openvino,
  'openvino bf16': functools.partial(backends.openvino, precision='bf16'),
}
# By the name that they have in tables.
RUNTIMES = {
  **{f'{whose}, {name}': Runtime('onnx', opened, whose == _THEIRS)
     for name, opened in _OF_ONNX.items() for whose in (_OURS, _THEIRS)},
  f'{_OURS}, stablehlo': Runtime('stablehlo', stablehlo.opened),
  f'{_OURS}, savedmodel': Runtime('savedmodel', savedmodel.opened),
  f'{_OURS}, tflite': Runtime('tflite', tflite.opened),
}  # fmt: skip
# Each of ours with that of PyTorch's exporter.
PAIRS = [(f'{_OURS}, {name}', f'{_THEIRS}, {name}') for name in _OF_ONNX]


def check(device: str) -> None:
  """Raises UserError if a library is missing, or JAX does not use the CPU, `device` of PyTorch."""
  if device != 'cpu':
    raise UserError('--against=exported compares on the CPU; set JAX_PLATFORMS=cpu.')
  # As TensorFlow is by default, where this package keeps it quiet.
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
  for name in formats.NAMES:
    formats.load(name)
  formats.require('openvino', '--against=exported')
  formats.require('onnxscript', '--against=exported')


def versions() -> dict[str, str]:
  """Returns the versions of what the numbers of files depend on."""
  found = {name: metadata.version(name) for name in ('openvino', 'onnxscript')}
  for name in formats.NAMES:
    found |= formats.versions(formats.load(name))
  return found


def prepare(config: ConfigDict, name: str) -> Workload:
  """Returns a file of a network in one of `RUNTIMES`, with images to run it on.

  Args:
    config: of our network; float32.
    name: of the runtime.
  """
  runtime = RUNTIMES[name]
  module = formats.load(runtime.format)
  size, n = config.data.image_size, config.batch_size
  start = time.perf_counter()
  alone = config.copy_and_resolve_references()
  if module.ANY_BATCH:
    alone.batch_size = 1
  text = alone.to_json()
  call = runtime.opened(_by_torch(text) if runtime.of_torch else _by_us(text, runtime.format))
  images = np.random.default_rng(0).standard_normal((n, size, size, 3), np.float32)
  images = np.ascontiguousarray(formats.in_layout(images, module.LAYOUT))
  call(images)
  return Workload(
    images=n,
    dispatch=lambda: call(images),
    wait=lambda: None,
    compile_s=time.perf_counter() - start,
  )


@functools.cache
def _by_us(text: str, format: str) -> pathlib.Path:
  """Returns the file of our network, by its configuration as JSON."""
  config, module = config_lib.from_dict(json.loads(text)), formats.load(format)
  size, model = config.data.image_size, build_model(config)
  plain = Transform((size, size, 3), size, size, (0.0,) * 3, (1.0,) * 3)
  graph = network.graph(model, programs.made_up_variables(config, model), plain)
  about = card.Card(
    format=format, network=config.model.name, model=config.model.name, step=0, params_sha256='',
    git_commit='', versions={}, layout=module.LAYOUT, uint8=False,
    batch=None if module.ANY_BATCH else config.batch_size, outputs=(card.LOGITS,),
    dtype='float32', preprocessing=plain, class_names=(),
  )  # fmt: skip
  path = _new_path()
  module.write(graph, path, about)
  return path


@functools.cache
def _by_torch(text: str) -> pathlib.Path:
  """Returns the ONNX file of timm's network that PyTorch's own exporter writes."""
  torch, timm = torch_models.import_timm()
  config = config_lib.from_dict(json.loads(text))
  variant, size = torch_models.variant(config.model.name), config.data.image_size
  assert variant is not None  # or it was left out
  model = timm.create_model(
    variant.name.partition(':')[2], num_classes=config.model.num_classes
  ).eval()
  path = _new_path()
  torch.onnx.export(
    model,
    (torch.randn(2, 3, size, size),),
    path,
    dynamic_shapes=({0: torch.export.Dim('N')},),
    external_data=False,
    verbose=False,
  )
  return path


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
  """Returns a directory that goes when the process ends."""
  return tempfile.TemporaryDirectory()


def _new_path() -> pathlib.Path:
  return pathlib.Path(tempfile.mkdtemp(dir=_scratch().name), 'net')
