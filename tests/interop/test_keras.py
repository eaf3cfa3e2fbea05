"""Files of Keras, read without Keras; nothing in them is run, and nothing outside is opened."""

import json

import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.interop import from_keras, keras, mapping
from senet_jax.workdir import exchange

h5py = pytest.importorskip('h5py')

VARIANT = 'keras:mobilenet_0.25'


def arrays_of(variant=VARIANT, classes=1000):
  rng = np.random.default_rng(0)
  return {
    e.name: rng.uniform(0.5, 1, e.shape).astype(np.float32)
    for e in mapping.entries(variant, classes)
  }


def legacy(path, arrays, root='model_weights'):
  """As Keras 2 and the `.h5` files of Keras 3 have it."""
  with h5py.File(path, 'w') as file:
    for name, x in arrays.items():
      layer, _, array = name.partition('/')
      if layer.startswith('conv_dw_') and array == 'kernel':
        array = 'depthwise_kernel'
      file[f'{root}/{layer}/{layer}/{array}:0'.strip('/')] = x
  return path


def test_names_of_keras_2(tmp_path):
  arrays = arrays_of()
  for root in ('', 'model_weights'):
    found = keras.read(legacy(tmp_path / f'{root}.h5', arrays, root))
    assert set(found) == set(arrays)
    for name, x in arrays.items():
      np.testing.assert_array_equal(found[name], x)


def test_a_workdir_of_it(tmp_path):
  weights = exchange.read(legacy(tmp_path / 'a.h5', arrays_of()))
  assert f'({VARIANT})' in weights.origin and weights.num_classes == 1000
  model, data = weights.config.model, weights.config.data
  assert (model.name, model.width, model.padding) == ('mobilenet_v1', 8, 'SAME')
  assert (model.activation, weights.config.bn.epsilon) == ('relu6', 1e-3)
  assert data.mean == data.std == (127.5,) * 3


def test_layers_are_counted_from_the_first(tmp_path):
  """Of a second network in a process Keras calls the first convolution conv2d_94."""
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    for i, number in enumerate((9, 10, 100)):
      file[f'conv2d_{number}/conv2d_{number}/kernel:0'] = np.full((1, 1, 1, 1), i, np.float32)
    file['conv2d/kernel'] = np.full((1, 1, 1, 1), -1, np.float32)
  found = keras.read(tmp_path / 'a.h5')
  assert {k: x.item() for k, x in found.items()} == {
    'conv2d_0/kernel': -1, 'conv2d_1/kernel': 0, 'conv2d_2/kernel': 1, 'conv2d_3/kernel': 2,
  }  # fmt: skip


def test_biases_go_into_the_mean_behind_them(tmp_path):
  arrays = arrays_of('keras:resnet50')
  bias = np.arange(64, dtype=np.float32)
  plain = from_keras('resnet50', legacy(tmp_path / 'a.h5', arrays))
  biased = from_keras(
    'resnet50', legacy(tmp_path / 'b.h5', {**arrays, 'conv2_block1_1_conv/bias': bias})
  )
  before, after = (v['batch_stats']['stage2_block1']['bn1'].pop('mean') for v in (plain, biased))
  np.testing.assert_allclose(after, before - bias)
  stem = plain['params']['stem_conv']['kernel']
  np.testing.assert_array_equal(stem[:, :, ::-1], arrays['conv1_conv/kernel'])


def test_another_width_names_the_right_one(tmp_path):
  path = legacy(tmp_path / 'a.h5', arrays_of())
  with pytest.raises(UserError, match=r'They look like those of keras:mobilenet_0\.25'):
    exchange.read(path, variant='keras:mobilenet_0.5')


def _lambda(path):
  legacy(path, arrays_of())
  layers = [{'class_name': 'Lambda', 'config': {'function': 'gAA='}}]
  with h5py.File(path, 'a') as file:
    file.attrs['model_config'] = json.dumps({'config': {'layers': layers}})


def _outside(path):
  other = path.with_name('other.h5')
  legacy(other, arrays_of())
  with h5py.File(path, 'w') as file:
    file['model_weights'] = h5py.ExternalLink(str(other), '/model_weights')


def _external_data(path):
  path.with_name('secret').write_bytes(bytes(400))
  with h5py.File(path, 'w') as file:
    external = [(str(path.with_name('secret')), 0, 400)]
    file.create_dataset('conv1/kernel', (100,), 'f4', external=external)


def _huge(path):
  with h5py.File(path, 'w') as file:
    file.create_dataset('conv1/kernel', (2**40,), 'f4', chunks=(2**10,))


def _nested(path):
  legacy(path, {'conv1/kernel': np.zeros((1, 1, 1, 1), np.float32)})
  with h5py.File(path, 'a') as file:
    file.attrs['model_config'] = '[' * 30_000


def _cut(path):
  legacy(path, arrays_of())
  path.write_bytes(path.read_bytes()[:100_000])


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (_lambda, 'has a Lambda layer: code, which is not run'),
    (_outside, 'holds no weights of Keras'),
    (_external_data, 'damaged or of another format .* is not in the file as it is'),
    (_huge, 'damaged or of another format .* is not in the file as it is'),
    (_nested, 'damaged: its configuration cannot be read'),
    (_cut, 'damaged or of another format'),
    (lambda path: path.write_text('no HDF5'), 'damaged or of another format'),
  ],
)
def test_bad_files(make, message, tmp_path):
  path = tmp_path / 'bad.h5'
  make(path)
  with pytest.raises(UserError, match=rf'bad\.h5.*{message}'):
    keras.read(path)
