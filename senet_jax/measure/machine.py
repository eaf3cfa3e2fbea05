"""The machine of a measurement: its devices, and which libraries are there, told by a process.

  python -m senet_jax.measure.machine FILE.json

A process of its own asks, since the one that looks for devices takes them: a TPU serves one process
at a time, and JAX takes most of a GPU's memory.
"""

import importlib.util
import os
import pathlib
import re
from typing import Any

import jax
from jax.sharding import Mesh

from senet_jax import cli, runtime
from senet_jax.storage import files
from senet_jax.workdir import summary

# What measurements may need beside what the project is installed with.
_OPTIONAL = ('tensorflow', 'tensorflow_datasets', 'torch', 'timm')
# Of the environment, what changes the programs or where they run.
_FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'XLA_PYTHON_CLIENT_PREALLOCATE', 'JAX_PLATFORMS',
          'XLA_CLIENT_MEM_FRACTION', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY')  # fmt: skip


def main(argv: list[str]) -> None:
  """Writes the facts to the file that is named."""
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
    'torchvision_works': _torchvision_works(),
  }
  files.write_json(pathlib.Path(argv[0]), facts)


def _torch_on_device(platform: str) -> bool:
  if importlib.util.find_spec('torch') is None:
    return False
  import torch

  return platform == 'cpu' or (platform == 'gpu' and torch.cuda.is_available())


def _torchvision_works() -> bool:
  """Returns whether torchvision is here, with operators that fit this build of torch."""
  if importlib.util.find_spec('torchvision') is None:
    return False
  try:
    from torchvision import ops, version  # noqa: F401
  except (ImportError, RuntimeError, OSError):
    return False
  return True


def device_peak_mib(mesh: Mesh) -> float | None:
  """Returns the most that a device has had in use in this process; None where it does not say."""
  stats = [device.memory_stats() or {} for device in mesh.devices.flat]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  return max(peaks) / 2**20 if peaks else None


def free_memory() -> int | None:
  """Returns the bytes that this machine can still give to a process; None where it does not say."""
  kib = _in_proc('meminfo', r'^MemAvailable:\s+(\d+) kB')
  return 1024 * int(kib) if kib else None


def describe() -> dict[str, Any]:
  """Returns what decides the numbers beside the versions of the packages."""
  options: Any = jax.config  # older versions of JAX do not declare its attributes
  return {
    'cpu_cores': runtime.usable_cores(),
    'cpu': _in_proc('cpuinfo', r'^model name\s*:\s*(.+)$'),
    'platform': jax.devices()[0].client.platform_version,
    'flags': {name: os.environ[name] for name in _FLAGS if name in os.environ},
    # With one, `compile_s` may be the time of a look-up.
    'compilation_cache': bool(options.jax_compilation_cache_dir),
  }


def _in_proc(file: str, pattern: str) -> str | None:
  """Returns what Linux tells of the machine; None elsewhere."""
  try:
    text = pathlib.Path('/proc', file).read_text(encoding='utf-8')
  except OSError:
    return None
  found = re.search(pattern, text, re.MULTILINE)
  return found and found[1]


if __name__ == '__main__':
  cli.run(main)
