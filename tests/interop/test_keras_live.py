"""Weights of `keras.applications` compute here what they do in Keras, from files of all kinds."""

import os

import jax
import numpy as np
import pytest

from senet_jax.interop import from_keras, keras as reader, mapping, model_overrides
from senet_jax.interop.names import KERAS, VARIANTS
from senet_jax.models import create_model
from tests.helpers.parity import near

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
keras = pytest.importorskip('keras')

CLASSES = 7
# Of Keras: class, options, sizes, and layers with the units of ours that end in them.
NETWORKS = {
  'keras:mobilenet_0.25': ('MobileNet', {'alpha': 0.25}, (64, 96),
                           {'conv_pw_5_relu': 'stage3_block2', 'conv_pw_13_relu': 'stage5_block2'}),
  'keras:resnet50': ('ResNet50', {}, (64, 75),
                     {'conv2_block3_out': 'stage2_block3', 'conv5_block3_out': 'stage5_block3'}),
  'keras:inception_v3': ('InceptionV3', {}, (75, 98),
                         {'mixed2': 'stage3_block3', 'mixed10': 'stage5_block3'}),
  'keras:inception_resnet_v2': ('InceptionResNetV2', {}, (75, 98),
                                {'mixed_5b': 'stage3_mixed', 'block35_10_ac': 'stage3_block10'}),
}  # fmt: skip


@pytest.fixture(scope='module', params=NETWORKS)
def network(request):
  """Variant and network; one at a time, as Keras and JAX keep gigabytes of all of them."""
  yield request.param, with_weights(request.param)
  keras.utils.clear_session()
  jax.clear_caches()


def with_weights(variant):
  """A network of Keras with random weights, and statistics not far from those of random images."""
  _, _, (size, _), _ = NETWORKS[variant]
  keras.utils.set_random_seed(0)
  model = built(variant, size)
  rng = np.random.default_rng(0)
  for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
      layer.momentum = 0.0
  model(rng.standard_normal((8, size, size, 3), np.float32), training=True)
  for layer in model.layers:
    for weight in layer.weights:
      kind = weight.path.rpartition('/')[2]
      noise = rng.standard_normal(weight.shape).astype(np.float32)
      value = np.asarray(weight)
      if kind == 'bias':
        weight.assign(0.1 * noise)
      elif kind in ('beta', 'gamma'):
        weight.assign(value + 0.1 * noise)
      elif kind == 'moving_mean':
        weight.assign(value + 0.05 * np.abs(value).mean() * noise)
  return model


def built(variant, size):
  name, options, _, _ = NETWORKS[variant]
  return getattr(keras.applications, name)(
    weights=None,
    classes=CLASSES,
    classifier_activation=None,
    input_shape=(size, size, 3),
    **options,
  )


@pytest.mark.parametrize('suffix', ['h5', 'weights.h5', 'keras'])
def test_files_of_all_kinds(network, suffix, tmp_path):
  (variant, model), path = network, tmp_path / f'model.{suffix}'
  model.save_weights(path) if suffix == 'weights.h5' else model.save(path)
  arrays = reader.read(path)
  assert mapping.choose(arrays, KERAS).name == variant
  found = from_keras(VARIANTS[variant].model, path)
  assert found['params']['fc']['kernel'].shape[1] == CLASSES
  if suffix != 'h5':
    model.save(tmp_path / 'again.h5')
    again = from_keras(VARIANTS[variant].model, tmp_path / 'again.h5', variant)
    jax.tree.map(np.testing.assert_array_equal, found, again)


def test_same_function(network, tmp_path):
  (variant, theirs), path = network, tmp_path / 'model.weights.h5'
  _, _, sizes, points = NETWORKS[variant]
  theirs.save_weights(path)
  name = VARIANTS[variant].model
  variables = from_keras(name, path)
  ours = create_model(name, CLASSES, **model_overrides(name, variant))
  blue_first = 'resnet5' in variant
  for size in sizes:
    at_size = built(variant, size)
    at_size.set_weights(theirs.get_weights())
    outputs = [at_size.get_layer(layer).output for layer in points]
    probe = keras.Model(at_size.input, [at_size.output, *outputs])
    images = np.random.default_rng(size).standard_normal((3, size, size, 3)).astype(np.float32)
    expected, *maps = probe(images[..., ::-1] if blue_first else images, training=False)
    logits, state = ours.apply(
      variables, images, train=False, mutable=['intermediates'],
      capture_intermediates=lambda module, method: (
        method == '__call__' and '/'.join(module.path) in points.values()
      ),
    )  # fmt: skip
    for (layer, unit), there in zip(points.items(), maps, strict=True):
      near(state['intermediates'][unit]['__call__'][0], there, 1e-4, f'{layer} at {size}')
    near(logits, expected, 1e-4, f'logits at {size}')


def test_numbers_of_other_networks_of_the_process(tmp_path):
  """Keras counts its layers on from model to model."""
  keras.layers.Conv2D(1, 1)
  model = keras.applications.InceptionV3(weights=None, classes=CLASSES)
  assert 'conv2d_0' not in {layer.name for layer in model.layers}
  model.save(tmp_path / 'model.h5')
  found = from_keras('inception_v3', tmp_path / 'model.h5')
  np.testing.assert_array_equal(
    found['params']['stem_1']['conv']['kernel'], model.layers[1].get_weights()[0]
  )


def test_a_lambda_layer_is_refused_and_not_run(tmp_path):
  from senet_jax.errors import UserError

  inputs = keras.Input((8, 8, 3))
  x = keras.layers.Lambda(lambda x: 2 * x)(keras.layers.Conv2D(2, 3)(inputs))
  model = keras.Model(inputs, x)
  for name in ('a.keras', 'a.h5'):
    model.save(tmp_path / name)
    with pytest.raises(UserError, match='has a Lambda layer: code, which is not run'):
      reader.read(tmp_path / name)
