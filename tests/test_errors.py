"""Checks of what was given, and what their messages guess was meant: never what is not near."""

import pytest

from senet_jax.config import FIELDS
from senet_jax.errors import UserError, at_least, near, one_of
from senet_jax.models import list_models


@pytest.mark.parametrize(
  ('given', 'first'),
  [
    ('lr', 'optimizer.learning_rate'),
    ('optimizer.lr', 'optimizer.learning_rate'),
    ('lerning_rate', 'optimizer.learning_rate'),
    ('learning_rate', 'optimizer.learning_rate'),
    ('Batch_Size', 'batch_size'),
    ('bs', 'batch_size'),
    ('se.ratio', 'model.se.ratio'),
    ('ema', 'optimizer.ema_decay'),
    ('augment', 'data.randaugment'),
    ('model.nmae', 'model.name'),
    ('num_workers', 'data.workers'),
    ('telemetry', None),
    ('', None),
  ],
)
def test_the_field_that_was_meant(given, first):
  assert next(iter(near(given, FIELDS)), None) == first


def test_a_network_that_begins_so_comes_before_one_that_is_spelt_alike():
  assert near('se_resnet20', list_models()) == ['se_resnet20_cifar']
  assert near('ResNet50', list_models()) == ['resnet50']
  assert near('se_resnet5O', list_models())[0] == 'se_resnet50'


def test_nothing_is_guessed_where_nothing_is_near():
  with pytest.raises(UserError, match=r"='cbam' is unknown \(allowed: se, eca, ese, ge\)\.$"):
    one_of('model.attention', 'cbam', ['se', 'eca', 'ese', 'ge'])
  with pytest.raises(UserError, match=r"='eac' is unknown; did you mean 'eca'\? \(allowed"):
    one_of('model.attention', 'eac', ['se', 'eca', 'ese', 'ge'])


@pytest.mark.parametrize('given', [0, -1, 0.5, float('nan')])
def test_the_least_that_a_number_may_be(given):
  at_least('k', 1, 1)
  with pytest.raises(UserError, match=f'^k={given} must be at least 1\\.$'):
    at_least('k', given, 1)
