"""The same weights in an independent torch definition give the same activations and gradients."""

import pytest

from senet_jax.layers import SEConfig
from senet_jax.models import create_model
from tests.helpers.parity import check_gradients, compare_evaluation, compare_training, twin
from tests.helpers.weights import random_images


def test_resnet50(golden):
  model = create_model('resnet50', stride_in='3x3', pool_align='torch')
  make = twin('residual.resnet', (3, 4, 6, 3), 64, 1000, 'torch', stride_in='3x3')
  compare_evaluation(golden, model, random_images(2, 64, 64), make)


@pytest.mark.parametrize('size', [(64, 64), (75, 49)], ids=str)
def test_se_resnet50(golden, size):
  model = create_model('se_resnet50', width=16, num_classes=10)
  make = twin('residual.resnet', (3, 4, 6, 3), 16, 10, 'caffe', ratio=16)
  compare_evaluation(golden, model, random_images(2, *size), make, calibrated=True)


def test_se_resnext(golden):
  model = create_model('se_resnext50_32x4d', width=32, depths=(1, 2, 2, 1), groups=8, num_classes=7)
  options = {'groups': 8, 'group_width': 4, 'stride_in': '3x3', 'ratio': 16}
  make = twin('residual.resnet', (1, 2, 2, 1), 32, 7, 'caffe', **options)
  compare_evaluation(golden, model, random_images(2, 64, 64), make)


def test_se_resnet20_cifar(golden):
  model = create_model('se_resnet20_cifar', num_classes=10)
  make = twin('residual.preactivation', (3, 3, 3), 16, 10, False, 16)
  compare_evaluation(golden, model, random_images(2, 32, 32), make)


def test_se_resnet164_cifar(golden):
  model = create_model('se_resnet164_cifar', depths=(2, 2, 2), width=8)
  make = twin('residual.preactivation', (2, 2, 2), 8, 10, True, 16)
  compare_evaluation(golden, model, random_images(2, 16, 16), make)


def test_gradients_of_training(golden):
  depths, width, classes = (1, 2, 1, 1), 16, 10
  model = create_model(
    'se_resnet50', width=width, depths=depths, num_classes=classes, se=SEConfig(ratio=8)
  )
  make = twin('residual.resnet', depths, width, classes, 'caffe', ratio=8)
  check_gradients(*compare_training(golden, model, random_images(4, 64, 64), make))
