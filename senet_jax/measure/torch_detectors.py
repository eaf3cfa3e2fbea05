"""Detectors of torchvision, to be measured beside ours, in a process of another Python.

torchvision's operators need the very build of torch that they were made with, so that a Python that
has both, such as Debian's with python3-torchvision, need not be the one that runs JAX.
"""

import atexit
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import senet_jax
from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.interop import to_torch
from senet_jax.interop.names import VARIANTS, Variant
from senet_jax.measure import programs, torch_detector
from senet_jax.measure.timing import Workload
from senet_jax.workdir.network import build_model

_TORCHVISION = 'torchvision:'
_MODULE = 'senet_jax.measure.torch_detector'
_ROOT = str(pathlib.Path(senet_jax.__file__).parents[1])


def variant(model: str) -> Variant | None:
  """Returns the form of a detector in torchvision; None if torchvision does not have it."""
  found = [v for v in VARIANTS.values() if v.model == model and v.name.startswith(_TORCHVISION)]
  # Not that of the published file, whose normalisations have an epsilon of 0.
  return next((v for v in found if not v.name.endswith('_coco')), None)


def check(python: str | None) -> dict[str, Any]:
  """Returns versions of torch and torchvision in a Python; None is this one.

  Raises:
    UserError: they are not there, do not fit each other, or cannot use what JAX uses.
  """
  python = python or sys.executable
  try:
    command = [python, '-m', _MODULE, torch_detector.VERSIONS]
    answer = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
  except OSError as error:
    raise UserError(f'--torch_python={python} does not run: {error.strerror}.') from error
  if answer.returncode:
    reason = (answer.stderr.strip().splitlines() or ['it failed'])[-1]
    raise UserError(
      f'--against=torch: {python} has no torchvision that works ({reason}); give one that has: '
      "--torch_python=/usr/bin/python3 with Debian's python3-torchvision."
    )
  found = json.loads(answer.stdout)
  if jax.default_backend() == 'gpu' and not found['cuda']:
    raise UserError(
      f'--against=torch: JAX uses {runtime.describe_devices()}, and the PyTorch of {python} cannot.'
    )
  return {k: v for k, v in found.items() if k != 'cuda'}


def prepare(config: ConfigDict, mode: str, device: str, python: str | None) -> Workload:
  """Starts torchvision's detector with the weights that ours is measured with.

  It gets normalised images of one size, as ours; channels_last, bfloat16 through autocast. Training
  is SGD on the sum of the losses, with the stem, the first stage and all normalisations frozen.

  Args:
    config: of our network.
    mode: `train` or `inference`.
    device: `cuda` or `cpu`.
    python: that has torchvision; None: this one.

  Raises:
    UserError: it fails.
  """
  name = config.model.name
  form = variant(name)
  assert form is not None  # or it was left out
  weights = to_torch(name, programs.made_up_variables(config, build_model(config)), form.name)
  height, width = programs.image_sides(config)
  with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch, 'weights.npz')
    np.savez(path, allow_pickle=False, **weights)
    child = _Child(
      python or sys.executable,
      {
        'weights': str(path),
        'trunk': 'resnet50',
        'classes': config.model.num_classes,
        'mode': mode,
        'batch': config.batch_size,
        'height': height,
        'width': width,
        'device': device,
        'dtype': config.model.dtype,
        'threads': runtime.usable_cores(),
        'channels_last': True,
      },
    )
  return Workload(
    images=config.batch_size, dispatch=child.step, wait=child.wait, compile_s=child.ready['ready']
  )


class _Child:
  """The process, which takes steps when it is waited for.

  Attributes:
    ready: what it said when the first step was done.
  """

  def __init__(self, python: str, options: dict[str, Any]):
    self._process = subprocess.Popen(
      [python, '-m', _MODULE, json.dumps(options)],
      cwd=_ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    atexit.register(self._process.kill)
    self._steps = 0
    self.ready = self._answer()

  def step(self) -> None:
    """Asks for one more step."""
    self._steps += 1

  def wait(self) -> None:
    """Has all steps taken that were asked for."""
    if self._steps:
      assert self._process.stdin
      self._process.stdin.write(f'{self._steps}\n')
      self._process.stdin.flush()
      self._steps = 0
      self._answer()

  def _answer(self) -> dict[str, Any]:
    assert self._process.stdout and self._process.stderr
    line = self._process.stdout.readline()
    if not line:
      reason = (self._process.stderr.read().strip().splitlines() or ['it ended'])[-1]
      raise UserError(f"torchvision's detector failed: {reason}")
    return json.loads(line)
