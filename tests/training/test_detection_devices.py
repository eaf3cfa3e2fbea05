"""A detector on several devices, in several processes, and with photos of several shapes."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from senet_jax import runtime
from senet_jax.detection import evaluate
from senet_jax.detection.feeds import DetectionEvalFeed, DetectionFeed
from senet_jax.training.detection import Detection
from senet_jax.training.loop import train
from senet_jax.training.optimizer import make_optimizer
from senet_jax.training.setup import init_state
from senet_jax.training.step import training_program
from senet_jax.workdir import network, saved
from tests.helpers.ports import free_port
from tests.helpers.small_detection_run import SMALL, small_detector
from tests.helpers.small_run import programs_by_step, summary

pytestmark = pytest.mark.thorough


def step(devices: int):
  """Parameters and losses after a step on so many devices."""
  # Every place of the samples is taken, so that the losses of a device are means over as many.
  config = small_detector(batch_size=4)
  mesh = runtime.data_mesh(devices)
  feed = DetectionFeed.create(config, mesh)
  task, model = Detection(config), network.build_model(config)
  optimizer = make_optimizer(config, lambda step: 0.01)
  state = init_state(config, model, optimizer, None, mesh)
  program = training_program(task, model, optimizer, feed, mesh, looped=False)
  state, report = program(state, feed.inputs(0, 1)[0], np.int32(1))
  return jax.device_get(state.params), report.report()


def test_any_number_of_devices_takes_the_same_step():
  (one, losses), (two, others) = step(1), step(2)
  assert others == pytest.approx(losses, rel=1e-3)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_any_number_of_devices_finds_the_same():
  config = small_detector(eval__batch_size=4)
  model, found = network.build_model(config), []
  for devices in (1, 2, 4):
    mesh = runtime.data_mesh(devices)
    feed = DetectionEvalFeed.create(config, 'validation[:10]', mesh)
    program = evaluate.eval_program(model, feed, mesh)
    variables = network.init_variables(config, model, mesh)
    found.append(evaluate.detect(program, variables, feed, feed.split.annotations, 0.0).rows)
  for other in found[1:]:
    assert [row['image_id'] for row in other] == [row['image_id'] for row in found[0]]
    scores = [[row['score'] for row in rows] for rows in (found[0], other)]
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_all_shapes_are_compiled_before_the_first_step(tmp_path, monkeypatch):
  at_step = programs_by_step(monkeypatch)
  assert train(small_detector(data__longer_side=96), tmp_path)
  # Steps and evaluations, of photos that lie and photos that stand.
  assert at_step[-1][0] == 6 and {count for _, count in at_step} == {4}


FLAGS = [f'--config.{name}={value}' for name, value in {**SMALL, 'steps': 2}.items()]


def finished(count: int, workdir, devices: int):
  """Trains in so many processes of so many devices each; returns parameters and the summary."""
  port = free_port()
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices)}
  command = [sys.executable, '-m', 'senet_jax.main', '--config=tests/helpers/default_config.py']
  processes = [
    subprocess.Popen(
      [*command, f'--workdir={workdir}', *FLAGS, f'--coordinator=127.0.0.1:{port}',
       f'--num_processes={count}', f'--process_id={number}'],
      env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    for number in range(count)
  ]  # fmt: skip
  outputs = [process.communicate(timeout=400)[0] for process in processes]
  assert [process.returncode for process in processes] == [0] * count, outputs
  run = saved.load(workdir, 'latest', runtime.data_mesh(1), task='detection')
  return jax.tree.leaves(run.variables), summary(workdir)['final']


def test_two_processes_compute_what_one_does(tmp_path):
  one, results = finished(1, tmp_path / 'one', 2)
  two, others = finished(2, tmp_path / 'two', 1)
  for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  assert others == pytest.approx(results, abs=0.5)
