"""The convolution of every network here: no bias, symmetric padding, He initialisation."""

from flax import linen as nn

# Variance 2 / (kh * kw * C_out), as in the training code of ResNet, ResNeXt, Shake-Shake and the
# pre-activation networks; for stride 1 and equal widths it is the 2 / fan_in of He et al. 2015.
he_normal_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv(features: int, kernel: int, stride: int = 1, groups: int = 1, **kwargs) -> nn.Conv:
  """A `kernel` x `kernel` convolution, padded by `kernel // 2` on every side.

  Flax's `SAME` would pad a strided convolution on an even size only behind, unlike Caffe and torch.

  Args:
    features: output channels.
    kernel: window size.
    stride: of both axes.
    groups: channel groups.
    **kwargs: `name`, `dtype` and others of `nn.Conv`.
  """
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=(stride, stride),
    padding=[(kernel // 2, kernel // 2)] * 2,
    feature_group_count=groups,
    use_bias=False,
    kernel_init=he_normal_fan_out,
    **kwargs,
  )
