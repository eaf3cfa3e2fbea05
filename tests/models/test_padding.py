"""Paddings of other code bases: zero channels on both sides, and TensorFlow's SAME."""

import jax
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.models import create_model

SMALL = {'depths': (1, 1), 'width': 4, 'preact': False}


def shortcut_of(shortcut):
  """What the second stage adds to a branch that is zero, `[1, 4, 4, 8]`, and what it came from."""
  model = create_model('resnet20_cifar', shortcut=shortcut, **SMALL)
  images = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
  variables = model.init(jax.random.key(0), images, train=False)
  variables['params']['stage3_block1']['bn2']['scale'] *= 0
  _, state = model.apply(
    variables, images, train=False, capture_intermediates=True, mutable=['intermediates']
  )
  maps = state['intermediates']
  return (np.asarray(maps[f'stage{s}_block1']['__call__'][0]) for s in (2, 3))


def test_zero_channels_on_both_sides():
  before, after = shortcut_of('pad_both')
  np.testing.assert_array_equal(after[..., 2:6], before[:, ::2, ::2])
  assert not after[..., :2].any() and not after[..., 6:].any()
  before, after = shortcut_of('pad')
  np.testing.assert_array_equal(after[..., :4], before[:, ::2, ::2])
  assert not after[..., 4:].any()


def test_same_padding_of_mobilenet():
  """On an even size TensorFlow pads a strided window only behind: the stem sees no first zeros."""
  options = {'depths': (1,), 'width': 4}
  images = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
  for padding, before in (('symmetric', 1), ('SAME', 0)):
    model = create_model('mobilenet_v1', padding=padding, **options)
    variables = model.init(jax.random.key(0), images, train=False)
    _, state = model.apply(
      variables, images, train=False, capture_intermediates=True, mutable=['intermediates']
    )
    found = np.asarray(state['intermediates']['stem_conv']['__call__'][0])
    kernel = np.asarray(variables['params']['stem_conv']['kernel'])
    padded = np.pad(images, [(0, 0), (before, 1), (before, 1), (0, 0)])
    first = np.einsum('hwc,hwco->o', padded[0, :3, :3], kernel)
    np.testing.assert_allclose(found[0, 0, 0], first, rtol=1e-4, atol=1e-5)
  with pytest.raises(UserError, match=r"model\.padding='VALID' is unknown"):
    create_model('mobilenet_v1', padding='VALID')
