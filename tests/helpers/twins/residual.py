"""ResNet, ResNeXt and pre-activation networks in torch, as in public code."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.torch_twin import Twin, residual_twin


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


def resnet(*args, **options) -> Twin:
  return residual_twin(ResNet(*args, **options))


def preactivation(*args) -> Twin:
  return residual_twin(PreActivationResNet(*args))
