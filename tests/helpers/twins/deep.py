"""SENet-154, WRN-16-k and the student report's networks in torch."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.torch_twin import Twin, residual_twin
from tests.helpers.torch_zoo import import_timm
from tests.helpers.twins.residual import SE


def senet154(depths, classes) -> Twin:
  """timm's."""
  timm, _ = import_timm()
  network = timm.create_model('legacy_senet154', layers=list(depths), num_classes=classes)
  network.stages = 4
  return residual_twin(network)


class WideUnit(nn.Module):
  """BN-ReLU-conv twice; a projection starts behind the first BN and ReLU."""

  def __init__(self, inputs, outputs, stride, ratio):
    super().__init__()
    self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.se = SE(outputs, ratio)
    self.downsample = None
    if inputs != outputs:
      self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

  def forward(self, x):
    activated = F.relu(self.bn1(x))
    y = self.conv2(F.relu(self.bn2(self.conv1(activated))))
    return self.se(y) + (x if self.downsample is None else self.downsample(activated))


class WideNetwork(nn.Module):
  """WRN-16-k and its SE twin."""

  def __init__(self, stem, width, classes, ratio):
    super().__init__()
    self.stages = 3
    self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
    inputs = stem
    for stage in range(3):
      outputs = width * 2**stage
      first = WideUnit(inputs, outputs, 2 if stage else 1, ratio)
      layer = nn.Sequential(first, WideUnit(outputs, outputs, 1, ratio))
      setattr(self, f'layer{stage + 1}', layer)
      inputs = outputs
    self.final_bn, self.fc = nn.BatchNorm2d(inputs), nn.Linear(inputs, classes)

  def forward(self, x):
    x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
    return self.fc(F.relu(self.final_bn(x)).mean((2, 3)))


def same(x, kernel, stride, value=0.0):
  """Pads as TensorFlow's SAME: to give ceil(size / stride), an odd pixel behind."""
  pads = []
  for size in (x.shape[3], x.shape[2]):
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    pads += [total // 2, total - total // 2]
  return F.pad(x, pads, value=value)


class KerasConv(nn.Conv2d):
  """A convolution with bias and TensorFlow's padding."""

  def __init__(self, inputs, outputs, kernel, stride=1, groups=1):
    super().__init__(inputs, outputs, kernel, stride, groups=groups)

  def forward(self, x):
    return super().forward(same(x, self.kernel_size[0], self.stride[0]))


KerasBN = functools.partial(nn.BatchNorm2d, eps=1e-3)


class KerasUnit(nn.Module):
  """Convolutions, each with BN and ReLU; SE on the last BN; the first unit has a projection."""

  def __init__(self, inputs, shapes, stride, ratio):
    super().__init__()
    self.count = len(shapes)
    outputs, width = shapes[-1], inputs
    for i, (kernel, features, conv_stride, groups) in enumerate(shapes, start=1):
      setattr(self, f'conv{i}', KerasConv(width, features, kernel, conv_stride, groups))
      setattr(self, f'bn{i}', KerasBN(features))
      width = features
    self.outputs = width
    self.se = SE(width, ratio) if ratio else nn.Identity()
    self.downsample = nn.Identity()
    if stride:
      self.downsample = nn.Sequential(KerasConv(inputs, width, outputs[0], stride), KerasBN(width))

  def forward(self, x):
    y = x
    for i in range(1, self.count + 1):
      y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y))
      y = F.relu(y) if i < self.count else self.se(y)
    return F.relu(y + self.downsample(x))


class PathsUnit(KerasUnit):
  """The bottleneck as paths of their own, each a 1x1 and a 3x3 convolution with BN and ReLU."""

  def forward(self, x):
    (last,) = {self.conv2.groups}
    width = self.conv1.out_channels // last
    paths = []
    for i in range(last):
      part, y = slice(i * width, (i + 1) * width), x
      for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
        y = same(y, conv.kernel_size[0], conv.stride[0])
        y = F.conv2d(y, conv.weight[part], conv.bias[part], conv.stride)
        statistics = bn.running_mean[part], bn.running_var[part]
        y = F.relu(F.batch_norm(y, *statistics, bn.weight[part], bn.bias[part], eps=1e-3))
      paths.append(y)
    y = self.se(self.bn3(self.conv3(torch.cat(paths, 1))))
    return F.relu(y + self.downsample(x))


class KerasNetwork(nn.Module):
  """As the student report's code: `stages` are units, blocks, and their features and kernels."""

  def __init__(self, stem, width, stages, classes, ratio, unit=KerasUnit):
    super().__init__()
    self.conv1, self.bn1 = KerasConv(3, width, stem, 2), KerasBN(width)
    self.stages, inputs = len(stages), width
    for stage, (depth, shapes_of) in enumerate(stages, start=1):
      units = []
      for block in range(depth):
        stride = 0 if block else 2 if stage > 1 else 1
        units.append(unit(inputs, shapes_of(max(stride, 1)), stride, ratio))
        inputs = units[-1].outputs
      setattr(self, f'layer{stage}', nn.Sequential(*units))
    self.fc = nn.Linear(inputs, classes)

  def forward(self, x):
    x = F.relu(self.bn1(self.conv1(x)))
    x = F.max_pool2d(same(x, 3, 2, -torch.inf), 3, 2)
    for stage in range(1, self.stages + 1):
      x = getattr(self, f'layer{stage}')(x)
    return self.fc(x.mean((2, 3)))


def basic(width):
  return lambda stride: [(3, width, stride, 1), (3, width, 1, 1)]


def bottleneck(width, features):
  return lambda stride: [(1, width, stride, 1), (3, width, 1, 1), (1, features, 1, 1)]


def grouped(width, features, groups):
  return lambda stride: [(1, width, 1, 1), (3, width, stride, groups), (1, features, 1, 1)]


def wide(stem, width, classes, ratio) -> Twin:
  return residual_twin(WideNetwork(stem, width, classes, ratio))


def resnet46(depths, classes, ratio) -> Twin:
  kinds = basic(16), basic(32), bottleneck(64, 256)
  return residual_twin(KerasNetwork(7, 16, list(zip(depths, kinds, strict=True)), classes, ratio))


def resnext29(classes, ratio) -> Twin:
  stages = [(1, grouped(128, 64, 8)), (2, grouped(256, 128, 8)), (1, grouped(512, 256, 8))]
  return residual_twin(KerasNetwork(3, 16, stages, classes, ratio, PathsUnit))
