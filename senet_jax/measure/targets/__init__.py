"""Machines to compile for, which need not be there, and what their chips can do.

Target files (`*.textproto`, in XLA's `GpuTargetConfigProto`) describe GPUs to the compiler; those
of TPUs are in libtpu.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re
from importlib import metadata

from senet_jax.errors import UserError, did_you_mean, one_of

_FOLDER = pathlib.Path(__file__).parent
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """Public figures of what JAX calls one device.

  Attributes:
    name: as in `--target`.
    flops: dense bfloat16 operations a second, a multiply-add being two.
    bandwidth: bytes a second of its main memory.
    memory: bytes of main memory.
    link: bytes a second that it can send over all its links to others like it.
    source: where the figures are from.
  """

  name: str
  flops: float
  bandwidth: float
  memory: float
  link: float
  source: str


_TPU_DOCS = 'cloud.google.com/tpu/docs/'
CHIPS = {
  chip.name: chip
  for chip in (
    Chip('v4', 275e12, 1.2e12, 32 * _GIB, 300e9, _TPU_DOCS + 'v4'),
    Chip('v5e', 197e12, 819e9, 16 * _GIB, 200e9, _TPU_DOCS + 'v5e'),
    Chip('v5p', 459e12, 2.765e12, 95 * _GIB, 600e9, _TPU_DOCS + 'v5p'),
    Chip('v6e', 918e12, 1.64e12, 32 * _GIB, 448e9, _TPU_DOCS + 'v6e'),
    Chip('a100', 312e12, 2.039e12, 80e9, 300e9, 'NVIDIA A100 80 GB SXM data sheet'),
    Chip('h100', 989e12, 3.35e12, 80e9, 450e9, 'NVIDIA H100 SXM data sheet'),
    Chip('h200', 989e12, 4.8e12, 141e9, 450e9, 'NVIDIA H200 SXM data sheet'),
  )
}
# Slices as Google Cloud offers them, in chips along each axis.
TOPOLOGIES = {
  'v4': '2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8',
  'v5e': '1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16',
  'v5p': '2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8',
  'v6e': '1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16',
}
HERE = 'here'


@dataclasses.dataclass(frozen=True)
class Target:
  """A machine.

  Attributes:
    text: as it was given.
    platform: `tpu`, `gpu` or `here`.
    chip: its devices; None for what is here and unknown.
    topology: `2x2` chips of a TPU; processes, hosts and GPUs a host of GPUs, such as `1x4x8`.
    config: the text of a GPU's target file; else empty.
  """

  text: str
  platform: str
  chip: Chip | None = None
  topology: str = ''
  config: str = ''

  @classmethod
  def parse(cls, text: str) -> 'Target':
    """Reads `tpu:v5e:2x2`, `gpu:h200`, `gpu:h100:1x4x8` or `here`.

    Raises:
      UserError: it is none of these.
    """
    platform, *parts = text.split(':')
    if text == HERE:
      return cls(text, HERE)
    if platform == 'tpu' and len(parts) == 2:
      name, topology = parts
      one_of('--target=tpu', name, TOPOLOGIES)
      if topology not in (known := TOPOLOGIES[name].split()):
        raise UserError(
          f'--target={text}: {name} has no topology {topology!r}; it has {", ".join(known)}.'
        )
      return cls(text, platform, CHIPS[name], topology)
    if platform == 'gpu' and len(parts) in (1, 2):
      name, topology = (*parts, '1x1x1')[:2]
      files = {path.stem: path for path in _FOLDER.glob('*.textproto')}
      one_of('--target=gpu', name, files)
      if not re.fullmatch(r'[1-9]\d*x[1-9]\d*x[1-9]\d*', topology):
        raise UserError(
          f'--target={text}: {topology!r} must be slices x hosts x GPUs of a host, such as 1x1x8.'
        )
      return cls(text, platform, CHIPS[name], topology, files[name].read_text())
    known = [f'tpu:{name}:{names.split()[1]}' for name, names in TOPOLOGIES.items()]
    known += ['gpu:h200', 'gpu:h100:1x1x8', HERE]
    guess = did_you_mean(text, known)
    hint = f'{guess} ' if guess else ''
    raise UserError(f'--target={text!r} is unknown; {hint}Examples: {", ".join(known)}.')

  def prepare(self) -> None:
    """Sets the environment so that JAX can compile for it; before JAX is imported.

    Raises:
      UserError: the package that has the compiler is missing.
    """
    if self.platform == HERE:
      return
    os.environ['JAX_PLATFORMS'] = 'cpu'
    if self.platform == 'tpu':
      _require('libtpu', 'tpu', self.text)
      # No metadata server answers here, and several compilations may run at a time.
      os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
      os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
      os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-4')
      os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
    else:
      _require('jax_cuda13_plugin', 'cuda', self.text)
      # There is no GPU to try kernels on.
      flags = os.environ.get('XLA_FLAGS', '')
      os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_autotune_level=0'.strip()

  def devices(self) -> list:
    """Returns the machine's devices, in the sense of JAX.

    Raises:
      UserError: the compiler does not know the machine.
    """
    from jax.experimental import topologies

    from senet_jax import runtime

    if self.platform == HERE:
      return runtime.all_devices()
    chip = self.chip.name if self.chip else ''
    options = {'platform': 'tpu', 'topology_name': f'{chip}:{self.topology}'}
    if chip == 'v4':
      options['chip_config_name'] = 'megacore'  # its two cores are one device, as on the machine
    if self.platform == 'gpu':
      options = {'platform': 'cuda', 'topology_name': '', 'topology': self.topology}
      options['target_config'] = self.config
    try:
      return list(topologies.get_topology_desc(**options).devices)
    except Exception as e:  # of many types, from the plugins
      message = str(e).splitlines()[0] if str(e) else type(e).__name__
      raise UserError(f'--target={self.text}: the compiler does not know it ({message}).') from e

  def compiler_version(self) -> dict[str, str]:
    """Returns the package that has the compiler with its version; empty for what is here."""
    package = {'tpu': 'libtpu', 'gpu': 'jax-cuda13-plugin'}.get(self.platform)
    try:
      return {package: metadata.version(package)} if package else {}
    except metadata.PackageNotFoundError:
      return {}


def here(device_kind: str) -> Chip | None:
  """Returns what is known about a device that is here, by the name that JAX gives its kind."""
  kind = device_kind.lower().replace('tpu v5 lite', 'v5e').replace('tpu v6 lite', 'v6e')
  return next((chip for name, chip in CHIPS.items() if name in kind.replace('tpu v5', 'v5p')), None)


def _require(module: str, extra: str, target: str) -> None:
  if importlib.util.find_spec(module) is None:
    raise UserError(
      f'--target={target} needs the compiler in {module!r}, which is not installed; '
      f"pip install 'senet_jax[{extra}]'."
    )
