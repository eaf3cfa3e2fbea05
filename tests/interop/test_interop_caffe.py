"""Released `.caffemodel` files: files like them, written here byte by byte, become our networks."""

import sys

import jax
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.interop import caffe, from_caffe, mapping, model_overrides
from senet_jax.models import create_model, model_info
from senet_jax.workdir import exchange
from tests.helpers.torch_zoo import BN_INCEPTION

# --- writing -------------------------------------------------------------------------------------


def varint(value):
  out = bytearray()
  while value > 127:
    out.append(value & 127 | 128)
    value >>= 7
  return bytes([*out, value])


def field(number, payload):
  """A length-delimited field."""
  return varint(number << 3 | 2) + varint(len(payload)) + payload


def integer(number, value):
  return varint(number << 3) + varint(value)


def blob(array, *, old=False, double=False):
  array = np.asarray(array, np.float64 if double else np.float32)
  data = field(8 if double else 5, array.tobytes())
  if old:
    num_to_width = (1,) * (4 - array.ndim) + array.shape
    return b''.join(integer(i, size) for i, size in enumerate(num_to_width, 1)) + data
  return data + field(7, field(1, b''.join(map(varint, array.shape))))


def layer(name, kind, blobs=(), number=100, **options):
  """A layer with a bottom, a top and parameters, which have no part in the weights."""
  parts = [field(1, name.encode()), field(2, kind.encode()), field(3, b'below'), field(4, b'above')]
  parts += [field(7, blob(array, **options)) for array in blobs]
  return field(number, b''.join([*parts, field(106, integer(1, 64))]))


def network(*layers, name='net'):
  return field(1, name.encode()) + b''.join(layers)


# --- the released networks, layer by layer -------------------------------------------------------


def norm(name, channels):
  return [
    (f'{name}/bn', 'BatchNorm', [(channels,), (channels,), (1,)]),
    (f'{name}/bn/scale', 'Scale', [(channels,), (channels,)]),
  ]


def conv(name, inputs, outputs, kernel, groups=1):
  weight = (outputs, inputs // groups, kernel, kernel)
  return [(name, 'Convolution', [weight]), *norm(name, outputs)]


def gate(name, channels):
  hidden = channels // 16
  return [
    (f'{name}_1x1_down', 'Convolution', [(hidden, channels, 1, 1), (hidden,)]),
    (f'{name}_1x1_up', 'Convolution', [(channels, hidden, 1, 1), (channels,)]),
    (f'{name}_prob', 'Sigmoid', []),
  ]


def classifier(channels, classes):
  return [('classifier', 'InnerProduct', [(classes, channels), (classes,)])]


def senet(depths, *, first=64, second=64, groups=1, deep=False, classes=1000):
  """SE-ResNet, SE-ResNeXt and SENet-154; `first` and `second` are the widths inside stage 2."""
  layers = [('data', 'Input', [])]
  if deep:
    layers += conv('conv1_1/3x3_s2', 3, 64, 3) + conv('conv1_2/3x3', 64, 64, 3)
    layers += conv('conv1_3/3x3', 64, 128, 3)
  else:
    layers += conv('conv1/7x7_s2', 3, 64, 7)
  inputs = 128 if deep else 64
  for stage, depth in enumerate(depths, start=2):
    factor = 2 ** (stage - 2)
    outputs = 256 * factor
    for block in range(1, depth + 1):
      name = f'conv{stage}_{block}'
      layers += conv(f'{name}_1x1_reduce', inputs, first * factor, 1)
      layers += conv(f'{name}_3x3', first * factor, second * factor, 3, groups)
      layers += conv(f'{name}_1x1_increase', second * factor, outputs, 1)
      layers += gate(name, outputs)
      if block == 1:
        kernel = 3 if deep and stage > 2 else 1
        layers += conv(f'{name}_1x1_proj', inputs, outputs, kernel)
      inputs = outputs
  return layers + classifier(inputs, classes)


def bn_inception():
  layers = conv('conv1/7x7_s2', 3, 64, 7) + conv('conv2/3x3_reduce', 64, 64, 1)
  layers += conv('conv2/3x3', 64, 192, 3)
  inputs = 192
  for letter, (one, reduce, three, double_reduce, double, projection) in BN_INCEPTION.items():
    name = f'inception_{letter}'
    if one:
      layers += conv(f'{name}/1x1', inputs, one, 1)
    layers += conv(f'{name}/3x3_reduce', inputs, reduce, 1) + conv(f'{name}/3x3', reduce, three, 3)
    layers += conv(f'{name}/double3x3_reduce', inputs, double_reduce, 1)
    layers += conv(f'{name}/double3x3a', double_reduce, double, 3)
    layers += conv(f'{name}/double3x3b', double, double, 3)
    if projection:
      layers += conv(f'{name}/pool_proj', inputs, projection, 1)
    inputs = one + three + double + (projection or inputs)
    layers += gate(name, inputs)
    layers += [(f'{name}_scale', 'Scale', [])]
  return layers + classifier(inputs, 1000)


R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
RESNEXT = {'first': 128, 'second': 128, 'groups': 32}
RELEASED = {
  'se_resnet50': lambda: senet(R50),
  'se_resnet101': lambda: senet(R101),
  'se_resnet152': lambda: senet(R152),
  'se_resnext50_32x4d': lambda: senet(R50, **RESNEXT),
  'se_resnext101_32x4d': lambda: senet(R101, **RESNEXT),
  'senet154': lambda: senet(R152, first=128, second=256, groups=64, deep=True),
  'se_bn_inception': bn_inception,
}
FACTOR = 998.5


def filled(layers, seed=0):
  """The layers with random numbers; statistics are multiplied by a factor, as Caffe keeps them."""
  rng = np.random.default_rng(seed)
  for name, kind, shapes in layers:
    blobs = [rng.standard_normal(shape, np.float32) for shape in shapes]
    if kind == 'BatchNorm':
      blobs = [FACTOR * 0.3 * blobs[0], FACTOR * (0.5 + np.abs(blobs[1])), np.full(1, FACTOR)]
    elif kind != 'Scale':
      blobs = [b * (2 / np.prod(b.shape[1:])) ** 0.5 if b.ndim > 1 else 0.1 * b for b in blobs]
    yield name, kind, [np.asarray(b, np.float32) for b in blobs]


@pytest.fixture(scope='module')
def se_resnet50(tmp_path_factory):
  """A file, and the arrays in it by layer."""
  layers = list(filled(senet(R50)))
  path = tmp_path_factory.mktemp('caffe') / 'SE-ResNet-50.caffemodel'
  path.write_bytes(network(*(layer(*row) for row in layers), name='SE-ResNet-50'))
  return path, {name: blobs for name, _, blobs in layers}


def small(tmp_path, *layers, **options):
  """A file of a few layers."""
  path = tmp_path / 'small.caffemodel'
  path.write_bytes(network(*(layer(*row, **options) for row in layers)))
  return path


# --- computing, as Caffe does --------------------------------------------------------------------


def convolved(x, weight, stride=1):
  """`x` `[C, H, W]`, `weight` `[O, C, k, k]`; padding by half the window."""
  k = weight.shape[-1]
  padded = np.pad(x, [(0, 0), (k // 2, k // 2), (k // 2, k // 2)])
  windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (1, 2))
  return np.einsum('chwij,ocij->ohw', windows[:, ::stride, ::stride], weight, optimize=True)


def unit(x, blobs, name, stride=1, relu=True):
  """Convolution, BatchNorm, Scale and ReLU."""
  x = convolved(x, blobs[name][0], stride)
  mean, var, factor = blobs[f'{name}/bn']
  scale, shift = blobs[f'{name}/bn/scale']
  columns = (a[:, None, None] for a in (mean / factor, var / factor, scale, shift))
  mean, var, scale, shift = columns
  x = (x - mean) / np.sqrt(var + 1e-5) * scale + shift
  return np.maximum(x, 0) if relu else x


def pooled(x):
  """Maximum over 3x3 windows that begin at every other pixel, the last ones cut off."""
  height, width = (-(-(size - 3) // 2) + 1 for size in x.shape[1:])
  return np.array(
    [[x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(width)]
     for i in range(height)]
  ).transpose(2, 0, 1)  # fmt: skip


def first_block(bgr, blobs):
  """The output of the first residual unit of SE-ResNet-50."""
  x = pooled(unit(bgr, blobs, 'conv1/7x7_s2', stride=2))
  y = unit(unit(x, blobs, 'conv2_1_1x1_reduce'), blobs, 'conv2_1_3x3')
  y = unit(y, blobs, 'conv2_1_1x1_increase', relu=False)
  (down, down_bias), (up, up_bias) = blobs['conv2_1_1x1_down'], blobs['conv2_1_1x1_up']
  hidden = np.maximum(down[:, :, 0, 0] @ y.mean((1, 2)) + down_bias, 0)
  gate = 0.5 + 0.5 * np.tanh((up[:, :, 0, 0] @ hidden + up_bias) / 2)
  return np.maximum(gate[:, None, None] * y + unit(x, blobs, 'conv2_1_1x1_proj', relu=False), 0)


def test_first_layers_compute_what_caffe_does(se_resnet50):
  path, blobs = se_resnet50
  variables = from_caffe(path)
  model = create_model('se_resnet50', **model_overrides('se_resnet50', 'caffe:se_resnet50'))
  photo = np.random.default_rng(1).integers(0, 256, (48, 64, 3))
  mean = np.array(model_info('se_resnet50').preprocessing.mean)
  assert tuple(mean[::-1]) == (104, 117, 123)

  @jax.jit
  def run(variables, images):
    _, state = model.apply(
      variables,
      images,
      train=False,
      capture_intermediates=lambda module, method: (
        method == '__call__' and module.name == 'stage2_block1'
      ),
      mutable=['intermediates'],
    )
    return state['intermediates']['stage2_block1']['__call__'][0]

  actual = run(variables, (photo - mean)[None].astype(np.float32))[0]
  bgr = (photo[..., ::-1] - [104, 117, 123]).transpose(2, 0, 1).astype(np.float64)
  expected = first_block(bgr, blobs).transpose(1, 2, 0)
  assert np.ptp(expected) > 1
  np.testing.assert_allclose(actual, expected, atol=1e-5 * np.ptp(expected))


def test_blue_first(se_resnet50):
  path, blobs = se_resnet50
  stem = [from_caffe(path, 'se_resnet50', rgb)['params']['stem_conv']['kernel']
          for rgb in (True, False)]  # fmt: skip
  weight = blobs['conv1/7x7_s2'][0]
  np.testing.assert_array_equal(stem[1], weight.transpose(2, 3, 1, 0))
  np.testing.assert_array_equal(stem[0], weight[:, ::-1].transpose(2, 3, 1, 0))


@pytest.mark.parametrize('model_name', RELEASED)
def test_released_networks(model_name):
  """Names and shapes of all weights are those of the released network."""
  expected = {e.name: e.shape for e in mapping.entries(f'caffe:{model_name}', 1000)}
  given = {
    f'{name} blob {i}': shape
    for name, kind, shapes in RELEASED[model_name]()
    for i, shape in enumerate(shapes[:2] if kind == 'BatchNorm' else shapes)
  }
  assert given == expected
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in given.items()}
  assert mapping.choose(arrays, ('caffe',)).model == model_name


def test_all_layouts_of_blobs(tmp_path):
  weight, bias = np.arange(6.0).reshape(2, 3), np.arange(2.0)
  for options in ({}, {'old': True}, {'double': True}, {'old': True, 'double': True}):
    arrays = caffe.read(small(tmp_path, ('fc', 'InnerProduct', [weight, bias]), **options))
    assert list(arrays) == ['fc blob 0', 'fc blob 1']
    np.testing.assert_array_equal(arrays['fc blob 0'], weight)
    np.testing.assert_array_equal(arrays['fc blob 1'], bias)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(('factor', 'divisor'), [(4, 4), (1, 1), (0, 1)])
def test_factor_of_statistics(tmp_path, factor, divisor):
  path = small(tmp_path, ('a/bn', 'BatchNorm', [[8, 4], [2, 6], [factor]]))
  arrays = caffe.read(path)
  np.testing.assert_array_equal(arrays['a/bn blob 0'], np.divide([8, 4], divisor))
  np.testing.assert_array_equal(arrays['a/bn blob 1'], np.divide([2, 6], divisor))
  assert len(arrays) == 2


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize('share', [0.3, 0.9, 0.9999])
def test_truncated(se_resnet50, tmp_path, share):
  data = se_resnet50[0].read_bytes()
  path = tmp_path / 'part.caffemodel'
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(UserError, match=r'part\.caffemodel is damaged or no \.caffemodel'):
    from_caffe(path, 'se_resnet50')


def test_truncated_between_layers(se_resnet50, tmp_path):
  path = tmp_path / 'part.caffemodel'
  layers = [layer(name, 'x', blobs) for name, blobs in se_resnet50[1].items()]
  path.write_bytes(network(*layers[:-2]))
  with pytest.raises(UserError, match=r'4 missing: fc.*classifier blob 0|classifier blob 1'):
    from_caffe(path)


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'', 'no layers with weights'),
    (b'name: "net" layer { }', r'damaged or no \.caffemodel'),
    (network(), 'no layers with weights'),
    (network(layer('data', 'Input')), 'no layers with weights'),
    (network(layer('a', '4', [[1.0]], number=2)), r"Caffe's format of before 2014.*upgrade_net_"),
    (network(layer('a', 'BatchNorm', [[1.0], [1.0], [1.0, 2.0]])), 'a blob 2 has 2 values, not'),
    (network(field(100, field(1, b'a') + field(7, field(7, field(1, b'\5'))))),
     r'a blob 0 has 0 values, which do not make \[5\]'),
    (network(field(100, field(1, b'a') + field(7, b''.join(integer(i, 7) for i in range(1, 5))))),
     r'a blob 0 has 0 values, which do not make \[7, 7, 7, 7\]'),
    (network(field(100, field(1, b'a') + field(7, field(7, field(1, b'\1' * 65))))),
     'a blob 0 has 65 axes; Caffe has at most 32'),
    (network(field(100, field(1, b'a') + field(7, field(7, field(1, b'\0\7'))))),
     r'a blob 0 has 0 values, which do not make \[0, 7\]'),
    (network(layer('other', 'Convolution', [[1.0]])),
     'are of no network of caffe that is known here; they begin with other blob 0'),
  ],
  ids=lambda value: value if isinstance(value, str) else '',
)  # fmt: skip
def test_no_network(tmp_path, data, message):
  path = tmp_path / 'x.caffemodel'
  path.write_bytes(data)
  with pytest.raises(UserError, match=message):
    from_caffe(path)


def test_another_network(se_resnet50):
  path, _ = se_resnet50
  with pytest.raises(UserError) as caught:
    from_caffe(path, 'se_resnet101')
  assert str(caught.value).endswith(
    ' They look like those of caffe:se_resnet50, here the network se_resnet50.'
  )
  with pytest.raises(
    UserError, match=r'no weights of caffe are known for resnet50; they are for se_'
  ):
    from_caffe(path, 'resnet50')
  with pytest.raises(
    UserError, match=r'for 1000 classes, not 10 .*num_classes=1000.*new_head=True'
  ):
    from_caffe(path, num_classes=10)


def test_without_protobuf(se_resnet50, monkeypatch):
  for name in [name for name in sys.modules if name.startswith('google.protobuf')]:
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(
    UserError, match=r"protobuf is not installed.*pip install 'senet_jax\[interop"
  ):
    from_caffe(se_resnet50[0])


def test_a_workdir_of_it(tmp_path):
  path = tmp_path / 'SE-BN-Inception.caffemodel'
  path.write_bytes(network(*(layer(*row) for row in filled(bn_inception()))))
  weights = exchange.read(path)
  assert weights.config.model.name == 'se_bn_inception'
  assert weights.config.data.mean == (123.0, 117.0, 104.0)
  assert weights.config.data.std == (1.0,) * 3
