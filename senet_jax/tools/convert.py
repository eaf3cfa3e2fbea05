"""Brings weights from other code bases in, and takes ours out.

  python -m senet_jax.tools.convert --from=seresnet50.safetensors --to=runs/timm_seresnet50
  python -m senet_jax.tools.convert --from=SE-ResNet-50.caffemodel --to=se_resnet50.safetensors
  python -m senet_jax.tools.convert --from=runs/se50 --to=se50.safetensors
  python -m senet_jax.tools.convert --from=runs/se50 --to=timm.safetensors --variant=timm:seresnet50

Reads .safetensors, .pth, .pt, .bin and .npz files of timm, torchvision and Cadene, the .caffemodel
files of the paper's authors, workdirs, and what it wrote itself; nothing in a file is executed.
Writes a workdir for tools.predict, tools.evaluate and config.init_from, or a .safetensors file: by
our names and with the configuration, or, from our weights with --variant, by those of torch.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import typing
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError

if typing.TYPE_CHECKING:
  from ml_collections import ConfigDict

  from senet_jax.interop.names import Variant

_IMAGENET_CLASSES = 1000
_CAFFEMODEL = '.caffemodel'


@dataclasses.dataclass(frozen=True)
class _Weights:
  """A network with its weights.

  Attributes:
    config: with its options and what it wants of images.
    variables: `params` and `batch_stats`, NumPy arrays.
    num_classes: outputs of the last layer.
    class_names: of label 0, 1, …; None if they are not known.
    origin: where it is from, for people.
  """

  config: 'ConfigDict'
  variables: dict[str, Any]
  num_classes: int
  class_names: tuple[str, ...] | None
  origin: str


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)
  from senet_jax.interop import storage

  to_file = args.to.suffix == storage.SAFETENSORS
  if not to_file and args.to.suffix in (storage.NPZ, *storage.PICKLES, _CAFFEMODEL):
    raise UserError(
      f'--to={args.to} must end in {storage.SAFETENSORS}, or be a directory for a workdir.'
    )
  if args.to.exists() and (to_file or not args.to.is_dir() or any(args.to.iterdir())):
    what = 'file' if to_file else 'directory'
    raise UserError(f'--to={args.to} is there already; choose another {what}.')
  weights, ours = _read(args)
  if args.variant and ours and not to_file:
    raise UserError(
      f'--variant={args.variant} names the weights in a file; --to={args.to} is to be a workdir.'
    )
  if args.variant and ours:
    _write_theirs(weights, args.variant, args.to)
  elif to_file:
    _write_ours(weights, args.to)
  else:
    _write_workdir(weights, args.to)
  name = weights.config.model.name
  print(f'{name} of {weights.num_classes} classes, from {weights.origin}: written to {args.to}')
  from senet_jax.workdir import saved

  for line in saved.how_to_use(weights.config, args.to):
    print(line)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.convert', __doc__)
  add = parser.add_argument
  add('--from', dest='source', required=True, type=pathlib.Path, help='a file, or a workdir')
  add('--to', required=True, type=pathlib.Path, help='a .safetensors file, or a new workdir')
  add('--model', help='our name of the network; default: what the weights look like')
  add('--variant', help='another code base and its name of the network: timm:legacy_seresnet50')
  add('--checkpoint', default='best', help='of a workdir: best (default), latest, or a step')
  return parser.parse_args(argv)


# --- in ------------------------------------------------------------------------------------------


def _read(args: argparse.Namespace) -> tuple[_Weights, bool]:
  """The weights of `--from`, and whether they are by our names."""
  from senet_jax.interop import caffe, names, storage, torch

  if args.source.is_dir():
    return _checked(_read_workdir(args.source, args.checkpoint), args.model), True
  if args.source.suffix == _CAFFEMODEL:
    return _read_theirs(args, caffe.read(args.source), names.CAFFE), False
  arrays, metadata = storage.read(args.source)
  if 'senet_jax' in metadata:
    return _checked(_read_ours(args.source, arrays, metadata), args.model), True
  return _read_theirs(args, torch.as_arrays(arrays), names.TORCH), False


def _checked(weights: _Weights, model: str | None) -> _Weights:
  name = weights.config.model.name
  if model not in (None, name):
    raise UserError(f'--model={model}: {weights.origin} is {name}; leave --model out.')
  return weights


def _read_workdir(workdir: pathlib.Path, checkpoint: str) -> _Weights:
  import jax
  import numpy as np

  from senet_jax import runtime
  from senet_jax.workdir import saved

  run = saved.load(workdir, checkpoint, runtime.data_mesh(1))
  return _Weights(
    config=run.config,
    variables=jax.tree.map(np.asarray, run.variables),
    num_classes=run.model.num_classes,
    class_names=run.class_names,
    origin=f'{workdir}, step {run.step}',
  )


def _read_ours(path: pathlib.Path, arrays: dict[str, Any], metadata: dict[str, str]) -> _Weights:
  """Reads what `_write_ours` wrote."""
  import jax
  from flax import traverse_util

  from senet_jax import config as config_lib, runtime
  from senet_jax.interop import mapping
  from senet_jax.workdir.network import build_model, init_variables

  try:
    config = config_lib.from_dict(json.loads(metadata['config']))
    num_classes = int(metadata['num_classes'])
    class_names = json.loads(metadata['class_names'])
    class_names = class_names and tuple(map(str, class_names))
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f'{path} is damaged: its metadata lack or garble {error}.') from error
  model = build_model(config, num_classes)
  init = functools.partial(init_variables, config, model, runtime.data_mesh(1))
  expected = traverse_util.flatten_dict(jax.eval_shape(init), sep='/')
  wanted, there = ({k: x.shape for k, x in tree.items()} for tree in (expected, arrays))
  if wanted != there:
    raise UserError(
      f'{path} is damaged: it has not the variables of its {config.model.name}; '
      f'{mapping.mismatches(wanted, there)}.'
    )
  for name, x in arrays.items():
    if x.dtype != expected[name].dtype:
      raise UserError(f'{path} is damaged: {name} is {x.dtype} for {expected[name].dtype}.')
  return _Weights(
    config=config,
    variables=traverse_util.unflatten_dict(arrays, sep='/'),
    num_classes=num_classes,
    class_names=class_names,
    origin=str(path),
  )


def _read_theirs(
  args: argparse.Namespace, arrays: dict[str, Any], sources: tuple[str, ...]
) -> _Weights:
  from senet_jax.data import class_names
  from senet_jax.interop import caffe, mapping, names

  variant = mapping.choose(arrays, sources, args.model, args.variant)
  num_classes = mapping.classes_in(variant, arrays)
  if sources == names.CAFFE:
    variables = caffe.to_variables(variant, arrays, num_classes=num_classes)
  else:
    variables = mapping.to_variables(variant, arrays, num_classes)
  imagenet = num_classes == _IMAGENET_CLASSES
  return _Weights(
    config=_config(variant, imagenet),
    variables=variables,
    num_classes=num_classes,
    class_names=tuple(wnid for wnid, _ in class_names.imagenet_classes()) if imagenet else None,
    origin=f'{args.source} ({variant.name})',
  )


def _config(variant: 'Variant', imagenet: bool) -> 'ConfigDict':
  """A configuration under which our network computes what `variant` does."""
  from senet_jax import config as config_lib

  config = config_lib.imagenet(variant.model)
  for field, value in variant.overrides.items():
    if field == 'se':
      config.model.se.update(dataclasses.asdict(value))
    else:
      config.model[field] = value
  config.data.mean, config.data.std = variant.images
  if not imagenet:
    config.data.name = 'image_folder'
  config.optimizer.momentum = 0.0  # or zeros for it would be stored beside the weights
  return config


# --- out -----------------------------------------------------------------------------------------


def _write_workdir(weights: _Weights, workdir: pathlib.Path) -> None:
  from senet_jax.workdir import saved

  saved.write(
    workdir,
    weights.config,
    weights.variables,
    weights.num_classes,
    weights.class_names,
    {'converted_from': weights.origin},
  )


def _write_ours(weights: _Weights, path: pathlib.Path) -> None:
  from flax import traverse_util

  from senet_jax import __version__
  from senet_jax.interop import storage

  config = weights.config
  metadata = {
    'senet_jax': __version__,
    'model': config.model.name,
    'num_classes': str(weights.num_classes),
    'overrides': json.dumps(_overrides(config)),
    'config': json.dumps(config.to_dict()),
    'class_names': json.dumps(weights.class_names),
    'origin': weights.origin,
  }
  storage.write_safetensors(path, traverse_util.flatten_dict(weights.variables, sep='/'), metadata)


def _write_theirs(weights: _Weights, variant_name: str, path: pathlib.Path) -> None:
  from senet_jax.interop import mapping, names, storage
  from senet_jax.models import create_model
  from senet_jax.workdir.network import build_model

  config = weights.config
  variant = names.variant_of(config.model.name, variant_name, names.TORCH)
  here = _function(build_model(config, weights.num_classes))
  there = _function(create_model(config.model.name, weights.num_classes, **variant.overrides))
  differing = [f'{k}={here[k]!r} here and {there[k]!r} there' for k in here if here[k] != there[k]]
  if differing:
    raise UserError(
      f'{variant.name} computes something else than this {config.model.name}: '
      f'{"; ".join(differing)}. Choose another --variant, or --to a file without one.'
    )
  arrays = mapping.to_arrays(variant, weights.variables)
  storage.write_safetensors(path, arrays, {'format': 'pt', 'model': variant.name})


def _overrides(config: 'ConfigDict') -> dict[str, Any]:
  """The overrides of `create_model` in a configuration, for those who read the file without it."""
  from senet_jax import config as config_lib

  found = {k.removeprefix('model.'): v for k, v in config_lib.changed(config, 'model.').items()}
  se = {k.removeprefix('se.'): found.pop(k) for k in list(found) if k.startswith('se.')}
  own = {k: v for k, v in found.items() if k not in ('name', 'num_classes', 'dtype')}
  return own | ({'se': se} if se else {})


# Fields that every module has.
_OF_FLAX = ('name', 'parent')


def _function(model: Any) -> dict[str, Any]:
  """Returns the options of a network that have a part in what it computes in an evaluation."""
  from senet_jax.config import FIELDS

  options = {k: getattr(model, k) for k in model.__dataclass_fields__ if k not in _OF_FLAX}
  se, bn = options.pop('se'), options.pop('bn')
  options |= {f'se.{k}': v for k, v in (dataclasses.asdict(se) if se else {}).items()}
  without = {k for k in options if (field := FIELDS.get(f'model.{k}')) and not field.function}
  return {k: v for k, v in options.items() if k not in without} | {'bn.epsilon': bn.epsilon}


if __name__ == '__main__':
  cli.run(main)
