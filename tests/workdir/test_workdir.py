"""Reading a trained network without knowing how it was trained."""

import jax
import numpy as np
import pytest

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.storage import files
from senet_jax.training import setup
from senet_jax.training.optimizer import make_optimizer, make_plateau
from senet_jax.workdir import network, saved
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.run_progress import RunProgress
from tests.helpers.small_run import small


def fresh(config, workdir):
  """Leaves a checkpoint of `config`'s untrained network; returns its state."""
  mesh = runtime.data_mesh(1)
  model = network.build_model(config, 10)
  optimizer, plateau = make_optimizer(config, lambda step: 0.1), make_plateau(config)
  variables = jax.tree.map(
    lambda x: np.random.default_rng(0).normal(size=x.shape).astype(x.dtype),
    network.variable_shapes(config, model),
  )
  state = setup.init_state(config, model, optimizer, plateau, mesh, variables)
  workdir.mkdir(exist_ok=True)
  files.write_json(workdir / 'config.json', config.to_dict())
  saved.write_classes(workdir, 10, None)
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(state, RunProgress({}), None)
  return state


@pytest.mark.parametrize('name', ['sgd', 'adam', 'lars', 'lamb'])
@pytest.mark.parametrize('more', [False, True])
def test_any_optimizer_is_read_whole(name, more, tmp_path):
  """The checksum covers its state, whose leaves must come in the order they were saved in."""
  fields = {'optimizer__name': name, 'model__depths': (1, 1, 1)}
  if more:
    fields |= {'optimizer__clip_norm': 1.0, 'optimizer__ema_decay': 0.9}
    fields |= {'schedule__name': 'plateau', 'optimizer__frozen': ('stem_',)}
  state = fresh(small(**fields), tmp_path)
  run = saved.load(tmp_path, 'latest', runtime.data_mesh())
  for a, b in zip(
    jax.tree.leaves(run.variables), jax.tree.leaves(state.eval_variables), strict=True
  ):
    np.testing.assert_array_equal(a, b)
    assert a.sharding.is_fully_replicated and len(a.devices()) == 8


def test_variables_of_another_network(tmp_path):
  fresh(small(model__depths=(1, 1, 1)), tmp_path)
  config = small(model__depths=(1, 1, 1), model__width=16)
  files.write_json(tmp_path / 'config.json', config.to_dict())
  with pytest.raises(UserError, match=r'checkpoint 0 in .* is damaged: .* is not as in the se_res'):
    saved.load(tmp_path, 'latest', runtime.data_mesh(1))
