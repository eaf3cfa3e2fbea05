"""The networks of timm, torchvision and Cadene by the names of our variants."""

from tests.helpers.torch_zoo import cadene_bn_inception, import_timm

timm, torchvision = import_timm()
import torch  # noqa: E402

CLASSES = 13


def network_of(variant, num_classes=CLASSES):
  """The torch module that a variant is called after."""
  source, name = variant.split(':')
  if source == 'torchvision':
    options = {'init_weights': False} if name == 'inception_v3' else {}
    return getattr(torchvision.models, name)(num_classes=num_classes, **options)
  if source == 'timm':
    return timm.create_model(name, pretrained=False, num_classes=num_classes)
  if source == 'akamaster':
    return CifarResNet(int(name.removeprefix('resnet')), num_classes)
  return cadene_network(name, num_classes)


class CifarUnit(torch.nn.Module):
  """Two 3x3 convolutions, and a shortcut with zero channels on both sides (option A)."""

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.conv1 = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.bn1 = torch.nn.BatchNorm2d(outputs)
    self.conv2 = torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.bn2 = torch.nn.BatchNorm2d(outputs)
    self.stride, self.more = stride, (outputs - inputs) // 2

  def forward(self, x):
    y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
    x = x[:, :, :: self.stride, :: self.stride]
    return (y + torch.nn.functional.pad(x, (0, 0, 0, 0, self.more, self.more))).relu()


class CifarResNet(torch.nn.Module):
  """The network of akamaster/pytorch_resnet_cifar10, with its names."""

  def __init__(self, depth, num_classes):
    super().__init__()
    self.conv1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    self.bn1 = torch.nn.BatchNorm2d(16)
    inputs = 16
    for stage, width in enumerate((16, 32, 64), start=1):
      units = []
      for i in range((depth - 2) // 6):
        units.append(CifarUnit(inputs, width, 2 if i == 0 and stage > 1 else 1))
        inputs = width
      setattr(self, f'layer{stage}', torch.nn.Sequential(*units))
    self.linear = torch.nn.Linear(64, num_classes)

  def forward(self, x):
    x = self.bn1(self.conv1(x)).relu()
    x = self.layer3(self.layer2(self.layer1(x)))
    return self.linear(x.mean((2, 3)))


def cadene_network(name, num_classes):
  """A network with Cadene's names; most are other code bases' but for some of those."""
  if name == 'bninception':
    return cadene_bn_inception(num_classes)
  if name.startswith('se'):
    return network_of(f'timm:legacy_{name.replace("se_", "se")}', num_classes)
  origin, head = {
    'inceptionv3': ('torchvision:inception_v3', 'fc'),
    'inceptionresnetv2': ('timm:inception_resnet_v2', 'classif'),
  }.get(name, (f'torchvision:{name}', 'fc'))
  network = network_of(origin, num_classes)
  network.last_linear = getattr(network, head)
  setattr(network, head, torch.nn.Identity())
  network.register_forward_hook(lambda module, _, output: module.last_linear(output))
  return network


def randomized(network, size, seed=0):
  """Gives `network` random weights, and statistics that are near those of random images."""
  generator = torch.Generator().manual_seed(seed)
  norms = {k: m for k, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
  with torch.no_grad():
    for weight in network.parameters():
      if weight.ndim > 1:
        weight.normal_(0, (2 / weight[0].numel()) ** 0.5, generator=generator)
      else:
        weight.normal_(0, 0.1, generator=generator)
    network.eval()
    for name, norm in norms.items():
      norm.weight.uniform_(0.5, 1.5, generator=generator)
      if name.endswith('.bn3'):
        norm.weight.mul_(0.2)  # or rounding would grow along the residual branches
      norm.train().momentum = 1.0
    network(torch.randn(8, 3, size, size, generator=generator))
    network.eval()
    # Not far from them: what an evaluation does not normalise would grow from layer to layer.
    for norm in norms.values():
      deviation = norm.running_var.sqrt()
      norm.running_mean.add_(0.1 * deviation * torch.randn(deviation.shape, generator=generator))
      norm.running_var.mul_(0.8 + 0.4 * torch.rand(deviation.shape, generator=generator))
  return network
