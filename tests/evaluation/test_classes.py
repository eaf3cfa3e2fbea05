"""Outputs of networks and labels of data that mean the same, in another order or in part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.evaluation.classes import Outputs, check_same, known
from senet_jax.evaluation.ensemble import Ensemble

NAMES = ('background', 'tench', 'goldfish', 'shark')


@pytest.mark.parametrize(
  ('names', 'labels', 'order'),
  [(NAMES, ('shark', 'tench'), (3, 1, 0, 2)), (NAMES, NAMES, None), (NAMES, NAMES[:2], None),
   (None, ('shark',), None), (NAMES, None, None)],
)  # fmt: skip
def test_order(names, labels, order):
  found, known = Outputs('runs/net', 4, names, 'imagenet2012').order(labels, 'image_folder')
  assert found == order and len(known) == 4
  assert list(known[: len(labels or ())]) == list(labels or ())


def test_a_class_that_the_network_does_not_know():
  outputs = Outputs('runs/net', 4, NAMES, 'imagenet2012')
  with pytest.raises(
    UserError, match=r"class 1 of image_folder is 'whale'.* none of the 4 classes"
  ):
    outputs.order(('shark', 'whale'), 'image_folder')


def test_a_name_of_two_classes_says_nothing():
  outputs = Outputs('runs/net', 3, ('crane', 'tench', 'crane'), 'imagenet2012')
  with pytest.raises(UserError, match=r"class 1 of image_folder is 'crane', a name that two"):
    outputs.order(('tench', 'crane'), 'image_folder')


def test_names_are_those_of_the_network_that_has_them():
  plain, named = (Outputs(name, 4, names, 'digits') for name, names in (('a', None), ('b', NAMES)))
  assert known([plain, named]) is named and known([plain]) is plain
  other = Outputs('c', 4, NAMES[::-1], 'digits')
  with pytest.raises(UserError, match=r"class 0 of c is 'shark', of b 'background'"):
    check_same([plain, named, other])


class Given:
  """A network whose logits are its images."""

  def apply(self, variables, images, train):
    del variables, train
    return images.reshape(len(images), -1)


def test_an_ensemble_answers_in_that_order():
  images = jax.random.normal(jax.random.key(0), (5, 1, 1, 1, 4))
  plain = Ensemble((Given(),)).apply(({},), (images,))
  ordered = Ensemble((Given(),), (3, 1, 0, 2)).apply(({},), (images,))
  np.testing.assert_array_equal(ordered, jnp.asarray(plain)[:, [3, 1, 0, 2]])
