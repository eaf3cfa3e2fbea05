"""A detector that starts from a classifier, and from another detector."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from senet_jax import config as config_lib, runtime
from senet_jax.errors import UserError
from senet_jax.storage import files
from senet_jax.training import initial
from senet_jax.workdir import network, saved
from tests.helpers.small_detection_run import small_detector
from tests.helpers.small_run import configured

CLASSIFIER = {
  'model.name': 'se_resnet18',
  'model.width': 8,
  'model.se.ratio': 4,
  'model.pool_align': 'torch',
  'data.name': 'image_folder',
  'data.feed': 'stream',
  'data.image_size': 64,
  'data.resize': 70,
  'bn.epsilon': 1e-3,
}


def random_variables(config, model, mesh=None, seed=0):
  """In the place of those that a network makes, which take seconds to be compiled."""
  rng, shapes = np.random.default_rng(seed), network.variable_shapes(config, model)
  return jax.tree.map(lambda x: rng.uniform(0.5, 1, x.shape).astype(np.float32), shapes)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  """What a network makes of its own."""
  monkeypatch.setattr(network, 'init_variables', functools.partial(random_variables, seed=1))


def written(workdir, config, num_classes=5):
  """Writes a workdir of a network with random weights; returns its name and its variables."""
  variables = random_variables(config, network.build_model(config, num_classes))
  saved.write(workdir, config, variables, num_classes, None, {'converted_from': 'a test'})
  return str(workdir), flat(variables)


def flat(variables):
  return {'/'.join(k): v for k, v in traverse_util.flatten_dict(variables, sep=None).items()}


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  return written(tmp_path_factory.mktemp('trunk') / 'classifier', configured(CLASSIFIER))


def detector(**fields):
  """A small detector which leaves to its source what the source says."""
  config = small_detector(**fields)
  for name in ('model.width', 'model.se.ratio', 'data.std'):
    if name.replace('.', '__') not in fields:
      config.update_from_flattened_dict({name: config_lib.FIELDS[name].default})
  return config


def start(config, workdir):
  """The variables that a run of `config` begins with, and its configuration."""
  config = initial.inherit(config, workdir)
  config_lib.check(config)
  initial.check_source(config, workdir)
  model = network.build_model(config)
  say = functools.partial(print, end='\n')
  return initial.initial_variables(config, model, runtime.data_mesh(), say), config


def test_a_classifier_becomes_the_trunk(classifier, tmp_path, capsys):
  name, theirs = classifier
  variables, config = start(detector(init_from=name), tmp_path)
  out = capsys.readouterr().out
  assert f'starts with step 0 of {name} as its trunk' in out
  # What it looks like, and what it sees.
  assert (config.model.trunk, config.model.width, config.model.se.ratio) == ('resnet18', 8, 4)
  assert (config.model.pool_align, config.bn.epsilon) == ('torch', 1e-3)
  assert tuple(config.data.mean) == (123.0, 117.0, 104.0)
  assert tuple(config.data.std) == (1.0, 1.0, 1.0)
  assert config.data.image_size is None and config.data.resize is None
  model = network.build_model(config)
  fresh = flat(network.init_variables(config, model, runtime.data_mesh()))
  found = flat(variables)
  assert found.keys() == fresh.keys()
  of_trunk = {path for path in found if path.split('/')[1] == 'backbone'}
  assert len(of_trunk) == len(theirs) - 2  # its head has a kernel and a bias
  for path, value in found.items():
    expected = theirs[path.replace('/backbone/', '/')] if path in of_trunk else fresh[path]
    assert np.array_equal(value, expected), path


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'model__name': 'faster_rcnn_r50_fpn'}, 'which has no SE'),
    (
      {'model__trunk': None},
      'is a se_resnet18, and the trunk of se_faster_rcnn_r50_fpn is resnet50',
    ),
    ({'model__width': 16}, r'variables differ: .*backbone/.* is \(.*\) there and \(.*\) here'),
    ({'model__pool_align': 'caffe'}, 'model.pool_align is torch there and caffe here'),
    ({'data__mean': (0.0, 0.0, 0.0)}, r'data.mean is \(123.0, 117.0, 104.0\) there and \(0.0, 0.0'),
    ({'new_head': True}, 'config.new_head=True has no effect'),
  ],
)
def test_a_classifier_that_does_not_fit_is_one_line(classifier, fields, message, tmp_path):
  with pytest.raises(UserError, match=message) as error:
    start(detector(init_from=classifier[0], **fields), tmp_path)
  assert '\n' not in str(error.value)


def test_a_classifier_that_is_no_trunk_is_one_line(tmp_path):
  config = configured({**CLASSIFIER, 'model.branch_relu': True})
  files.write_json(tmp_path / 'config.json', config.to_dict())
  with pytest.raises(UserError, match=r'has config.model.branch_relu=True, which the trunk of a'):
    start(detector(init_from=str(tmp_path)), tmp_path / 'run')


@pytest.mark.thorough
def test_a_detector_starts_from_a_detector(tmp_path):
  name, theirs = written(tmp_path / 'source', small_detector(), 3)
  variables, _ = start(small_detector(init_from=name), tmp_path / 'run')
  assert all(np.array_equal(value, theirs[path]) for path, value in flat(variables).items())
  with pytest.raises(UserError, match=r'has 3 classes and this one 4.*new_head=True'):
    start(small_detector(init_from=name, model__num_classes=4), tmp_path / 'run')
  more = small_detector(init_from=name, model__num_classes=4, new_head=True)
  found = flat(start(more, tmp_path / 'run')[0])
  head = {path for path in found if found[path].shape != theirs[path].shape}
  assert {path.split('/')[2] for path in head} == {'class_logits', 'box_deltas'}
  assert all(np.array_equal(found[path], theirs[path]) for path in found.keys() - head)


def test_a_classifier_does_not_start_from_a_detector(tmp_path):
  name, _ = written(tmp_path / 'source', small_detector(), 3)
  with pytest.raises(UserError, match='holds se_faster_rcnn_r50_fpn, a network for detection'):
    start(configured({**CLASSIFIER, 'init_from': name}), tmp_path / 'run')
