"""A network with its weights, from and to the files of this package and of other code bases."""

import dataclasses
import functools
import json
import operator
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from senet_jax import __version__, config as config_lib, runtime
from senet_jax.data import class_names as names_of_classes
from senet_jax.detection import coco
from senet_jax.errors import UserError, did_you_mean
from senet_jax.interop import (
  about,
  caffe,
  hub,
  keras,
  mapping,
  names,
  shipped,
  storage,
  tflite,
  torch,
)
from senet_jax.interop.names import Variant
from senet_jax.models import CLASSIFICATION, all_models, create_model
from senet_jax.storage import buckets
from senet_jax.workdir import saved
from senet_jax.workdir.network import build_model, init_variables, task_of

CAFFEMODEL = '.caffemodel'
# Suffixes of all files with weights.
SUFFIXES = (storage.SAFETENSORS, storage.NPZ, *storage.PICKLES, CAFFEMODEL, *keras.SUFFIXES,
            tflite.SUFFIX)  # fmt: skip
_IMAGENET_CLASSES = 1000
_COCO = 'coco'
# Between the workdir and the step of an origin; steps have at most so many digits.
_AT_STEP, _LONGEST_STEP = ', step ', 10
_TENSORFLOW_CROP = 0.875  # share of the shorter side that its networks are evaluated on


@dataclasses.dataclass(frozen=True)
class Weights:
  """A network with its weights.

  Attributes:
    config: with its options and what it wants of images.
    variables: `params` and `batch_stats`, NumPy arrays.
    num_classes: outputs of the last layer.
    class_names: of label 0, 1, …; None if they are not known.
    origin: where it is from, for people.
    ours: whether it is from a workdir or file of this package.
    notes: lines on what was checked and what is missing, for people.
    step: of the checkpoint; 0 where there was none.
  """

  config: ConfigDict
  variables: dict[str, Any]
  num_classes: int
  class_names: tuple[str, ...] | None
  origin: str
  ours: bool
  notes: tuple[str, ...] = ()
  step: int = 0


# --- in ------------------------------------------------------------------------------------------


def is_name(name: str | os.PathLike) -> bool:
  """Returns whether `name` is that of a network in the package or on the hub, and no path."""
  return hub.is_name(name) or shipped.is_name(name)


def check_there(name: str | os.PathLike) -> None:
  """Checks that a name is that of a network in the package or on the hub, or there is such a path.

  Raises:
    UserError: it is none of these; the message says what is in the package.
  """
  if is_name(name) or buckets.in_bucket(name) or os.path.lexists(os.path.expanduser(name)):
    return
  text, known = os.fspath(name), shipped.list_pretrained()
  if os.path.basename(text) != text:
    raise UserError(f'{text} holds no run: there is no such directory; check the path.')
  hint = did_you_mean(text, known)
  if text in all_models():
    hint = 'it can be trained, but no weights of it are there.'
  raise UserError(
    f'{text} is neither a directory nor a trained network in the package'
    f'{f"; {hint}" if hint else "."} '
    f'Give the workdir of a run, hf:OWNER/REPO, or one of senet_jax.list_pretrained(): '
    f'{", ".join(known)}.'
  )


def read(
  source: str | os.PathLike,
  model: str | None = None,
  variant: str | None = None,
  checkpoint: str = 'best',
) -> Weights:
  """Reads a workdir or a file with weights; nothing in it is executed.

  Args:
    source: its path; or a network in the package, or `hf:OWNER/REPO[@REVISION]` of the hub.
    model: our name of the network; None: what the weights look like.
    variant: another code base and its name of the network; None: what the weights look like.
    checkpoint: of a workdir.

  Raises:
    UserError: it is damaged, of no known network, or of another one than it or the caller says.
  """
  if is_name(source):
    path = hub.fetch(source) if hub.is_name(source) else shipped.path_of(source)
    found = read(path, model, variant)
    return dataclasses.replace(found, origin=found.origin.replace(str(path), str(source)))
  source = pathlib.Path(source)
  if not source.suffix:
    check_there(source)
  if source.is_dir():
    return _checked(_read_workdir(source, checkpoint), model)
  if source.suffix == CAFFEMODEL:
    arrays = caffe.read(source)
    return _of(source, mapping.choose(arrays, names.CAFFE, model, variant), arrays)
  if source.suffix in keras.SUFFIXES:
    arrays = keras.read(source)
    return _of(source, mapping.choose(arrays, names.KERAS, model, variant), arrays)
  if source.suffix == tflite.SUFFIX:
    arrays, size = tflite.read(source)
    word = about.About(images={'size': size, 'resize': round(size / _TENSORFLOW_CROP)})
    return _of(source, mapping.choose(arrays, names.TFLITE, model, variant), arrays, word)
  if source.is_file() and source.suffix not in storage.SUFFIXES:
    others = (CAFFEMODEL, *keras.SUFFIXES, tflite.SUFFIX)
    raise UserError(f'{source} must end in {", ".join((*storage.SUFFIXES, *others))}.')
  content, metadata = storage.read(source)
  if 'senet_jax' in metadata:
    return _checked(_read_ours(source, content, metadata), model)
  word = about.beside(source, metadata)
  word = dataclasses.replace(word, architecture=torch.architecture(content) or word.architecture)
  try:
    arrays = torch.as_arrays(content)
  except UserError as error:
    raise UserError(f'{source}: {error}') from error
  chosen = mapping.choose(arrays, names.TORCH, model, variant, word.architecture)
  return _of(source, chosen, arrays, word)


def _checked(weights: Weights, model: str | None) -> Weights:
  name = weights.config.model.name
  if model not in (None, name):
    raise UserError(f'--model={model}: {weights.origin} is {name}; leave --model out.')
  return weights


def _read_workdir(workdir: pathlib.Path, checkpoint: str) -> Weights:
  run = saved.load(workdir, checkpoint, runtime.data_mesh(1), task=None)
  return Weights(
    config=run.config,
    variables=jax.tree.map(np.asarray, run.variables),
    num_classes=run.model.num_classes,
    class_names=run.class_names,
    origin=f'{workdir}{_AT_STEP}{run.step}',
    ours=True,
    step=run.step,
  )


def _read_ours(path: pathlib.Path, arrays: dict[str, Any], metadata: dict[str, str]) -> Weights:
  """Reads what `_write_ours` wrote."""
  try:
    config = config_lib.from_dict(json.loads(metadata['config']))
    num_classes = int(metadata['num_classes'])
    class_names = json.loads(metadata['class_names'])
    class_names = class_names and tuple(map(str, class_names))
  except RecursionError as error:
    raise UserError(f'{path} is damaged: its metadata are nested too deeply.') from error
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
  mapping.check_finite(arrays)
  return Weights(
    config=config,
    variables=traverse_util.unflatten_dict(arrays, sep='/'),
    num_classes=num_classes,
    class_names=class_names,
    origin=str(path),
    ours=True,
    step=_step_of(metadata.get('origin', '')),
  )


def _step_of(origin: str) -> int:
  """Returns the step that the origin of a workdir ends in; 0 of another one."""
  _, link, step = origin.rpartition(_AT_STEP)
  return int(step) if link and step.isdecimal() and len(step) <= _LONGEST_STEP else 0


def _of(
  source: pathlib.Path,
  variant: Variant,
  arrays: Mapping[str, np.ndarray],
  word: about.About | None = None,
) -> Weights:
  """The network of `variant` with the weights `arrays` of `source`, which gave its `word` on it."""
  word = word or about.About()
  notes = [mapping.checked_by(variant, arrays, word.architecture)]
  headless = mapping.classes_in(variant, arrays) is None
  if headless:
    arrays = mapping.with_head(variant, arrays)
  makers: dict[str, Callable[..., dict]] = {
    'caffe': caffe.to_variables,
    'keras': keras.to_variables,
  }
  to_variables = makers.get(variant.source, mapping.to_variables)
  variables = to_variables(variant, arrays, num_classes=mapping.classes_in(variant, arrays))
  head = functools.reduce(operator.getitem, variant.heads[0].split('/'), variables['params'])
  num_classes = head['kernel'].shape[-1] - variant.background
  if headless:
    notes.append(
      'the weights have no last layer: there are zeros in its place; train a new one with '
      '--config.init_from and --config.new_head=True'
    )
  class_names = None if headless else known_class_names(variant, num_classes)
  if word.class_names and len(word.class_names) == num_classes:
    class_names = word.class_names
  images = dataclasses.replace(variant.images, **word.images)
  config = config_of(variant, images, usual=num_classes in _usual_classes(variant))
  notes.append(_images_in_words(config))
  origin = f'{source} ({variant.name})'
  return Weights(config, variables, num_classes, class_names, origin, False, tuple(notes))


def _usual_classes(variant: Variant) -> tuple[int, ...]:
  known = {'cifar10': (10,), _COCO: (len(coco.CATEGORIES), max(coco.CATEGORIES))}
  return known.get(variant.dataset, (_IMAGENET_CLASSES,))


def known_class_names(variant: Variant, num_classes: int) -> tuple[str, ...] | None:
  """Returns the names of the classes of published weights; None where there are other classes."""
  if variant.dataset == 'cifar10':
    return names_of_classes.CIFAR10 if num_classes == len(names_of_classes.CIFAR10) else None
  if variant.dataset == _COCO:
    # Behind those of the 80 categories there may be outputs for ids that none has.
    known = list(coco.CATEGORIES.values())
    usual = num_classes in _usual_classes(variant)
    return tuple(names_of_classes.complete(known, num_classes)) if usual else None
  wnids = tuple(wnid for wnid, _ in names_of_classes.imagenet_classes())
  # TensorFlow's networks have one more in front, for what is none of the others.
  return {1000: wnids, 1001: ('background', *wnids)}.get(num_classes)


def config_of(variant: Variant, images: names.Images, usual: bool) -> ConfigDict:
  """Returns the configuration of our network that computes what `variant` does, of such images."""
  recipes = {'cifar10': config_lib.cifar, _COCO: config_lib.coco}
  config = recipes.get(variant.dataset, config_lib.imagenet)(variant.model)
  for field, value in variant.overrides.items():
    if field == 'se':
      config.model.se.update(dataclasses.asdict(value))
    elif field == 'bn':
      config.bn.epsilon = value.epsilon
    else:
      config.model[field] = value
  config.data.mean, config.data.std = images.mean, images.std
  config.optimizer.momentum = 0.0  # or zeros for it would be stored beside the weights
  if variant.dataset == _COCO:
    longest = config.data.longer_side / config.data.shorter_side
    config.data.shorter_side = images.resize
    config.data.longer_side = round(images.resize * longest)
    return config
  if not usual:
    config.data.name, config.data.feed = 'image_folder', 'stream'
  if config.data.feed == 'stream':
    config.data.image_size, config.data.resize = images.size, images.resize
    config.data.interpolation = images.interpolation
  return config


def _images_in_words(config: ConfigDict) -> str:
  data = config.data
  if task_of(config) != CLASSIFICATION:
    return (
      f'images: the shorter side {data.shorter_side} pixels, the longer one {data.longer_side} at '
      f'most, minus {data.mean}, over {data.std}'
    )
  if data.feed == 'device':
    return f'images: as they are, minus {data.mean}, over {data.std}'
  return (
    f'images: {data.image_size} pixels in the middle of {data.resize}, {data.interpolation}, minus '
    f'{data.mean}, over {data.std}'
  )


# --- out -----------------------------------------------------------------------------------------


def write(weights: Weights, to: pathlib.Path, variant: str | None = None) -> None:
  """Writes a network with its weights; whole or not at all.

  Args:
    weights: the network.
    to: a `.safetensors` file, or a new directory for a workdir.
    variant: for a file, whose names the weights are to have; None: ours.

  Raises:
    UserError: the network is not that of `variant`.
  """
  if to.suffix != storage.SAFETENSORS:
    origin = {'converted_from': weights.origin}
    saved.write(
      to, weights.config, weights.variables, weights.num_classes, weights.class_names, origin
    )
  elif variant:
    _write_theirs(weights, variant, to)
  else:
    _write_ours(weights, to)


def _write_ours(weights: Weights, path: pathlib.Path) -> None:
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


def _write_theirs(weights: Weights, variant_name: str, path: pathlib.Path) -> None:
  variant = names.variant_of(weights.config.model.name, variant_name, names.TORCH)
  check_function(weights, variant)
  arrays = mapping.to_arrays(variant, weights.variables)
  architecture = variant.name.partition(':')[2]
  metadata = {'format': 'pt', 'model': variant.name, 'architecture': architecture}
  storage.write_safetensors(path, arrays, metadata)


def check_function(weights: Weights, variant: Variant) -> None:
  """Checks that a network computes what `variant` does.

  Raises:
    UserError: it does not; the message says in which options they differ.
  """
  if options := differing(weights, variant):
    raise UserError(
      f'{variant.name} computes something else than this {weights.config.model.name}: '
      f'{"; ".join(options)}. Choose another --variant, or --to a file without one.'
    )


def differing(weights: Weights, variant: Variant) -> list[str]:
  """Returns the options in which a network differs from `variant`, in words."""
  here = function_of(build_model(weights.config, weights.num_classes))
  name = weights.config.model.name
  there = function_of(create_model(name, weights.num_classes, **variant.overrides))
  return [f'{k}={here[k]!r} here and {there[k]!r} there' for k in here if here[k] != there[k]]


def _overrides(config: ConfigDict) -> dict[str, Any]:
  """The overrides of `create_model` in a configuration, for those who read the file without it."""
  found = {k.removeprefix('model.'): v for k, v in config_lib.changed(config, 'model.').items()}
  se = {k.removeprefix('se.'): found.pop(k) for k in list(found) if k.startswith('se.')}
  own = {k: v for k, v in found.items() if k not in ('name', 'num_classes', 'dtype')}
  return own | ({'se': se} if se else {})


# Fields that every module has.
_OF_FLAX = ('name', 'parent')


def function_of(model: Any) -> dict[str, Any]:
  """Returns the options of a network that have a part in what it computes in an evaluation."""
  options = {k: getattr(model, k) for k in model.__dataclass_fields__ if k not in _OF_FLAX}
  se, bn = options.pop('se'), options.pop('bn')
  options |= {f'se.{k}': v for k, v in (dataclasses.asdict(se) if se else {}).items()}
  fields = config_lib.FIELDS
  without = {k for k in options if (field := fields.get(f'model.{k}')) and not field.function}
  return {k: v for k, v in options.items() if k not in without} | {'bn.epsilon': bn.epsilon}
