"""Inception networks in torch: by the Caffe model, torchvision's and timm's, with SE."""

import functools
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.torch_twin import Twin, twin_by_order
from tests.helpers.torch_zoo import import_timm
from tests.helpers.twins.residual import SE


class Unit(nn.Module):
  def __init__(self, inputs, outputs, kernel, stride=1):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    self.bn = nn.BatchNorm2d(outputs)

  def forward(self, x):
    return F.relu(self.bn(self.conv(x)))


class CaffeModule(nn.Module):
  """1x1 | 3x3 | double 3x3 | pooling; without 1x1 and projection it halves the map."""

  def __init__(self, inputs, one, reduce, three, double_reduce, double, pool, projection, ratio):
    super().__init__()
    stride = 1 if one else 2
    pools = {
      'avg': nn.AvgPool2d(3, 1, 1),
      'max': nn.MaxPool2d(3, stride, padding=1 if one else 0, ceil_mode=not one),
    }
    branches = [
      [Unit(inputs, one, 1)] if one else None,
      [Unit(inputs, reduce, 1), Unit(reduce, three, 3, stride)],
      [
        Unit(inputs, double_reduce, 1),
        Unit(double_reduce, double, 3),
        Unit(double, double, 3, stride),
      ],
      [pools[pool], *([Unit(inputs, projection, 1)] if one else [])],
    ]
    self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches if branch)
    self.outputs = one + three + double + (projection or inputs)
    self.se = SE(self.outputs, ratio)

  def forward(self, x):
    return self.se(torch.cat([branch(x) for branch in self.branches], 1))


class BNInception(nn.Module):
  """As the Caffe model."""

  ROWS = (
    (64, 64, 64, 64, 96, 'avg', 32),
    (64, 64, 96, 64, 96, 'avg', 64),
    (0, 128, 160, 64, 96, 'max', 0),
    (224, 64, 96, 96, 128, 'avg', 128),
    (192, 96, 128, 96, 128, 'avg', 128),
    (160, 128, 160, 128, 160, 'avg', 128),
    (96, 128, 192, 160, 192, 'avg', 128),
    (0, 128, 192, 192, 256, 'max', 0),
    (352, 192, 320, 160, 224, 'avg', 128),
    (352, 192, 320, 192, 224, 'max', 128),
  )

  def __init__(self, classes, ratio):
    super().__init__()
    self.stem = nn.Sequential(
      *(Unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), Unit(64, 64, 1)),
      *(Unit(64, 192, 3), nn.MaxPool2d(3, 2, ceil_mode=True)),
    )
    inputs, modules = 192, []
    for row in self.ROWS:
      modules.append(CaffeModule(inputs, *row, ratio))
      inputs = modules[-1].outputs
    self.inception = nn.Sequential(*modules)
    self.fc = nn.Linear(inputs, classes)

  def forward(self, x):
    return self.fc(self.inception(self.stem(x)).mean((2, 3)))


def torch_v3(classes, ratio=0, **options):
  """torchvision's network, with SE behind its modules."""
  _, torchvision = import_timm()
  network = torchvision.models.Inception3(
    num_classes=classes, dropout=0.0, init_weights=False, **options
  )
  widths = dict(
    zip(('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c'),
        (256, 288, 288, *(768,) * 5, 1280, 2048, 2048), strict=True)
  )  # fmt: skip
  for name, width in widths.items() if ratio else ():
    module = getattr(network, f'Mixed_{name}')
    setattr(network, f'Mixed_{name}', nn.Sequential(module, SE(width, ratio)))
  return network


def keras_pads(size, window, stride):
  missing = max((-(-size // stride) - 1) * stride + window - size, 0)
  return missing // 2, missing - missing // 2


class KerasUnit(nn.Module):
  def __init__(self, inputs, outputs, **options):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, bias=True, **options)
    self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

  def forward(self, x):
    return F.relu(self.bn(self.conv(x)))


class KerasAux(nn.Module):
  """Layers that keep the size but for the stride; what is left is flattened."""

  def __init__(self, inputs, classes, pixels):
    super().__init__()
    self.conv0 = KerasUnit(inputs, 128, kernel_size=1)
    self.conv1 = KerasUnit(128, 768, kernel_size=5, padding=2)
    self.fc = nn.Linear(768 * pixels, classes)

  def forward(self, x):
    pads = [*keras_pads(x.shape[3], 5, 3), *keras_pads(x.shape[2], 5, 3)]
    inside = F.pad(torch.ones_like(x), pads)
    x = F.avg_pool2d(F.pad(x, pads), 5, 3) / F.avg_pool2d(inside, 5, 3)
    x = self.conv1(self.conv0(x))
    return self.fc(x.permute(0, 2, 3, 1).flatten(1))


def torch_v3_keras(classes, ratio, pixels):
  """torchvision's with what Keras does otherwise: biases, averages, third convolution, head."""
  _, torchvision = import_timm()
  family = torchvision.models.inception
  average = functools.partial(F.avg_pool2d, count_include_pad=False)
  modules = [getattr(family, f'Inception{letter}') for letter in 'ABCDE']
  head = functools.partial(KerasAux, pixels=pixels)
  network = torch_v3(classes, ratio, inception_blocks=[KerasUnit, *modules, head])

  class Averaging(type(network)):
    def forward(self, x):
      with mock.patch.object(F, 'avg_pool2d', average):
        return super().forward(x)

  network.__class__ = Averaging
  for module in network.modules():
    if isinstance(module, family.BasicConv2d):
      module.conv.bias = nn.Parameter(torch.zeros(module.conv.out_channels))
  network.Conv2d_2b_3x3.conv.padding = (0, 0)
  return network


def torch_inception_resnet(classes, depths, position, mixed):
  timm, _ = import_timm()
  network = timm.create_model('inception_resnet_v2', num_classes=classes)
  network.repeat = network.repeat[: depths[0]]
  network.repeat_1 = network.repeat_1[: depths[1]]
  network.repeat_2 = network.repeat_2[: depths[2] - 1]
  blocks = [(network.repeat, 320), (network.repeat_1, 1088), (network.repeat_2, 2080)]
  blocks = [(block, width) for sequence, width in blocks for block in sequence]
  for block, width in [*blocks, (network.block8, 2080)] if position == 'standard' else ():
    block.conv2d = nn.Sequential(block.conv2d, SE(width, 16))
  if position == 'post':
    for i, width in enumerate((320, 1088, 2080)):
      name = f'repeat_{i}' if i else 'repeat'
      sequence = [nn.Sequential(block, SE(width, 16)) for block in getattr(network, name)]
      setattr(network, name, nn.Sequential(*sequence))
    network.block8 = nn.Sequential(network.block8, SE(2080, 16))
  for name, width in (('5b', 320), ('6a', 1088), ('7a', 2080)) if mixed else ():
    module = getattr(network, f'mixed_{name}')
    setattr(network, f'mixed_{name}', nn.Sequential(module, SE(width, 16)))
  return network


def bn_inception(model, images, classes, ratio) -> Twin:
  return twin_by_order(BNInception(classes, ratio), model, images)


def inception_v3(model, images, classes, ratio=0, train=False, **options) -> Twin:
  return twin_by_order(torch_v3(classes, ratio, **options), model, images, train)


def auxiliary_head(model, images) -> Twin:
  _, torchvision = import_timm()
  head = torchvision.models.inception.InceptionAux(images.shape[-1], 10)
  return twin_by_order(head, model, images, train=True)


def inception_v3_keras(model, images, classes, ratio, pixels) -> Twin:
  return twin_by_order(torch_v3_keras(classes, ratio, pixels), model, images, train=True)


def inception_resnet(model, images, classes, depths, position, mixed, train=False) -> Twin:
  network = torch_inception_resnet(classes, depths, position, mixed)
  return twin_by_order(network, model, images, train)
