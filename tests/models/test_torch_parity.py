"""The same weights in an independent torch definition give the same activations and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.layers import SEConfig
from senet_jax.models import create_model
from tests.helpers.torch_parity import (
  F,
  PreActivationResNet,
  ResNet,
  checked_variables,
  compare_evaluation,
  near,
  randomized,
  to_flax,
  torch,
)


def test_resnet50():
  model = create_model('resnet50', stride_in='3x3', pool_align='torch')
  compare_evaluation(model, ResNet((3, 4, 6, 3), 64, 1000, 'torch', stride_in='3x3'), 64, 64)


@pytest.mark.parametrize('size', [(64, 64), (75, 49)])
def test_se_resnet50(size):
  model = create_model('se_resnet50', width=16, num_classes=10)
  compare_evaluation(model, ResNet((3, 4, 6, 3), 16, 10, 'caffe', ratio=16), *size)


def test_se_resnext():
  model = create_model('se_resnext50_32x4d', width=32, depths=(1, 2, 2, 1), groups=8, num_classes=7)
  options = {'groups': 8, 'group_width': 4, 'stride_in': '3x3', 'ratio': 16}
  compare_evaluation(model, ResNet((1, 2, 2, 1), 32, 7, 'caffe', **options), 64, 64)


def test_se_resnet20_cifar():
  model = create_model('se_resnet20_cifar', num_classes=10)
  compare_evaluation(model, PreActivationResNet((3, 3, 3), 16, 10, False, 16), 32, 32)


def test_se_resnet164_cifar():
  model = create_model('se_resnet164_cifar', depths=(2, 2, 2), width=8)
  compare_evaluation(model, PreActivationResNet((2, 2, 2), 8, 10, True, 16), 16, 16)


def test_gradients_of_training():
  depths, width, classes, n = (1, 2, 1, 1), 16, 10, 4
  model = create_model(
    'se_resnet50', width=width, depths=depths, num_classes=classes, se=SEConfig(ratio=8)
  )
  network = randomized(ResNet(depths, width, classes, 'caffe', ratio=8)).train()
  rng = np.random.default_rng(2)
  images = rng.standard_normal((n, 64, 64, 3)).astype('f4')
  labels = rng.integers(0, classes, n)
  variables = checked_variables(model, network, images)

  loss = F.cross_entropy(
    network(torch.from_numpy(images.transpose(0, 3, 1, 2)).double()), torch.from_numpy(labels)
  )
  loss.backward()
  expected = to_flax({name: p.grad for name, p in network.named_parameters()})['params']

  @jax.jit
  @jax.value_and_grad
  def loss_and_gradients(params):
    logits, _ = model.apply(
      {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
    )
    return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(n), labels])

  actual_loss, actual = loss_and_gradients(variables['params'])
  np.testing.assert_allclose(actual_loss, loss.item(), rtol=1e-5)
  jax.tree.map_with_path(
    lambda path, a, b: near(a, b, 1e-3, jax.tree_util.keystr(path)), actual, expected
  )
