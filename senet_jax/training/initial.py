"""The weights that a fresh run starts from: random ones, or those of `config.init_from`.

A detector may start from a classifier, which becomes its trunk.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import cli, config as config_lib, runtime
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError
from senet_jax.models import CLASSIFICATION
from senet_jax.storage import buckets
from senet_jax.workdir import exchange, network, networks, saved

# Variables that a message lists.
_LISTED = 3
# Fields of config.model whose part in the function of a network shows in its variables.
_IN_VARIABLES = ('model.name', 'model.num_classes', 'model.width', 'model.aux', 'model.se.ratio',
                 'model.se.use_bias', 'model.se.hidden_divisor')  # fmt: skip
# What has a part in the function of a network but is the data's; and what only streams can change.
_OF_DATA = ('model.num_classes', 'data.resize_keep_aspect')
_OF_STREAMS = ('data.image_size', 'data.resize', 'data.interpolation')
# What a trunk has of a classifier; the rest of its configuration is the detector's.
_OF_TRUNK = (
  'bn.epsilon', 'model.attention', 'model.stride_in', 'model.width',
  *(name for name in config_lib.FIELDS if name.startswith('model.se.')),
)  # fmt: skip
_OF_CLASSIFIER = ('model.name', 'model.num_classes', 'model.pool_align')
_TRUNK = 'backbone'


def inherit(config: ConfigDict, workdir: buckets.Path) -> ConfigDict:
  """Returns `config` with the network and preprocessing of `config.init_from`.

  A detector takes them of a classifier for its trunk. Fields that it does not leave at their
  defaults stay as they are. A run that is resumed in `workdir` needs its source no more: if that is
  gone, its own record says what was taken.

  Raises:
    UserError: `config.init_from` holds no run.
  """
  if not config.init_from:
    return config
  with _about_source():
    source = dict(config_lib.flatten(_as_used(config, _source_config(config, workdir))))
  given = dict(config_lib.flatten(config))
  own = set(_OF_DATA)
  task = network.task_of(config)
  if config.data.feed != 'stream' or given['data.image_size'] is not None:
    own |= set(_OF_STREAMS)
  taken = {
    name: source[name]
    for name, field in config_lib.FIELDS.items()
    if field.function
    and field.task in (None, task)
    and name not in own
    and given[name] == field.default != source[name]
  }
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(taken)
  if taken and runtime.is_first():
    fields = ', '.join(f'{field}={value}' for field, value in taken.items())
    cli.say(f'as in {config.init_from}: {fields}')
  return config


def _as_used(config: ConfigDict, source: ConfigDict) -> ConfigDict:
  """Returns what the source says about the network of `config`, or about its trunk.

  Raises:
    UserError: a classifier cannot start from a detector, nor a detector from any classifier.
  """
  if network.task_of(config) == network.task_of(source):
    return source
  saved.check_task(source, CLASSIFICATION, str(config.init_from))
  _check_trunk(config, source)
  for name, value in config_lib.changed(source, 'model.').items():
    if config_lib.FIELDS[name].function and name not in (*_OF_TRUNK, *_OF_CLASSIFIER):
      raise UserError(
        f'{config.init_from} has config.{name}={value}, which the trunk of a detector cannot have.'
      )
  # What a classifier leaves to its own defaults, a detector need not have as its.
  classifier: Any = network.build_model(source)
  images, trunk = evaluation_transform(source), config.copy_and_resolve_references()
  given = dict(config_lib.flatten(source))
  trunk.update_from_flattened_dict(
    {
      **{name: given[name] for name in _OF_TRUNK},
      'model.pool_align': getattr(classifier, 'pool_align', None),
      'data.mean': images.mean,
      'data.std': images.std,
    }
  )
  return trunk


def _check_trunk(config: ConfigDict, source: ConfigDict) -> None:
  detector: Any = network.build_model(config)
  found = source.model.name.removeprefix('se_')
  if detector.trunk != found:
    raise UserError(
      f'{config.init_from} is a {source.model.name}, and the trunk of {config.model.name} is '
      f'{detector.trunk}; start from one of these, or set config.model.trunk={found}.'
    )


def _source_config(config: ConfigDict, workdir: buckets.Path) -> ConfigDict:
  if (workdir / 'checkpoints').exists():
    try:
      return networks.read_config(config.init_from)
    except UserError:
      return saved.read_config(workdir)
  return networks.read_config(config.init_from)


def check_source(config: ConfigDict, workdir: buckets.Path) -> None:
  """Checks, before anything is written, what a new run in `workdir` is to start from.

  Raises:
    UserError: `config.init_from` is `workdir` or holds no run.
  """
  if not config.init_from:
    return
  if not exchange.is_name(config.init_from) and _same(_source_dir(config), workdir):
    raise UserError(
      f'config.init_from={config.init_from} is the --workdir itself; give another --workdir to '
      'start a new run from there, or leave config.init_from out to resume.'
    )
  if not (workdir / 'checkpoints').exists():  # a run that is resumed needs its source no more
    with _about_source():
      networks.read_config(config.init_from)


def initial_variables(
  config: ConfigDict, model: nn.Module, mesh: Mesh, say: Callable[[str], None]
) -> dict[str, Any] | None:
  """Returns what a fresh run of `config` starts from instead of random weights.

  Args:
    config: of the run.
    model: its network.
    mesh: the devices that get the variables.
    say: is told from where they are.

  Returns:
    `params` and `batch_stats` of the checkpoint `config.init_checkpoint` of `config.init_from`, as
    that run evaluated them, with a last layer from `config.seed` if `config.new_head`; of a
    detector that starts from a classifier all but the trunk is from there; None if
    `config.init_from` is not set.

  Raises:
    UserError: there is no such checkpoint, or its network is another one.
  """
  if not config.init_from:
    return None
  workdir = _source_dir(config)
  with _about_source():
    source = networks.load(workdir, config.init_checkpoint, mesh, task=None)
  same = _as_used(config, source.config)
  if same is not source.config:
    return _with_trunk(config, model, mesh, source, same, say)
  here, head = _shapes_and_head(config, model, mesh)
  _check_fits(config, model, source, here, head)
  _check_same_function(config, source.config)
  which = f'a new head of {model.num_classes} classes' if config.new_head else 'its head'
  say(f'starts from step {source.step} of {workdir} with {which}')
  if not config.new_head:
    return source.variables
  theirs, fresh = _by_path(source.variables), network.init_variables(config, model, mesh)
  return jax.tree.map_with_path(
    lambda path, x: x if _name(path) in head else theirs[_name(path)], fresh
  )


def _with_trunk(
  config: ConfigDict,
  model: nn.Module,
  mesh: Mesh,
  source: saved.Saved,
  as_trunk: ConfigDict,
  say: Callable[[str], None],
) -> dict[str, Any]:
  """Returns fresh variables of a detector with those of a classifier in its trunk."""
  workdir = _source_dir(config)
  if config.new_head:
    raise UserError(
      f'config.new_head=True has no effect: of the classifier {source.config.model.name} in '
      f'{workdir} a detector takes all but the head; leave it out.'
    )
  _, head = _shapes_and_head(source.config, source.model, mesh)
  theirs = {
    f'{kind}/{_TRUNK}/{rest}': value
    for path, value in _by_path(source.variables).items()
    if path not in head
    for kind, _, rest in [path.partition('/')]
  }
  shapes = _shapes(jax.eval_shape(functools.partial(network.init_variables, config, model, mesh)))
  here = {path: shape for path, shape in shapes.items() if path.split('/')[1] == _TRUNK}
  there = {path: value.shape for path, value in theirs.items()}
  _check_same_shapes(config, f'the {source.config.model.name} of {workdir}', here, there)
  _check_same_function(config, as_trunk)
  say(f'starts with step {source.step} of {workdir} as its trunk')
  fresh = network.init_variables(config, model, mesh)
  return jax.tree.map_with_path(lambda path, x: theirs.get(_name(path), x), fresh)


def _same(a: buckets.Path, b: buckets.Path) -> bool:
  if buckets.in_bucket(a) or buckets.in_bucket(b):  # `resolve` would take gs: for a directory
    return a == b
  return a.resolve() == b.resolve()


@contextlib.contextmanager
def _about_source() -> Iterator[None]:
  try:
    yield
  except UserError as error:
    raise UserError(f'config.init_from: {error}') from error


def _source_dir(config: ConfigDict) -> buckets.Path:
  if exchange.is_name(config.init_from):
    return pathlib.PurePath(config.init_from)
  return buckets.absolute(config.init_from)


def _shapes_and_head(config: ConfigDict, model: nn.Module, mesh: Mesh) -> tuple[dict, set[str]]:
  """Returns the shapes of all variables by path, and the paths of the last layer's.

  Whatever its name, these are the ones that grow with the number of classes.
  """
  shapes, larger = (
    _shapes(jax.eval_shape(functools.partial(network.init_variables, config, m, mesh)))
    for m in (model, model.clone(num_classes=model.num_classes + 1))
  )
  return shapes, {path for path in shapes if shapes[path] != larger[path]}


def _check_fits(
  config: ConfigDict, model: nn.Module, source: saved.Saved, here: dict, head: set[str]
) -> None:
  """Checks that each variable has a counterpart of its shape, but the head where it may differ."""
  workdir, classes = _source_dir(config), source.model.num_classes
  free = head if config.new_head or classes != model.num_classes else set()
  _check_same_shapes(
    config,
    f'the {source.config.model.name} of {workdir}',
    {path: shape for path, shape in here.items() if path not in free},
    {path: shape for path, shape in _shapes(source.variables).items() if path not in free},
  )
  if free and not config.new_head:
    raise UserError(
      f'config.init_from: the network of {workdir} has {classes} classes and this one '
      f'{model.num_classes}; start with a fresh last layer: --config.new_head=True.'
    )


def _check_same_shapes(config: ConfigDict, other: str, here: dict, there: dict) -> None:
  differing = [path for path in {**here, **there} if there.get(path) != here.get(path)]
  if differing:
    listed = '; '.join(
      f'{path} is {there.get(path, "missing")} there and {here.get(path, "missing")} here'
      for path in differing[:_LISTED]
    )
    raise UserError(
      f'config.init_from: {other} is another network than this {config.model.name}; '
      f'{len(differing)} variables differ: {listed}{"; …" if len(differing) > _LISTED else ""}. '
      'Set config.model as in its config.json.'
    )


def _check_same_function(config: ConfigDict, source: ConfigDict) -> None:
  """Checks the fields that change what the same weights compute."""
  here, there = (dict(config_lib.flatten(c)) for c in (config, source))
  fields = [
    name
    for name, field in config_lib.FIELDS.items()
    if name.startswith('model.') and field.function and name not in _IN_VARIABLES
  ]
  fields += [f'data.{name}' for name in ('mean', 'std') if there[f'data.{name}']]
  differing = [f for f in fields if here[f] != there[f]]
  if differing:
    flags = ' '.join(f'--config.{f}="{there[f]}"' for f in differing if there[f] is not None)
    unset = ', '.join(f'config.{f}' for f in differing if there[f] is None)
    raise UserError(
      f'config.init_from: its weights make another function of these settings: '
      f'{", ".join(f"{f} is {there[f]} there and {here[f]} here" for f in differing)}; '
      f'set {" and leave out ".join(filter(None, (flags, unset)))}.'
    )


def _shapes(variables: dict) -> dict[str, tuple[int, ...]]:
  return {path: x.shape for path, x in _by_path(variables).items()}


def _by_path(variables: dict) -> dict[str, Any]:
  return {_name(path): x for path, x in jax.tree.leaves_with_path(variables)}


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')
