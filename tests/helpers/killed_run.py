"""Trains as `senet_jax.main` does, in a process that gets a signal at a known step.

  python -m tests.helpers.killed_run STEP SIGNAL --config=configs/digits_se_r20.py --workdir=DIR

A signal from outside may come when the run is over.
"""

import sys

import pytest

from senet_jax import cli, main
from tests.helpers.small_run import kill_at

if __name__ == '__main__':
  with pytest.MonkeyPatch.context() as patch:
    kill_at(patch, int(sys.argv.pop(1)), int(sys.argv.pop(1)))
    cli.run(main.main)
