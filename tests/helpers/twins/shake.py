"""Shake-Shake and Shake-Even in torch."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.torch_twin import Twin, residual_twin
from tests.helpers.twins.residual import SE


class Branch(nn.Sequential):
  """Convolutions, each with BN, ReLUs between them, and SE."""

  def __init__(self, inputs, shapes, ratio):
    super().__init__()
    self.count = len(shapes)
    for i, (kernel, features, stride, groups) in enumerate(shapes, start=1):
      padding = kernel // 2
      conv = nn.Conv2d(inputs, features, kernel, stride, padding, groups=groups, bias=False)
      self.add_module(f'conv{i}', conv)
      self.add_module(f'bn{i}', nn.BatchNorm2d(features))
      inputs = features
    self.se = SE(inputs, ratio) if ratio else nn.Identity()

  def forward(self, x):
    for i in range(1, self.count + 1):
      x = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x))
      x = F.relu(x) if i < self.count else self.se(x)
    return x


class Unit(nn.Module):
  """Two branches and a shortcut; `mixed(a, b)` mixes."""

  def __init__(self, inputs, outputs, shapes, stride, even, ratio, mix_ratio, mixed):
    super().__init__()
    self.stride, self.even, self.mixed = stride, even, mixed
    self.branch1, self.branch2 = (Branch(inputs, shapes, ratio) for _ in range(2))
    self.se = SE(outputs, mix_ratio) if mix_ratio else nn.Identity()
    self.project = inputs != outputs
    if self.project and even:
      self.proj_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    elif self.project:
      self.proj_conv1, self.proj_conv2 = (
        nn.Conv2d(inputs, outputs // 2, 1, bias=False) for _ in range(2)
      )
    if self.project:
      self.proj_bn = nn.BatchNorm2d(outputs)

  def forward(self, x):
    activated = x if self.even else F.relu(x)
    y = self.se(self.mixed(self.branch1(activated), self.branch2(activated)))
    if self.project and self.even:
      x = self.proj_bn(self.proj_conv(x))
    elif self.project:
      # As the Torch code: one more row and column in front, one less behind.
      images = activated, F.pad(activated, (1, -1, 1, -1))
      paths = [F.avg_pool2d(image, 1, self.stride) for image in images]
      x = self.proj_bn(torch.cat([self.proj_conv1(paths[0]), self.proj_conv2(paths[1])], 1))
    return F.relu(x + y) if self.even else x + y


class Network(nn.Module):
  """Shake-Shake, or Shake-Even with its ReLUs behind and its bottlenecks in groups."""

  def __init__(self, depths, width, stem, classes, even, ratio=0, mix_ratio=0):
    super().__init__()
    self.even, self.stages = even, len(depths)
    self.conv1, self.bn1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem)
    inputs, self.coefficients = stem, None
    for stage, depth in enumerate(depths):
      units, n = [], width * 2**stage
      outputs = 4 * n if even else n
      for block in range(depth):
        stride = 2 if stage and not block else 1
        shapes = [(3, n, stride, 1), (3, n, 1, 1)]
        if even:
          shapes = [(1, 4 * n, 1, 1), (3, 4 * n, stride, 4), (1, outputs, 1, 1)]
        units.append(Unit(inputs, outputs, shapes, stride, even, ratio, mix_ratio, self.mixed))
        inputs = outputs
      setattr(self, f'layer{stage + 1}', nn.Sequential(*units))
    self.fc = nn.Linear(inputs, classes)

  def mixed(self, a, b):
    if not self.training:
      return (a + b) / 2
    alpha, beta = self.coefficients.pop(0)
    return beta * a + (1 - beta) * b + ((alpha - beta) * (a - b)).detach()

  def forward(self, x):
    x = self.bn1(self.conv1(x))
    x = F.relu(x) if self.even else x
    for stage in range(1, self.stages + 1):
      x = getattr(self, f'layer{stage}')(x)
    return self.fc((x if self.even else F.relu(x)).mean((2, 3)))


def shake(*args, coefficients=None) -> Twin:
  """`coefficients`: alpha and beta, `[N]` each, of the units in the order of their calls."""
  network = Network(*args)
  if coefficients is not None:
    columns = [[torch.from_numpy(np.array(c))[:, None, None, None].double() for c in unit]
               for unit in coefficients]  # fmt: skip
    network.coefficients = columns
  return residual_twin(network)
