"""The declarations of fields, and all that follows from them."""

import dataclasses
import json
import math

import pytest

from senet_jax import config as config_lib
from senet_jax.config import FIELDS, reading
from senet_jax.config.fields import FREE, LENGTH
from senet_jax.errors import UserError
from senet_jax.layers import BatchNormConfig, SEConfig, normalization, squeeze_excite
from senet_jax.layers.channel_gate import SQUEEZES
from tests.helpers.paths import ROOT

FILE = str(ROOT / 'tests' / 'helpers' / 'default_config.py')


def test_declarations_accept_their_own_defaults():
  for name, field in FIELDS.items():
    assert field.accepted(name, field.default) == field.default, name
    assert field.optional == (field.default is None)
    assert field.help and '\n' not in field.help and not field.help.endswith('.'), name
  config_lib.check(config_lib.default())
  assert dict(config_lib.flatten(config_lib.default())) == {
    name: field.default for name, field in FIELDS.items()
  }


def test_layers_have_the_defaults_and_choices_of_the_fields():
  for options in dataclasses.fields(SEConfig):
    assert FIELDS[f'model.se.{options.name}'].default == options.default
  bn = BatchNormConfig()
  assert FIELDS['bn.scope'].default == bn.scope and FIELDS['bn.momentum'].default == bn.momentum
  assert FIELDS['bn.scope'].choices == normalization.SCOPES
  for name, choices in {
    'position': squeeze_excite.POSITIONS,
    'excitation': squeeze_excite.EXCITATIONS,
    'squeeze': SQUEEZES,
  }.items():
    assert FIELDS[f'model.se.{name}'].choices == tuple(choices)


def test_what_a_resumed_run_may_change():
  assert {name for name, field in FIELDS.items() if field.resume == LENGTH} == {'epochs', 'steps'}
  free = {name for name, field in FIELDS.items() if field.resume == FREE}
  whole = ('checkpoint.', 'log.', 'profile.')
  assert {name for name in free if not name.startswith(whole)} == {
    'data.dir', 'data.max_damaged', 'data.max_faulty', 'data.read_timeout', 'data.workers',
    'eval.batch_size', 'model.se.fused', 'steps_per_dispatch',
  }  # fmt: skip
  assert {name for name in FIELDS if name.startswith(whole)} < free


def test_what_changes_the_function_of_a_network():
  function = {name for name, field in FIELDS.items() if field.function}
  assert {name for name in FIELDS if name.startswith('model.')} - function == {
    'model.dtype', 'model.zero_init_last_bn', 'model.dropout', 'model.drop_path', 'model.remat',
    'model.backward', 'model.freeze_at', 'model.se.fused',
  }  # fmt: skip
  assert {name for name in function if not name.startswith('model.')} == {
    'bn.epsilon', 'data.mean', 'data.std', 'data.image_size', 'data.resize', 'data.interpolation',
    'data.resize_keep_aspect', 'data.shorter_side', 'data.longer_side',
  }  # fmt: skip


# Values that once got through, and then ended in a traceback, in C++, or in gigabytes.
WRONG = {
  'model.se.stages': [1.5, math.nan, (2, 7), 'some', True],
  'model.se.without': [True, 'SE_5_2', (1,)],
  'model.se.hidden_divisor': [10**29, 0, True],
  'model.width': [16.5, 0, '16'],
  'model.num_classes': [10**12, 0, math.inf],
  'data.pad': [10**9, 1e20, -1],
  'data.train_split': [3, None, 'train[:' + '9' * 5000 + ']', '\0', '\ud800'],
  'schedule.patience': [10**19, 0],
  'schedule.boundaries': [('a',), (math.nan,), 'ab', tuple(range(2000))],
  'steps': [2**31, 10**400, 1.0],
  'epochs': [math.nan, math.inf, 10**400, '1', None, True],
  'seed': [{}, {'a': 1}, [], None, -1],
  'data.mean': [(1.0, 2.0), (1.0, 2.0, math.inf)],
  'data.shorter_side': [0, 2**15, '800'],
  'data.max_boxes': [0, 10**9],
  'data.flip': [1, 'true', None],
}


@pytest.mark.parametrize(
  ('name', 'value'), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_in_one_short_line_from_everywhere(name, value):
  nested = value
  for part in reversed(name.split('.')):
    nested = {part: nested}
  unlocked = config_lib.default()
  owner = unlocked
  *sections, leaf = name.split('.')
  for section in sections:
    owner = owner[section]
  with unlocked.unlocked(), unlocked.ignore_type():
    # ml_collections makes a float of anything that it gives to a field of floats.
    owner[leaf] = 'x' if FIELDS[name].kind is float else value
  for enter, given in ((config_lib.from_dict, nested), (config_lib.check, unlocked)):
    with pytest.raises(UserError, match=name.replace('.', r'\.')) as refusal:
      enter(given)
    message = str(refusal.value)
    assert len(message) < 500 and '\n' not in message, message


def test_a_value_is_held_as_its_field_is_declared():
  read = config_lib.from_dict(
    {'epochs': 5, 'data': {'mean': [1, 2, 3]}, 'model': {'se': {'stages': [2, 3], 'fused': 'auto'}}}
  )
  assert type(read.epochs) is float and read.data.mean == (1.0, 2.0, 3.0)
  assert read.model.se.stages == (2, 3) and read.model.se.fused is True
  assert config_lib.from_dict({'model': {'se': {'stages': 2}}}).model.se.stages == (2,)
  again = config_lib.from_dict(json.loads(json.dumps(read.to_dict())))
  assert again == read and config_lib.differences(read.to_dict(), again.to_dict()) == {}


@pytest.mark.parametrize(
  'values',
  [{'a': 1}, {3: 4}, {'model': {3: 4}}, {'model': 3}, {'model.name': 'x'}, {'x' * 5000: 1}],
)
def test_keys_that_are_no_fields(values):
  with pytest.raises(UserError, match='has no field') as refusal:
    config_lib.from_dict(values)
  assert len(str(refusal.value)) < 500


def test_none_on_the_command_line():
  given = ['--config.model.num_classes=7', '--config.model.num_classes=None']
  assert reading.load(FILE, given[:1]).model.num_classes == 7
  for field in ('model.num_classes', 'model.shortcut', 'model.depths', 'bn.epsilon', 'data.dir'):
    assert dict(config_lib.flatten(reading.load(FILE, [f'--config.{field}=None'])))[field] is None
  assert reading.load(FILE, given).model.num_classes is None
  with pytest.raises(UserError, match=r"seed='None' must be a whole number"):
    reading.load(FILE, ['--config.seed=None'])
  with pytest.raises(UserError, match='must be a tuple'):
    reading.load(FILE, ['--config.data.mean=None'])


def test_fields_that_refer_to_others_follow_the_command_line(tmp_path):
  path = tmp_path / 'lazy.py'
  path.write_text(
    'from senet_jax.config import default\n'
    'def get_config():\n'
    '  c = default()\n'
    "  c.schedule.warmup = c.get_ref('epochs') / 10\n"
    '  return c\n'
  )
  assert reading.load(str(path), ['--config.epochs=50']).schedule.warmup == 5.0
