"""timm and torchvision as references: their networks, without their data or weights."""

import importlib.util

import pytest

from senet_jax.measure import torch_models

# The units of BN-Inception: 1x1, 3x3 reduce, 3x3, double reduce, double, projection; 0: none.
BN_INCEPTION = {
  '3a': (64, 64, 64, 64, 96, 32), '3b': (64, 64, 96, 64, 96, 64), '3c': (0, 128, 160, 64, 96, 0),
  '4a': (224, 64, 96, 96, 128, 128), '4b': (192, 96, 128, 96, 128, 128),
  '4c': (160, 128, 160, 128, 160, 128), '4d': (96, 128, 192, 160, 192, 128),
  '4e': (0, 128, 192, 192, 256, 0),
  '5a': (352, 192, 320, 160, 224, 128), '5b': (352, 192, 320, 192, 224, 128),
}  # fmt: skip


def import_timm():
  """`timm` and `torchvision`; skips where they are not installed."""
  for module in ('torch', 'torchvision', 'timm'):
    if importlib.util.find_spec(module) is None:
      pytest.skip(f'needs {module}', allow_module_level=True)
  _, timm = torch_models.import_timm()
  import torchvision

  return timm, torchvision


def cadene_bn_inception(num_classes):
  """BN-Inception with the names of Cadene's pretrained-models, and its biases in front of BN."""
  import torch
  from torch import nn
  from torch.nn import functional as F

  class BNInception(nn.Module):
    def __init__(self):
      super().__init__()
      self.unit('conv1_7x7_s2', 3, 64, 7, 2)
      self.unit('conv2_3x3_reduce', 64, 64, 1)
      self.unit('conv2_3x3', 64, 192, 3)
      channels = 192
      for letter, (one, reduce, three, double_reduce, double, pooled) in BN_INCEPTION.items():
        name, stride = f'inception_{letter}_', 1 if one else 2
        if one:
          self.unit(f'{name}1x1', channels, one, 1)
          self.unit(f'{name}pool_proj', channels, pooled, 1)
        self.unit(f'{name}3x3_reduce', channels, reduce, 1)
        self.unit(f'{name}3x3', reduce, three, 3, stride)
        self.unit(f'{name}double_3x3_reduce', channels, double_reduce, 1)
        self.unit(f'{name}double_3x3_1', double_reduce, double, 3)
        self.unit(f'{name}double_3x3_2', double, double, 3, stride)
        channels = one + three + double + (pooled or channels)
      self.last_linear = nn.Linear(channels, num_classes)

    def unit(self, name, inputs, outputs, kernel, stride=1):
      self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2))
      self.add_module(f'{name}_bn', nn.BatchNorm2d(outputs))

    def run(self, x, *names):
      for name in names:
        x = F.relu(getattr(self, f'{name}_bn')(getattr(self, name)(x)))
      return x

    def forward(self, x):
      x = F.max_pool2d(self.run(x, 'conv1_7x7_s2'), 3, 2, ceil_mode=True)
      x = F.max_pool2d(self.run(x, 'conv2_3x3_reduce', 'conv2_3x3'), 3, 2, ceil_mode=True)
      for letter, (one, *_) in BN_INCEPTION.items():
        name = f'inception_{letter}_'
        ends = [
          self.run(x, f'{name}3x3_reduce', f'{name}3x3'),
          self.run(x, *(f'{name}double_3x3_{end}' for end in ('reduce', '1', '2'))),
        ]
        if one:
          pool = F.max_pool2d if letter == '5b' else F.avg_pool2d
          pooled = self.run(pool(x, 3, 1, 1), f'{name}pool_proj')
          x = torch.cat([self.run(x, f'{name}1x1'), *ends, pooled], 1)
        else:
          x = torch.cat([*ends, F.max_pool2d(x, 3, 2, ceil_mode=True)], 1)
      return self.last_linear(x.mean((2, 3)))

  return BNInception()
