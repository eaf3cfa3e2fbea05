"""Initialisation of the detectors' heads, as in Detectron."""

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax.detection.roi_heads import RoIHead
from senet_jax.detection.rpn import RPNHead


def test_of_the_first_stage():
  params = RPNHead().init(jax.random.key(0), [jnp.zeros((1, 2, 2, 256))])['params']
  for name in ('conv', 'objectness', 'deltas'):
    np.testing.assert_allclose(params[name]['kernel'].std(), 0.01, rtol=0.05)
    assert not params[name]['bias'].any()


def test_of_the_second_stage():
  params = RoIHead(20, 256).init(jax.random.key(0), jnp.zeros((1, 2, 7, 7, 16)))['params']
  for name, spread in (('class_logits', 0.01), ('box_deltas', 0.001)):
    np.testing.assert_allclose(params[name]['kernel'].std(), spread, rtol=0.05)
    assert not params[name]['bias'].any()
