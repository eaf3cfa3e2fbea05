"""Independent torch definitions of networks, and their weights as Flax variables."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch')
nn, F = torch.nn, torch.nn.functional


def conv(inputs, outputs, kernel, stride=1, groups=1):
  return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class SE(nn.Module):
  """As in the public ports: the two fully connected layers are 1x1 convolutions."""

  def __init__(self, channels, ratio):
    super().__init__()
    self.fc1 = nn.Conv2d(channels, channels // ratio, 1)
    self.fc2 = nn.Conv2d(channels // ratio, channels, 1)

  def forward(self, x):
    gate = F.adaptive_avg_pool2d(x, 1)
    return x * torch.sigmoid(self.fc2(F.relu(self.fc1(gate))))


class Bottleneck(nn.Module):
  """As torchvision's, with the choice of the strided convolution and an SE module."""

  def __init__(self, inputs, planes, stride, *, groups=1, group_width=64, stride_in='1x1', ratio=0):
    super().__init__()
    width, outputs = planes * group_width // 64 * groups, 4 * planes
    first, second = (stride, 1) if stride_in == '1x1' else (1, stride)
    self.conv1, self.bn1 = conv(inputs, width, 1, first), nn.BatchNorm2d(width)
    self.conv2, self.bn2 = conv(width, width, 3, second, groups), nn.BatchNorm2d(width)
    self.conv3, self.bn3 = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
    self.se = SE(outputs, ratio) if ratio else nn.Identity()
    self.downsample = nn.Identity()
    if stride != 1 or inputs != outputs:
      self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    y = F.relu(self.bn2(self.conv2(y)))
    return F.relu(self.se(self.bn3(self.conv3(y))) + self.downsample(x))


class ResNet(nn.Module):
  """As torchvision's."""

  def __init__(self, depths, width, classes, pool_align, **options):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
    pools = {'torch': nn.MaxPool2d(3, 2, padding=1), 'caffe': nn.MaxPool2d(3, 2, ceil_mode=True)}
    self.maxpool = pools[pool_align]
    self.stages = len(depths)
    inputs = width
    for stage, depth in enumerate(depths):
      planes, blocks = width * 2**stage, []
      for block in range(depth):
        blocks.append(Bottleneck(inputs, planes, 2 if stage and not block else 1, **options))
        inputs = 4 * planes
      setattr(self, f'layer{stage + 1}', nn.Sequential(*blocks))
    self.fc = nn.Linear(inputs, classes)

  def forward(self, x):
    x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
    for stage in range(self.stages):
      x = getattr(self, f'layer{stage + 1}')(x)
    return self.fc(x.mean((2, 3)))


class PreActivationUnit(nn.Module):
  """BN-ReLU-conv two or three times; `first` of a stage shares BN-ReLU with the shortcut."""

  def __init__(self, inputs, outputs, stride, first, bottleneck, ratio):
    super().__init__()
    self.first, self.stride, self.outputs = first, stride, outputs
    inner = outputs // 4
    shapes = [(inputs, outputs, 3, stride), (outputs, outputs, 3)]
    if bottleneck:
      shapes = [(inputs, inner, 1, stride), (inner, inner, 3), (inner, outputs, 1)]
    for i, shape in enumerate(shapes, start=1):
      setattr(self, f'bn{i}', nn.BatchNorm2d(shape[0]))
      setattr(self, f'conv{i}', conv(*shape))
    self.convolutions = len(shapes)
    self.se = SE(outputs, ratio) if ratio else nn.Identity()
    self.downsample = None
    if bottleneck and inputs != outputs:
      self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride))

  def forward(self, x):
    y = F.relu(self.bn1(x))
    shortcut = y if self.first else x
    for i in range(1, self.convolutions + 1):
      if i > 1:
        y = F.relu(getattr(self, f'bn{i}')(y))
      y = getattr(self, f'conv{i}')(y)
    if self.downsample is not None:
      shortcut = self.downsample(shortcut)
    elif self.stride != 1:  # Shortcut A; average pooling with a 1x1 window subsamples.
      shortcut = F.avg_pool2d(shortcut, 1, self.stride)
      shortcut = torch.cat([shortcut, torch.zeros_like(shortcut)], 1)
    return self.se(y) + shortcut


class PreActivationResNet(nn.Module):
  """The CIFAR networks of He et al. 2016."""

  def __init__(self, depths, width, classes, bottleneck, ratio):
    super().__init__()
    self.conv1 = conv(3, width, 3)
    inputs = width
    for stage, depth in enumerate(depths):
      outputs, blocks = width * 2**stage * (4 if bottleneck else 1), []
      for block in range(depth):
        stride = 2 if stage and not block else 1
        blocks.append(PreActivationUnit(inputs, outputs, stride, not block, bottleneck, ratio))
        inputs = outputs
      setattr(self, f'layer{stage + 1}', nn.Sequential(*blocks))
    self.stages = len(depths)
    self.final_bn = nn.BatchNorm2d(inputs)
    self.fc = nn.Linear(inputs, classes)

  def forward(self, x):
    x = self.conv1(x)
    for stage in range(self.stages):
      x = getattr(self, f'layer{stage + 1}')(x)
    return self.fc(F.relu(self.final_bn(x)).mean((2, 3)))


def randomized(network, seed=0):
  """Gives `network` float64 weights and BN statistics none of which is zero or one."""
  generator = torch.Generator().manual_seed(seed)
  network.double()
  with torch.no_grad():
    for name, tensor in network.state_dict().items():
      if tensor.ndim > 1:
        tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
      elif name.endswith('running_var') or ('bn' in name and name.endswith('weight')):
        tensor.uniform_(0.5, 1.5, generator=generator)
      elif tensor.is_floating_point():
        tensor.normal_(0, 0.3, generator=generator)
      # What follows is computed in float32 on the other side: let both start from the same.
      tensor.copy_(tensor.float())
  return network


RENAMES = [
  (r'^conv1\.', 'stem_conv.'),
  (r'^bn1\.', 'stem_bn.'),
  (r'^layer(\d+)\.(\d+)\.', lambda m: f'stage{int(m[1]) + 1}_block{int(m[2]) + 1}.'),
  (r'downsample\.0\.', 'proj_conv.'),
  (r'downsample\.1\.', 'proj_bn.'),
]


def to_flax(tensors):
  """Torch's `{name: tensor}` as Flax variables."""
  variables = {}
  for name, tensor in tensors.items():
    if name.endswith('num_batches_tracked'):
      continue
    for pattern, replacement in RENAMES:
      name = re.sub(pattern, replacement, name)
    *path, kind = name.split('.')
    value = tensor.detach().numpy().astype('f4')
    if 'se' in path and value.ndim == 4:
      value = value[:, :, 0, 0]
    if value.ndim > 1:
      kind = 'kernel'
      value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    kind = {'weight': 'scale', 'running_mean': 'mean', 'running_var': 'var'}.get(kind, kind)
    node = variables.setdefault('batch_stats' if kind in ('mean', 'var') else 'params', {})
    for key in path:
      node = node.setdefault(key, {})
    node[kind] = value
  return variables


def checked_variables(model, network, images):
  """The weights of `network`, checked to be all that `model` has."""
  variables = to_flax(network.state_dict())
  expected = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), jnp.asarray(images)
  )
  assert jax.tree.map(lambda leaf: leaf.shape, expected) == jax.tree.map(np.shape, variables)
  return variables


def near(actual, expected, tolerance, what):
  """`tolerance` is relative to the largest magnitude of `expected`."""
  assert actual.shape == expected.shape, what
  scale = np.abs(expected).max()
  assert scale > 0, what
  error = np.abs(np.asarray(actual) - expected).max() / scale
  assert error < tolerance, f'{what}: {error:.1e}'


def compare_evaluation(model, network, height, width):
  """Compares logits and the last activation of every stage, to 1e-4."""
  images = np.random.default_rng(1).standard_normal((2, height, width, 3)).astype('f4')
  variables = checked_variables(model, randomized(network), images)
  stages = {}
  for stage in range(1, network.stages + 1):
    getattr(network, f'layer{stage}').register_forward_hook(
      lambda module, inputs, output, stage=stage: stages.update({stage + 1: output})
    )
  with torch.no_grad():
    expected = network.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)).double()).numpy()

  ends = {stage: f'stage{stage}_block{depth}' for stage, depth in enumerate(model.depths, start=2)}

  @jax.jit
  def run(variables, images):
    logits, new = model.apply(
      variables,
      images,
      train=False,
      capture_intermediates=lambda module, _: module.name in ends.values(),
      mutable=['intermediates'],
    )
    return logits, {s: new['intermediates'][name]['__call__'][0] for s, name in ends.items()}

  logits, actual = run(variables, images)
  assert len(stages) == len(ends)
  for stage, output in stages.items():
    near(actual[stage], output.numpy().transpose(0, 2, 3, 1), 1e-4, f'stage {stage}')
  near(logits, expected, 1e-4, 'logits')
  assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.abs(expected).max()
