"""Features of images: what goes into the last layer, and what comes out of a stage."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

import senet_jax
from senet_jax import config as config_lib, prediction
from senet_jax.errors import UserError
from senet_jax.tools import predict
from senet_jax.workdir import saved
from senet_jax.workdir.network import build_model


@pytest.fixture(scope='module')
def network(tmp_path_factory):
  config = config_lib.cifar('se_resnet20_cifar')
  config.model.width, config.model.depths, config.model.se.ratio = 4, (1, 2, 1), 2
  model = build_model(config, 10)
  init = jax.jit(lambda key, x: model.init(key, x, train=False))
  variables = jax.tree.map(np.asarray, init(jax.random.key(0), np.zeros((1, 32, 32, 3))))
  path = tmp_path_factory.mktemp('runs') / 'run'
  saved.write(path, config, variables, 10, None, {'converted_from': 'nothing'})
  return senet_jax.load(path, batch_size=8), path


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def test_the_last_layer_makes_the_probabilities_of_them(network):
  predictor, _ = network
  features = predictor.features(IMAGES)
  assert features.shape == (5, 16) and features.dtype == np.float32
  head = predictor.variables['params']['fc']
  logits = features @ np.asarray(head['kernel']) + np.asarray(head['bias'])
  expected = predictor.probabilities(IMAGES)
  np.testing.assert_allclose(jax.nn.softmax(logits), expected, rtol=1e-4, atol=1e-6)


def test_a_stage_is_the_mean_of_its_last_map(network):
  predictor, _ = network
  _, state = predictor.model.apply(
    predictor.variables, predictor.preprocessing.to_input(IMAGES), train=False,
    capture_intermediates=True, mutable=['intermediates'],
  )  # fmt: skip
  maps = state['intermediates']['stage3_block2']['__call__'][0]
  found = predictor.features(IMAGES, stage='stage3')
  np.testing.assert_allclose(found, maps.mean((1, 2)), rtol=1e-4, atol=1e-5)
  with pytest.raises(UserError, match=r"stage='stage9' is unknown.*stage2, stage3, stage4"):
    predictor.features(IMAGES, stage='stage9')


def test_the_command_writes_them(network, tmp_path):
  predictor, workdir = network
  for i, pixels in enumerate(IMAGES[:3]):
    Image.fromarray(pixels).save(tmp_path / f'{i}.png')
  (tmp_path / '9.png').write_bytes(b'no image')
  to = tmp_path / 'all.npz'
  arguments = [f'--workdir={workdir}', f'--embeddings={to}', str(tmp_path)]
  assert predict.main(arguments) == 2
  with np.load(to) as found:
    assert [p.rpartition('/')[2] for p in found['paths']] == ['0.png', '1.png', '2.png']
    np.testing.assert_allclose(found['features'], predictor.features(IMAGES[:3]), rtol=1e-5)
  with pytest.raises(UserError, match=r'--embeddings=\S+\.csv must end in \.npz'):
    predict.main([f'--workdir={workdir}', f'--embeddings={tmp_path}/a.csv', str(tmp_path)])


def test_gates_are_those_that_the_network_sows(network):
  predictor, _ = network
  found = prediction.gates(predictor, IMAGES)
  assert {name: gate.shape for name, gate in found.items()} == {
    'SE_2_1': (5, 4), 'SE_3_1': (5, 8), 'SE_3_2': (5, 8), 'SE_4_1': (5, 16),
  }  # fmt: skip
  # By hand, of the last block: the mean of what goes into it, through its two layers.
  _, state = predictor.model.apply(
    predictor.variables, predictor.preprocessing.to_input(IMAGES), train=False,
    capture_intermediates=True, mutable=['intermediates'],
  )  # fmt: skip
  sown = state['intermediates']['stage4_block1']['se']['excitation'][0]
  np.testing.assert_allclose(found['SE_4_1'], sown, rtol=1e-4, atol=1e-5)
  assert found['SE_4_1'].std() > 0
  plain = dataclasses.replace(predictor, model=predictor.model.clone(se=None))
  with pytest.raises(UserError, match='has no SE blocks'):
    prediction.gates(plain, IMAGES)
