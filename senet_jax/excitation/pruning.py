"""Smaller networks by what SE's gates say: which SE blocks and channels go, and what is left.

The paper's conclusion proposes it. For networks of `ResNet` with SE at the end of the branches. The
last layer of a branch that can take a factor for each channel is its *end*: BN in a post-activation
unit, the convolution in a pre-activation one.

An SE block that goes leaves a constant, its mean gate, in the end of its branch: what is computed
is the same where the gate was constant. A channel that goes is one of a branch, not of the sum of
branch and shortcut: a filter of the last convolution, its BN, and its row and column in SE. What is
computed is the same as if the branch were zero there, for SE too.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from senet_jax.errors import UserError, one_of
from senet_jax.excitation.activations import Block
from senet_jax.models import pruned
from senet_jax.models.resnet import ResNet
from senet_jax.workdir import network
from senet_jax.workdir.saved import Saved

# Which input gives which gate, and between which gates.
_INVERSES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[float, float]]] = {
  'sigmoid': (lambda gate: np.log(gate / (1 - gate)), (1e-7, 1 - 1e-7)),
  'tanh': (np.arctanh, (1e-7 - 1, 1 - 1e-7)),
  'relu': (lambda gate: gate, (0, np.inf)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Gates:
  """The gates of one SE block over all images.

  Attributes:
    mean: of each channel, `[C]` float64.
    variance: over the images, of all classes, `[C]` float64.
  """

  mean: np.ndarray
  variance: np.ndarray

  @classmethod
  def of(cls, block: Block) -> 'Gates':
    """Returns the gates of all images, given the moments of the classes."""
    count = block.count[:, None]
    mean = (count * block.mean).sum(0) / count.sum()
    squares = block.squares.sum(0) + (count * np.square(block.mean - mean)).sum(0)
    return cls(mean, squares / count.sum())

  @property
  def information(self) -> float:
    """The share of the gates' mean square, from 0 to 1, that is lost if each is held at its mean.

    It is the relative squared error of the gated map, were map and gate independent. The paper
    calls blocks without any less important (section 7.2).
    """
    square = (np.square(self.mean) + self.variance).sum()
    return float(self.variance.sum() / square) if square else 0.0


def prepared(run: Saved) -> Saved:
  """Returns `run` as the other functions take it: with NumPy arrays.

  Raises:
    UserError: its network is not one that can be pruned.
  """
  name, model = run.config.model.name, run.model
  if not isinstance(model, ResNet):
    raise UserError(
      f'{name} cannot be pruned: only residual networks of one path can (resnet, resnext, wrn, '
      'senet154).'
    )
  if model.se is None:
    raise UserError(f'{name} has no SE blocks, whose gates say what to prune; use one that has.')
  if model.attention != 'se':
    raise UserError(
      f'config.model.attention={model.attention!r}: only networks with SE can be pruned by their '
      'gates.'
    )
  if model.se.position != 'standard':
    raise UserError(
      f'config.model.se.position={model.se.position!r}: only networks with SE at the end of the '
      "branches can be pruned, position 'standard'."
    )
  return dataclasses.replace(run, variables=jax.tree.map(np.asarray, run.variables))


def _changed(run: Saved, config: Any, variables: dict[str, Any]) -> Saved:
  model = network.build_model(config, run.model.num_classes)
  return dataclasses.replace(run, config=config, model=model, variables=variables)


def parameters(run: Saved) -> int:
  """Returns the number of parameters of the network."""
  return sum(x.size for x in jax.tree.leaves(run.variables['params']))


# --- what goes -----------------------------------------------------------------------------------


def block_scores(run: Saved, gates: Mapping[str, Gates], by: str, seed: int = 0) -> dict[str, Any]:
  """Returns the scores of SE blocks; those with the lowest go first.

  Args:
    run: of `prepared`.
    gates: of each block, by name.
    by: `gates`, the last stage before the one in front of it, and in a stage the block whose
      gates tell least (`Gates.information`); `magnitude`, the mean size of the weights in its two
      layers; `random`.
    seed: of `random`.
  """
  if by == 'gates':
    return {name: (-int(name.split('_')[1]), gate.information) for name, gate in gates.items()}
  if by == 'random':
    return dict(zip(gates, np.random.default_rng(seed).permutation(len(gates)), strict=True))
  weights = {name: run.variables['params'][_unit(name)]['se'] for name in gates}
  return {
    name: np.abs(np.concatenate([se[fc]['kernel'].ravel() for fc in ('fc1', 'fc2')])).mean()
    for name, se in weights.items()
  }


def channel_scores(
  run: Saved, gates: Mapping[str, Gates], by: str, seed: int = 0
) -> dict[str, np.ndarray]:
  """Returns the scores of the channels of each unit with SE, `[C]`; the lowest go first.

  Args:
    run: of `prepared`.
    gates: of each block, by name.
    by: `gates`, the mean gate; `magnitude`, the L1 norm of the filter in the last convolution, for
      post-activation times the factor of its BN, γ over the running standard deviation; `random`.
    seed: of `random`.
  """
  if by == 'gates':
    return {name: gate.mean for name, gate in gates.items()}
  if by == 'random':
    rng = np.random.default_rng(seed)
    return {name: rng.permutation(len(gate.mean)) for name, gate in gates.items()}
  return {name: _filter_norms(run, name) for name in gates}


def _filter_norms(run: Saved, name: str) -> np.ndarray:
  params = run.variables['params'][_unit(name)]
  conv, bn = _last_layers(run, name)
  norms = np.abs(params[conv]['kernel']).sum((0, 1, 2))
  if bn is None:
    return norms
  var = run.variables['batch_stats'][_unit(name)][bn]['var']
  epsilon = run.model.bn.epsilon
  return norms * np.abs(params[bn]['scale']) / np.sqrt(var + epsilon)


def lowest(scores: Mapping[str, Any], count: int) -> list[str]:
  """Returns the `count` names with the lowest scores, the lowest first."""
  return sorted(scores, key=scores.__getitem__)[:count]


def kept_channels(scores: Mapping[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
  """Returns which channels stay, `[C]` bool, if a share of each unit goes; at least one stays.

  Each unit loses the same share: networks are then equally large whatever ranks the channels, and
  mean gates of different stages are on different scales.
  """
  found = {}
  for name, score in scores.items():
    going = min(int(share * len(score) + 0.5), len(score) - 1)
    found[name] = np.ones(len(score), bool)
    found[name][np.argsort(score, kind='stable')[:going]] = False
  return found


# --- smaller networks ----------------------------------------------------------------------------


def without_blocks(run: Saved, names: Iterable[str], gates: Mapping[str, Gates]) -> Saved:
  """Returns a network without the SE blocks `names`, whose mean gates are in the branches' ends.

  Raises:
    UserError: it has no such block, or a negative mean gate would be in front of a ReLU.
  """
  config, flat = run.config.copy_and_resolve_references(), _flat(run)
  for name in names:
    one_of('SE block', name, gates)
    mean = gates[name].mean
    if run.model.branch_relu and mean.min() < 0:
      raise UserError(
        f'{name} cannot go: its mean gates go down to {mean.min():.3g}, and a ReLU is between BN '
        'and SE (config.model.branch_relu).'
      )
    _scale_end(run, flat, name, mean)
    flat = {path: x for path, x in flat.items() if path[1:3] != (_unit(name), 'se')}
    config.model.se.without = (*config.model.se.without, name)
  config.model.se.without = tuple(sorted(config.model.se.without, key=_place))
  return _changed(run, config, traverse_util.unflatten_dict(flat))


def without_channels(run: Saved, kept: Mapping[str, np.ndarray]) -> Saved:
  """Returns a network whose branches have only the channels `kept`, `[C]` bool by SE block."""
  config, flat = run.config.copy_and_resolve_references(), _flat(run)
  masks = dict(map(pruned.from_text, config.model.kept_channels or ()))
  for name, mask in kept.items():
    if mask.all():
      continue
    layers, stays = _last_layers(run, name), np.flatnonzero(mask)
    for path, x in flat.items():
      if path[1] == _unit(name) and path[2] in layers:
        flat[path] = x[..., stays]
      elif path[1:] == (_unit(name), 'se', 'fc1', 'kernel'):
        flat[path] = x[stays]
      elif path[1:4] == (_unit(name), 'se', 'fc2'):
        flat[path] = x[..., stays]
    masks[name] = _of_all(masks.get(name), mask)
  texts = [pruned.as_text(name, masks[name]) for name in sorted(masks, key=_place)]
  config.model.kept_channels = tuple(texts) or None
  return _changed(run, config, traverse_util.unflatten_dict(flat))


def _of_all(before: np.ndarray | None, mask: np.ndarray) -> np.ndarray:
  """Returns the `mask` of the channels that a unit has as one of those that it had at first."""
  if before is None:
    return mask
  found = np.zeros_like(before)
  found[np.flatnonzero(before)[mask]] = True
  return found


# --- the same in the shape of the whole network --------------------------------------------------


def with_biases(run: Saved) -> Saved:
  """Returns a network of the same function whose SE blocks have biases."""
  config, flat = run.config.copy_and_resolve_references(), _flat(run)
  config.model.se.use_bias = True
  for path, x in list(flat.items()):
    if path[0] == 'params' and path[2] == 'se':
      flat.setdefault((*path[:-1], 'bias'), np.zeros(x.shape[-1:], x.dtype))
  return _changed(run, config, traverse_util.unflatten_dict(flat))


def held(run: Saved, names: Iterable[str], gates: Mapping[str, Gates]) -> dict[str, Any]:
  """Returns variables of a network of `with_biases` that compute what `without_blocks` does."""
  flat, (inverse, ends) = _flat(run), _INVERSES[run.model.se.excitation]
  for name in names:
    fc2 = ('params', _unit(name), 'se', 'fc2')
    flat[*fc2, 'kernel'] = np.zeros_like(flat[*fc2, 'kernel'])
    flat[*fc2, 'bias'] = inverse(gates[name].mean.clip(*ends)).astype(np.float32)
  return traverse_util.unflatten_dict(flat)


def closed(run: Saved, kept: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns variables of the same network that compute what `without_channels` does, by zeros."""
  flat = _flat(run)
  for name, mask in kept.items():
    _scale_end(run, flat, name, mask)
  return traverse_util.unflatten_dict(flat)


# --- places of variables -------------------------------------------------------------------------


def _flat(run: Saved) -> dict[tuple[str, ...], np.ndarray]:
  return traverse_util.flatten_dict(run.variables)


def _scale_end(run: Saved, flat: dict, name: str, factor: np.ndarray) -> None:
  """Multiplies what a branch gives by `factor` `[C]`, in its end."""
  conv, bn = _last_layers(run, name)
  for leaf in ('kernel', 'scale', 'bias'):
    path = ('params', _unit(name), bn or conv, leaf)
    if path in flat:
      flat[path] = (flat[path] * factor).astype(flat[path].dtype)


def _last_layers(run: Saved, name: str) -> tuple[str, str | None]:
  """Returns the last convolution of a branch, and the BN behind it if there is one."""
  last = max(layer for layer in run.variables['params'][_unit(name)] if layer.startswith('conv'))
  return last, None if run.model.preact else last.replace('conv', 'bn')


def _place(name: str) -> tuple[int, int]:
  stage, block = re.findall(r'\d+', name)
  return int(stage), int(block)


def _unit(name: str) -> str:
  return 'stage{}_block{}'.format(*_place(name))
