"""A torch network that takes our variables, and its activations, loss and gradients in float64.

Independent of `senet_jax.interop`, which is tested with it.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from flax import traverse_util
from torch import nn

from tests.helpers.parity import paths_of

# The names of torchvision's residual networks; the last rules are timm's of SENet.
RESIDUAL = [
  (r'^layer0\.(conv|bn)', r'stem_\1'),
  (r'^conv1\.', 'stem_conv.'),
  (r'^bn1\.', 'stem_bn.'),
  (r'^layer(\d+)\.(\d+)\.', lambda m: f'stage{int(m[1]) + 1}_block{int(m[2]) + 1}.'),
  (r'downsample\.0\.', 'proj_conv.'),
  (r'downsample\.1\.', 'proj_bn.'),
  ('se_module', 'se'),
  ('last_linear', 'fc'),
]


def torch_images(images: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).double()


def channels_last(tensor: torch.Tensor) -> np.ndarray:
  array = tensor.detach().numpy()
  return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


class Twin:
  """A torch network and where its parts are in ours.

  Args:
    network: in torch.
    rename: makes the name of a tensor the one of our variable, with dots, but for its last part.
    points: modules whose outputs are compared, by the path of ours.
  """

  def __init__(
    self, network: nn.Module, rename: Callable[[str], str], points: Mapping[str, nn.Module]
  ):
    self.network, self.rename, self.points = network.double(), rename, dict(points)

  def load(self, variables: Mapping) -> None:
    """Copies our variables into the network; each of them must have its place, and no other."""
    flat = traverse_util.flatten_dict(dict(variables), sep='/')
    with torch.no_grad():
      for name, tensor in self.network.state_dict().items():
        if name.endswith('num_batches_tracked'):
          continue
        index = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
        path, order = self._ours(name, index)
        value = flat.pop(path)
        assert value.shape == order.shape, (path, value.shape, order.shape)
        values = np.empty(tensor.numel())
        values[order.ravel().astype(int)] = value.ravel()
        tensor.copy_(torch.from_numpy(values).reshape(tensor.shape))
    assert not flat, sorted(flat)

  def outputs(self, variables: Mapping, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the outputs at the points of an evaluation, and its `logits`."""
    self.load(variables)
    found = {}
    hooks = [
      module.register_forward_hook(
        lambda _, inputs, y, path=path: found.update({path: channels_last(y).copy()})
      )
      for path, module in self.points.items()
    ]
    with torch.no_grad():
      output = self.network.eval()(torch_images(images))
    for hook in hooks:
      hook.remove()
    assert found.keys() == self.points.keys()
    return {**found, 'logits': output.numpy()}

  def training(
    self, variables: Mapping, images: np.ndarray, loss_of: Callable[[list], torch.Tensor]
  ) -> dict[str, np.ndarray]:
    """Returns `loss`, `logits` and the gradients by the paths of our parameters."""
    self.load(variables)
    output = self.network.train()(torch_images(images))
    heads = list(output) if isinstance(output, tuple) else [output]
    loss = loss_of(heads)
    self.network.zero_grad()
    loss.backward()
    found = {'loss': loss.detach().numpy(), 'logits': heads[0].detach().numpy()}
    if len(heads) > 1:
      found['aux_logits'] = heads[1].detach().numpy()
    for name, parameter in self.network.named_parameters():
      path, gradient = self._ours(name, parameter.grad)
      found[path] = gradient
    return found

  def statistics(self, variables: Mapping, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns BN statistics that are random around those of `images`, by the paths of ours."""
    self.load(variables)
    generator = torch.Generator().manual_seed(3)

    def set_statistics(norm, inputs):
      var, mean = torch.var_mean(inputs[0], (0, 2, 3))
      var = (var + 0.1 * var.mean()) * (0.5 + torch.rand(var.shape, generator=generator))
      noise = torch.randn(var.shape, generator=generator)
      for stored, value in (
        (norm.running_mean, mean + 0.2 * noise * var.sqrt()),
        (norm.running_var, var),
      ):
        stored.copy_(value.half())  # as it is committed

    norms = [m for m in self.network.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(set_statistics) for norm in norms]
    with torch.no_grad():
      self.network.eval()(torch_images(images))
    for hook in hooks:
      hook.remove()
    found = {}
    for name, tensor in self.network.state_dict().items():
      if name.endswith(('running_mean', 'running_var')):
        path, value = self._ours(name, tensor)
        found[path.removeprefix('batch_stats/')] = value
    return found

  def _ours(self, name: str, tensor: torch.Tensor) -> tuple[str, np.ndarray]:
    """Returns the path of our variable, its collection in front, and the tensor in its layout."""
    *path, kind = self.rename(name).split('.')
    value = tensor.detach().numpy()
    if 'se' in path and value.ndim == 4:
      value = value[:, :, 0, 0]
    if path == ['fc6'] and value.ndim > 1:  # it reads maps of 7x7, channels first in torch
      value = value.reshape(len(value), -1, 7, 7).transpose(0, 2, 3, 1).reshape(len(value), -1)
    elif path == ['fc7'] and value.ndim == 4:
      value = value[:, :, 0, 0]
    if value.ndim > 1:
      kind = 'kernel'
      value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    kind = {'weight': 'scale', 'running_mean': 'mean', 'running_var': 'var'}.get(kind, kind)
    collection = 'batch_stats' if kind in ('mean', 'var') else 'params'
    return '/'.join([collection, *path, kind]), value


def by_patterns(patterns: list) -> Callable[[str], str]:
  """Returns a renaming by regular expressions, each applied once."""

  def rename(name: str) -> str:
    for pattern, replacement in patterns:
      name = re.sub(pattern, replacement, name)
    return name

  return rename


def by_prefixes(prefixes: Mapping[str, str]) -> Callable[[str], str]:
  """Returns a renaming by the longest prefix of whole parts."""

  def rename(name: str) -> str:
    parts = name.split('.')
    for n in range(len(parts), 0, -1):
      prefix = '.'.join(parts[:n])
      if prefix in prefixes:
        return prefixes[prefix] + name[len(prefix) :]
    return name

  return rename


def residual_twin(network: nn.Module, patterns: list = RESIDUAL) -> Twin:
  """Of a network with torchvision's names, compared at the ends of its stages."""
  points = {}
  for stage in range(1, network.stages + 1):
    layer = getattr(network, f'layer{stage}')
    points[f'stage{stage + 1}_block{len(layer)}'] = layer
  return Twin(network, by_patterns(patterns), points)


def twin_by_order(network: nn.Module, model, images: np.ndarray, train: bool = False) -> Twin:
  """Of a network whose layers run in the order of ours, compared at all that have weights."""
  calls, names = [], {module: name for name, module in network.named_modules()}
  layers = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
  hooks = [
    module.register_forward_hook(lambda m, *_: calls.append(m))
    for module in network.modules()
    if isinstance(module, layers)
  ]
  with torch.no_grad():
    network.double().train(train)(torch_images(images))
  for hook in hooks:
    hook.remove()
  paths = paths_of(model, images, train)
  assert len(paths) == len(calls), (len(paths), len(calls))
  found = list(zip(calls, paths, strict=True))
  # timm's BN has the nonlinearity inside.
  points = {'/'.join(p): m for m, p in found if not isinstance(m, nn.BatchNorm2d)}
  return Twin(network, by_prefixes({names[m]: '.'.join(p) for m, p in found}), points)
