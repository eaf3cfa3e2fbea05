"""Layers and optimizers of torch and timm, run on arrays of ours."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from tests.helpers.torch_zoo import import_timm


def _in(array: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def _out(tensor: torch.Tensor) -> np.ndarray:
  return np.moveaxis(tensor.detach().numpy(), 1, -1)


def batch_norm(variables: Mapping, x: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
  """A training step's output, new statistics, and gradients of the mean of output x cotangent."""
  layer = torch.nn.BatchNorm2d(x.shape[-1], momentum=0.1).double()
  places = (layer.weight, layer.bias), (layer.running_mean, layer.running_var)
  names = ('scale', 'bias'), ('mean', 'var')
  with torch.no_grad():
    for collection, tensors, kinds in zip(('params', 'batch_stats'), places, names, strict=True):
      for tensor, kind in zip(tensors, kinds, strict=True):
        tensor.copy_(torch.from_numpy(variables[collection][kind]))
  inputs = _in(x).double().requires_grad_()
  y = layer(inputs)
  (y * _in(cotangent)).mean().backward()
  return {
    'y': _out(y),
    'mean': layer.running_mean.numpy(),
    'var': layer.running_var.numpy(),
    'gradient of scale': layer.weight.grad.numpy(),
    'gradient of bias': layer.bias.grad.numpy(),
    'gradient of x': _out(inputs.grad),
  }


def max_pool(images: Mapping[str, np.ndarray], **options) -> dict[str, np.ndarray]:
  return {name: _out(F.max_pool2d(_in(x), 3, 2, **options)) for name, x in images.items()}


def avg_pool(images: Mapping[str, np.ndarray], window: int, stride: int, **options):
  return {name: _out(F.avg_pool2d(_in(x), window, stride, **options)) for name, x in images.items()}


def max_pool_gradient(x: np.ndarray, dy: np.ndarray, align: str) -> dict[str, np.ndarray]:
  images = _in(x).requires_grad_()
  pooled = F.max_pool2d(images, 3, 2, padding=int(align == 'torch'), ceil_mode=align == 'caffe')
  pooled.backward(_in(dy))
  return {'gradient': _out(images.grad)}


def efficient_channel_attention(x: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
  timm, _ = import_timm()
  layer = timm.layers.EcaModule(x.shape[-1]).double()
  with torch.no_grad():
    layer.conv.weight.copy_(torch.from_numpy(weight)[None, None])
    return {'y': _out(layer(_in(x)))}


def effective_squeeze_excite(x: np.ndarray, weight, bias) -> dict[str, np.ndarray]:
  timm, _ = import_timm()
  layer = timm.layers.EffectiveSEModule(x.shape[-1]).double()
  with torch.no_grad():
    layer.fc.weight.copy_(torch.from_numpy(weight.T.copy())[:, :, None, None])
    layer.fc.bias.copy_(torch.from_numpy(bias))
    return {'y': _out(layer(_in(x)))}


def gather_excite(x: np.ndarray) -> dict[str, np.ndarray]:
  timm, _ = import_timm()
  layer = timm.layers.GatherExcite(x.shape[-1], use_mlp=False).double()
  with torch.no_grad():
    return {'y': _out(layer(_in(x)))}


def optimized(name: str, start: np.ndarray, gradients, **options) -> dict[str, np.ndarray]:
  """A parameter after a step of the optimizer with each of the gradients."""
  parameter = torch.nn.Parameter(torch.tensor(start))
  optimizer = getattr(torch.optim, name)([parameter], **options)
  for gradient in gradients:
    parameter.grad = torch.tensor(gradient)
    optimizer.step()
  return {'parameter': parameter.detach().numpy()}
