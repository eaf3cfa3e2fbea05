"""Convolutions in the forms for CPUs and GPUs, against float64, and none of them elsewhere."""

import functools
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec as P

from senet_jax import layers
from senet_jax.complexity import counts as complexity_lib
from senet_jax.layers import platform_conv

# Input channels, features, window, strides, padding, groups.
POINTWISE = (6, 10, (1, 1), (1, 1), 'VALID', 1)
STRIDED = (6, 10, (1, 1), (2, 2), ((0, 0), (0, 0)), 1)
DEPTHWISE = (7, 7, (3, 3), (2, 2), ((1, 1), (1, 1)), 7)
GROUPED = (48, 24, (3, 3), (1, 1), ((1, 1), (1, 1)), 6)  # with 8 channels a group: 1 part
CASES = {
  'pointwise': POINTWISE,
  'pointwise_strided': STRIDED,
  'pointwise_padded': (3, 5, (1, 1), (2, 3), ((1, 0), (0, 2)), 1),
  'plain': (3, 5, (3, 3), (2, 2), 'SAME', 1),
  'depthwise': (8, 8, (3, 3), (1, 1), 'SAME', 8),
  'depthwise_strided': DEPTHWISE,
  'depthwise_asymmetric': (4, 4, (3, 2), (2, 1), ((0, 2), (1, 0)), 4),
  'depthwise_valid': (4, 4, (5, 3), (1, 2), 'VALID', 4),
  'depthwise_multiplied': (4, 8, (3, 3), (1, 1), 'SAME', 4),
  'grouped_one_part': GROUPED,
  'grouped_two_parts': (64, 32, (3, 3), (2, 2), ((1, 1), (1, 1)), 16),
  'grouped_alone': (64, 64, (3, 3), (1, 1), ((0, 1), (2, 0)), 2),
  'grouped_many': (64, 64, (3, 3), (2, 2), 'VALID', 32),
  'grouped_pointwise': (96, 48, (1, 1), (2, 2), 'VALID', 3),
}


def _call(images, kernel, strides, padding, groups, function=platform_conv.conv_general_dilated):
  return function(
    images,
    kernel,
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def _arrays(case, batch=2, size=(9, 8)):
  channels, features, window, strides, padding, groups = case
  rng = np.random.default_rng(0)
  images = rng.standard_normal((batch, *size, channels))
  kernel = rng.standard_normal((*window, channels // groups, features))
  return images, kernel, (strides, padding, groups)


def _pads(padding, size, window, strides):
  if padding == 'VALID':
    return [(0, 0), (0, 0)]
  if padding != 'SAME':
    return padding
  out = [-(-n // s) for n, s in zip(size, strides, strict=True)]
  total = [
    max((o - 1) * s + k - n, 0) for o, s, k, n in zip(out, strides, window, size, strict=True)
  ]
  return [(t // 2, t - t // 2) for t in total]


def _reference(images, kernel, strides, padding, groups, gradient=None):
  """Output in float64, or with its gradient those of images and kernel, by the definition."""
  window, (_, *size, _) = kernel.shape[:2], images.shape
  pads = _pads(padding, size, window, strides)
  padded = np.pad(images, [(0, 0), *pads, (0, 0)])
  rows, columns = (
    (n - k) // s + 1 for n, k, s in zip(padded.shape[1:3], window, strides, strict=True)
  )
  kernels = kernel.reshape(*kernel.shape[:3], groups, -1)  # [kh, kw, c, g, k]
  output = np.zeros((len(images), rows, columns, groups, kernels.shape[-1]))
  of_padded, of_kernels = np.zeros_like(padded), np.zeros_like(kernels)
  if gradient is not None:
    gradient = gradient.reshape(output.shape)
  for i, j in np.ndindex(*window):
    place = (
      slice(None),
      slice(i, i + strides[0] * (rows - 1) + 1, strides[0]),
      slice(j, j + strides[1] * (columns - 1) + 1, strides[1]),
    )
    pixels = padded[place].reshape(len(images), rows, columns, groups, -1)
    if gradient is None:
      output += np.einsum('nhwgc,cgk->nhwgk', pixels, kernels[i, j])
    else:
      of_pixels = np.einsum('nhwgk,cgk->nhwgc', gradient, kernels[i, j])
      of_padded[place] += of_pixels.reshape(len(images), rows, columns, -1)
      of_kernels[i, j] = np.einsum('nhwgc,nhwgk->cgk', pixels, gradient)
  if gradient is None:
    return output.reshape(len(images), rows, columns, -1)
  (top, _), (left, _) = pads
  of_images = of_padded[:, top : top + size[0], left : left + size[1]]
  return of_images, of_kernels.reshape(kernel.shape)


def _value_and_gradients(images, kernel, gradient, options, function):
  output, transpose = jax.vjp(lambda x, w: _call(x, w, *options, function), images, kernel)
  return output, *transpose(gradient.astype(output.dtype))


def _results(case, dtype=jnp.float32, function=platform_conv.conv_general_dilated, **shape):
  """Expected output and both gradients in float64, and those of `function`."""
  images, kernel, options = _arrays(case, **shape)
  images, kernel = (np.asarray(jnp.asarray(x, dtype)) for x in (images, kernel))
  exact = [x.astype(np.float64) for x in (images, kernel)]
  output = _reference(*exact, *options)
  gradient = np.asarray(jnp.asarray(np.random.default_rng(1).standard_normal(output.shape), dtype))
  expected = output, *_reference(*exact, *options, gradient.astype(np.float64))
  run = jax.jit(functools.partial(_value_and_gradients, options=options, function=function))
  return expected, run(images, kernel, gradient)


def _error(actual, expected):
  return np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
@pytest.mark.parametrize('shape', [{}, {'batch': 1, 'size': (7, 11)}], ids=['even', 'odd'])
def test_output_and_gradients(case, shape):
  for expected, actual in zip(*_results(case, **shape), strict=True):
    assert actual.shape == expected.shape
    assert actual.dtype == jnp.float32
    assert _error(actual, expected) < 1e-6


@pytest.mark.parametrize('case', [POINTWISE, DEPTHWISE, GROUPED], ids=['1x1', 'depth', 'groups'])
def test_bfloat16_is_no_worse_than_xlas_own(case):
  results = _results(case, jnp.bfloat16)
  _, xla = _results(case, jnp.bfloat16, jax.lax.conv_general_dilated)
  for expected, actual, other in zip(*results, xla, strict=True):
    assert actual.dtype == jnp.bfloat16
    assert _error(actual, expected) <= max(1.5 * _error(other, expected), 2**-8)


def _convolutions(case, platform, function):
  """The convolutions and products of output and gradients, lowered for a platform."""
  images, kernel, options = _arrays(case)
  shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (images, kernel)]
  output = jax.eval_shape(lambda x, w: _call(x, w, *options), *shapes)
  run = jax.jit(functools.partial(_value_and_gradients, options=options, function=function))
  text = run.trace(*shapes, output).lower(lowering_platforms=(platform,)).as_text()
  found = re.findall(r'stablehlo\.(convolution|dot_general|multiply|pad)\b(.*)', text)
  return sorted((name, re.sub(r'%\w+', '%', rest)) for name, rest in found)


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_elsewhere_nothing_changes(case, platform):
  ours = _convolutions(case, platform, platform_conv.conv_general_dilated)
  assert ours == _convolutions(case, platform, jax.lax.conv_general_dilated)
  assert any(name == 'convolution' for name, _ in ours)


@pytest.mark.parametrize(
  ('window', 'padding', 'channels', 'size'),
  [((7, 7), ((3, 3), (3, 3)), 3, (16, 20)), ((3, 3), ((1, 1), (1, 1)), 3, (10, 8)),
   ((3, 3), ((0, 1), (0, 1)), 1, (8, 8)), ((3, 2), ((0, 0), (2, 0)), 4, (8, 12)),
   ((6, 5), ((2, 3), (3, 1)), 2, (12, 8))],
)  # fmt: skip
def test_first_layer_on_a_gpu(monkeypatch, window, padding, channels, size):
  chosen = lambda *arguments, cuda, **others: cuda(*arguments)  # noqa: E731
  monkeypatch.setattr(jax.lax, 'platform_dependent', chosen)
  case = (channels, 6, window, (2, 2), padding, 1)
  for expected, actual in zip(*_results(case, size=size), strict=True):
    assert actual.shape == expected.shape
    assert _error(actual, expected) < 1e-6


def test_first_layer_has_16_channels_on_a_gpu_alone():
  case = (3, 64, (7, 7), (2, 2), ((3, 3), (3, 3)), 1)
  images, kernel, options = _arrays(case, size=(32, 32))
  text = {
    platform: jax.jit(lambda x, w: _call(x, w, *options))
    .trace(images.astype(np.float32), kernel.astype(np.float32))
    .lower(lowering_platforms=(platform,))
    .as_text()
    for platform in ('cpu', 'tpu', 'cuda')
  }
  convolutions = {
    name: re.findall(r'stablehlo\.convolution.*: \((.*)\) ->', found)
    for name, found in text.items()
  }
  assert (
    convolutions['cpu'] == convolutions['tpu'] == ['tensor<2x32x32x3xf32>, tensor<7x7x3x64xf32>']
  )
  assert convolutions['cuda'] == ['tensor<2x16x16x16xf32>, tensor<4x4x16x64xf32>']


@pytest.mark.parametrize(
  ('case', 'expected'),
  [(STRIDED, (0, 3)), (DEPTHWISE, (0, 0)), (GROUPED, (3, 0)),
   (CASES['grouped_many'], (6, 0)), (CASES['grouped_pointwise'], (0, 9))],
  ids=['pointwise', 'depthwise', 'one_part', 'two_parts', 'grouped_pointwise'],
)  # fmt: skip
def test_forms_on_a_cpu(case, expected):
  """How many convolutions without groups and how many matrix products stand for one, and twice."""
  found = _convolutions(case, 'cpu', platform_conv.conv_general_dilated)
  names = [name for name, _ in found]
  assert (names.count('convolution'), names.count('dot_general')) == expected
  assert all('feature_group_count = 1' in rest for name, rest in found if name == 'convolution')


@pytest.mark.parametrize(
  ('groups', 'width', 'parts'),
  [(32, 4, 4), (32, 8, 8), (32, 16, 16), (32, 32, 16), (4, 64, 4), (3, 80, 3), (17, 2, 1),
   (6, 40, 6)],
)  # fmt: skip
def test_parts(groups, width, parts):
  """How many convolutions stand for one of groups, and for each of its gradients."""
  channels = groups * width
  case = (channels, channels, (3, 3), (1, 1), 'SAME', groups)
  found = _convolutions(case, 'cpu', platform_conv.conv_general_dilated)
  assert [name for name, _ in found].count('convolution') == 3 * parts


@pytest.mark.parametrize('case', [STRIDED, DEPTHWISE, GROUPED], ids=['1x1', 'depth', 'groups'])
def test_multiply_adds_are_those_of_the_convolution(case):
  images, kernel, options = _arrays(case)
  macs = complexity_lib.count_macs(lambda x, w: _call(x, w, *options), images, kernel)
  assert macs == kernel[..., 0].size * _reference(images, kernel, *options).size


@pytest.mark.parametrize(
  'options',
  [{'kernel': 1, 'use_bias': True}, {'kernel': 1, 'stride': 2}, {'kernel': 3, 'groups': 4},
   {'kernel': (1, 7)}, {'kernel': 3, 'kernel_dilation': 2}],
  ids=['pointwise', 'strided', 'grouped', 'plain', 'dilated'],
)  # fmt: skip
def test_the_layer_is_flaxs(options):
  layer = layers.conv(8, **options)
  flaxs = layer.clone(conv_general_dilated_cls=None)
  x = jax.random.normal(jax.random.key(0), (2, 9, 9, 8))
  variables = layer.init(jax.random.key(1), x)
  jax.tree.map(np.testing.assert_array_equal, variables, flaxs.init(jax.random.key(1), x))
  if options.get('use_bias'):
    variables = flax.core.copy(variables, {'params': {**variables['params'], 'bias': jnp.ones(8)}})
  np.testing.assert_allclose(layer.apply(variables, x), flaxs.apply(variables, x), atol=1e-5)


class _Network(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(layers.conv(8, 1)(x))
    x = nn.relu(layers.depthwise_conv(8, 2)(x))
    return layers.conv(8, 3, groups=4)(x).mean((1, 2))


def test_devices_and_rematerialisation_change_nothing():
  images = jax.random.normal(jax.random.key(0), (16, 8, 8, 3))
  network = _Network()
  variables = network.init(jax.random.key(1), images)

  def loss(variables, images):
    return (network.apply(variables, images) ** 2).sum()

  def parallel(variables, images):
    gradients = jax.grad(jax.checkpoint(loss))(variables, images)
    return jax.lax.psum(gradients, 'data')

  mesh = Mesh(np.array(jax.devices()), 'data')
  specs = {'in_specs': (P(), P('data')), 'out_specs': P()}
  sharded = jax.jit(jax.shard_map(parallel, mesh=mesh, check_vma=False, **specs))
  expected = jax.jit(jax.grad(loss))(variables, images)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    sharded(variables, images),
    expected,
  )
