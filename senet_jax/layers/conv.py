"""The convolution and the classifier of every network here."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from senet_jax.layers.platform_conv import conv_general_dilated

# Variance 2 / (kh * kw * C_out), as in the training code of ResNet, ResNeXt, Shake-Shake and the
# pre-activation networks; for stride 1 and equal widths it is the 2 / fan_in of He et al. 2015.
he_normal_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

# The module name of the last layer, in every family.
HEAD = 'fc'

# As torch.nn.Linear, which the reference training code left alone: uniform, variance 1/(3 fan_in).
_LINEAR_INIT = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def conv(
  features: int,
  kernel: int | tuple[int, int],
  stride: int = 1,
  groups: int = 1,
  *,
  padding: str | int | Sequence[int | tuple[int, int]] = 'symmetric',
  **kwargs: Any,
) -> nn.Conv:
  """Returns a convolution without bias, with He initialisation.

  Args:
    features: output channels.
    kernel: window size; an integer is that of a square.
    stride: of both axes.
    groups: channel groups; as many as there are channels for a depthwise convolution.
    padding: `symmetric`, half the window on every side, as in Caffe and torch (Flax's `SAME` would
      pad a strided convolution on an even size only behind); `VALID`; or pixels on every side.
    **kwargs: `name`, `dtype` and others of `nn.Conv`, among them what is to differ from the above.
  """
  kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
  if padding == 'symmetric':
    padding = [(size // 2, size // 2) for size in kernel]
  options: dict[str, Any] = {'use_bias': False, 'kernel_init': he_normal_fan_out, **kwargs}
  return nn.Conv(
    features,
    kernel,
    strides=(stride, stride),
    padding=padding,
    feature_group_count=groups,
    conv_general_dilated_cls=_convolves,
    **options,
  )


def _convolves() -> Callable[..., jax.Array]:
  """Returns the function that convolves, for Flax, whose field for it is deprecated."""
  return conv_general_dilated


def pointwise_mean(convolution: nn.Conv, x: jax.Array) -> jax.Array:
  """Returns the mean over each image of what a 1x1 convolution makes of `x`, `[N, 1, 1, features]`.

  The mean of a 1x1 convolution is the convolution of the mean. In a bottleneck that reads a quarter
  of what its output has; the result is float32 and not of the rounded output.

  Args:
    convolution: without stride and groups, already applied to `x`.
    x: `[N, H, W, C]` of any float dtype.
  """
  params = convolution.variables['params']
  kernel = params['kernel'].astype(convolution.dtype).astype(jnp.float32)[0, 0]
  mean = x.astype(jnp.float32).mean((1, 2), keepdims=True)
  return jnp.matmul(mean, kernel, precision='highest') + params.get('bias', 0.0)


def depthwise_conv(channels: int, stride: int = 1, **kwargs: Any) -> nn.Conv:
  """Returns a 3x3 convolution of each channel by itself, without bias; for options see `conv`.

  A weight goes to one channel of the output and not to all, so that He initialisation takes 9 for
  its fan in either direction; `conv` would start with nearly nothing.
  """
  options: dict[str, Any] = {'kernel_init': nn.initializers.he_normal(), **kwargs}
  return conv(channels, 3, stride, channels, **options)


def classifier(num_classes: int, name: str = HEAD) -> nn.Dense:
  """Returns the last layer, from `[N, C]` float32 to logits `[N, num_classes]` float32."""
  return nn.Dense(num_classes, kernel_init=_LINEAR_INIT, name=name)
