"""VGG, MobileNet and ShuffleNet in torch: torchvision's, timm's and one by the paper's tables."""

import collections

import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.torch_twin import Twin, by_prefixes
from tests.helpers.torch_zoo import import_timm
from tests.helpers.twins.residual import SE


def torchvision_vgg(width=8, fc_width=24, classes=6, ratio=0, dropout=0.0):
  """torchvision's VGG-16 with BN, with fewer channels and SE modules behind its ReLUs."""
  _, torchvision = import_timm()
  vgg = torchvision.models.vgg
  layout = [x if x == 'M' else x * width // 64 for x in vgg.cfgs['D']]
  # Its own layers for 512 channels would be 120 million weights.
  network = vgg.VGG(nn.Sequential(), init_weights=False)
  network.features = vgg.make_layers(layout, batch_norm=True)
  relu, drop = nn.ReLU(), nn.Dropout(dropout)
  first, second = nn.Linear(49 * layout[-2], fc_width), nn.Linear(fc_width, fc_width)
  head = nn.Linear(fc_width, classes)
  network.classifier = nn.Sequential(first, relu, drop, second, relu, drop, head)
  for i, layer in enumerate(network.features if ratio else ()):
    if isinstance(layer, nn.ReLU):
      channels = network.features[i - 1].num_features
      network.features[i] = named(relu=layer, se=SE(channels, ratio))
  return network


def named(**modules):
  return nn.Sequential(collections.OrderedDict(modules))


def vgg_names(network):
  """Where torchvision's layers are here, and the torch module at the end of each stage."""
  renames, ends, stage, block = {}, {}, 1, 1
  for i, layer in enumerate(network.features):
    if isinstance(layer, nn.MaxPool2d):
      ends[f'stage{stage}_block{block - 1}'] = network.features[i - 1]
      stage, block = stage + 1, 1
    elif isinstance(layer, nn.Conv2d):
      unit = f'stage{stage}_block{block}'
      renames |= {f'features.{i}': f'{unit}.conv', f'features.{i + 1}': f'{unit}.bn'}
      renames[f'features.{i + 2}.se'] = f'{unit}.se'
      block += 1
  torchvisions = {'classifier.0': 'fc6', 'classifier.3': 'fc7', 'classifier.6': 'fc'}
  timms = {'pre_logits.fc1': 'fc6', 'pre_logits.fc2': 'fc7', 'head.fc': 'fc'}
  return renames | torchvisions | timms, ends


def timm_vgg(width=8, classes=6):
  """timm's VGG-16 with BN, with fewer channels; its hidden layers have 4096 units always."""
  timm, _ = import_timm()
  vgg = timm.models.vgg
  layout = [x if x == 'M' else x * width // 64 for x in vgg.cfgs['vgg16']]
  return vgg.VGG(layout, classes, norm_layer=nn.BatchNorm2d)


def timm_mobilenet(depths=(1, 2, 2, 6, 2), ratio=0, position='standard', **options):
  """timm's MobileNet v1, with SE modules behind the pointwise or the depthwise convolutions."""
  timm, _ = import_timm()
  network = timm.create_model('mobilenetv1_100', num_classes=6, **options)
  for i, depth in enumerate(depths):
    network.blocks[i] = network.blocks[i][:depth]
  for stage in network.blocks if ratio else ():
    for unit in stage:
      if position == 'standard':
        unit.bn2 = named(bn=unit.bn2, se=SE(unit.conv_pw.out_channels, ratio))
      else:
        unit.se = SE(unit.conv_dw.out_channels, ratio)
  return network


def mobilenet_names(network):
  renames = {'conv_stem': 'stem_conv', 'bn1': 'stem_bn', 'classifier': 'fc'}
  ends = {}
  for i, stage in enumerate(network.blocks):
    for j, unit in enumerate(stage):
      name, old = f'stage{i + 1}_block{j + 1}', f'blocks.{i}.{j}'
      renames |= {
        f'{old}.conv_dw': f'{name}.depthwise_conv',
        f'{old}.bn1': f'{name}.depthwise_bn',
        f'{old}.conv_pw': f'{name}.pointwise_conv',
        f'{old}.bn2': f'{name}.pointwise_bn',
        f'{old}.bn2.bn': f'{name}.pointwise_bn',
        f'{old}.bn2.se': f'{name}.se',
        f'{old}.se': f'{name}.se',
      }
      ends[name] = unit
  return renames, ends


class TorchShuffleUnit(nn.Module):
  """Figure 2 (b) and (c) of the ShuffleNet paper."""

  def __init__(self, inputs, outputs, groups, first, quarter, ratio, position):
    super().__init__()
    self.strided = inputs != outputs
    branch = outputs - inputs if self.strided else outputs
    middle = (outputs if quarter == 'unit' else branch) // 4
    self.conv1 = nn.Conv2d(inputs, middle, 1, groups=1 if first else groups, bias=False)
    self.conv2 = nn.Conv2d(
      middle, middle, 3, 2 if self.strided else 1, 1, groups=middle, bias=False
    )
    self.conv3 = nn.Conv2d(middle, branch, 1, groups=groups, bias=False)
    self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(c) for c in (middle, middle, branch))
    self.shuffle = nn.ChannelShuffle(groups)
    if ratio:
      channels = {'standard': branch, 'post': outputs, 'conv3x3': middle}
      self.se = SE(channels.get(position, inputs), ratio)
    self.position = position if ratio else None

  def gate(self, position, x):
    return self.se(x) if position == self.position else x

  def forward(self, x):
    y = self.shuffle(F.relu(self.bn1(self.conv1(self.gate('pre', x)))))
    y = self.gate('conv3x3', self.bn2(self.conv2(y)))
    y = self.gate('standard', self.bn3(self.conv3(y)))
    if self.strided:
      x = self.gate('identity', F.avg_pool2d(x, 3, 2, 1))
      return self.gate('post', torch.cat([x, F.relu(y)], 1))
    return self.gate('post', F.relu(self.gate('identity', x) + y))


class TorchShuffleNet(nn.Module):
  """Table 1 of the ShuffleNet paper, for three groups."""

  def __init__(self, width, depths=(4, 8, 4), quarter='unit', ratio=0, position='standard'):
    super().__init__()
    groups, stem = 3, 24
    self.stem_conv, self.stem_bn = nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem)
    self.units = nn.ModuleDict()
    inputs = stem
    for stage, depth in enumerate(depths, start=2):
      for block in range(1, depth + 1):
        outputs, first = width * 2 ** (stage - 2), (stage, block) == (2, 1)
        unit = TorchShuffleUnit(inputs, outputs, groups, first, quarter, ratio, position)
        self.units[f'stage{stage}_block{block}'] = unit
        inputs = outputs
    self.fc = nn.Linear(inputs, 6)

  def forward(self, x):
    x = F.max_pool2d(F.relu(self.stem_bn(self.stem_conv(x))), 3, 2, 1)
    for unit in self.units.values():
      x = unit(x)
    return self.fc(x.mean((2, 3)))


def shufflenet_names(network):
  return {f'units.{name}': name for name in network.units}, dict(network.units)


def vgg(**options) -> Twin:
  return _twin(torchvision_vgg(**options), vgg_names)


def sliding_vgg() -> Twin:
  return _twin(timm_vgg(), vgg_names)


def mobilenet(*args, **options) -> Twin:
  return _twin(timm_mobilenet(*args, **options), mobilenet_names)


def shufflenet(*args, **options) -> Twin:
  return _twin(TorchShuffleNet(*args, **options), shufflenet_names)


def _twin(network, names) -> Twin:
  renames, points = names(network)
  return Twin(network, by_prefixes(renames), points)
