"""The machine of a measurement: its devices, and which libraries are there, told by a process.

  python -m senet_jax.measure.machine FILE.json

A process of its own asks, since the one that looks for devices takes them: a TPU serves one process
at a time, and JAX takes most of a GPU's memory.
"""

import importlib.util
import pathlib

from senet_jax import cli, runtime
from senet_jax.storage import files
from senet_jax.workdir import summary

# What measurements may need beside what the project is installed with.
_OPTIONAL = ('tensorflow', 'tensorflow_datasets', 'torch', 'timm')


def main(argv: list[str]) -> None:
  """Writes the facts to the file that is named."""
  import jax

  devices = runtime.all_devices()
  facts = {
    'platform': jax.default_backend(),
    'device': runtime.describe_devices(),
    'kind': devices[0].device_kind,
    'devices': len(devices),
    'cpu_cores': runtime.usable_cores(),
    'git_commit': summary.git_commit(),
    'versions': summary.versions(),
    'missing': [name for name in _OPTIONAL if importlib.util.find_spec(name) is None],
    'torch_on_device': _torch_on_device(jax.default_backend()),
  }
  files.write_json(pathlib.Path(argv[0]), facts)


def _torch_on_device(platform: str) -> bool:
  if importlib.util.find_spec('torch') is None:
    return False
  import torch

  return platform == 'cpu' or (platform == 'gpu' and torch.cuda.is_available())


if __name__ == '__main__':
  cli.run(main)
