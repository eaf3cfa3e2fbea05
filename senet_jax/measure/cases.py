"""Networks beside each other on the devices at hand, in JAX and in PyTorch."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import config as config_lib, errors, runtime
from senet_jax.config import reading
from senet_jax.errors import UserError
from senet_jax.measure import (
  exported_models,
  machine,
  programs,
  throughput,
  timing,
  torch_detectors,
  torch_models,
)
from senet_jax.measure.networks import SE_FIELD, TEXTBOOK, TEXTBOOK_SE, Network
from senet_jax.measure.textbook import TextbookResNet50
from senet_jax.measure.timing import Timing, Workload
from senet_jax.models import CLASSIFICATION, model_info
from senet_jax.reporting.statistics import spread
from senet_jax.workdir import summary
from senet_jax.workdir.network import build_model, network_options, task_of

OURS, TORCH = 'senet_jax', 'torch'
# Beside which networks can be measured; the second brings PyTorch, too.
_AGAINST = (TORCH, 'exported')
# That XLA keeps busy with one program.
_CORES = 4
_TORCH_COMPILE = ('off', 'default', 'reduce-overhead', 'max-autotune')


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """One network in one framework, at one batch size and dtype.

  Attributes:
    network: as it was given.
    framework: `OURS`, `TORCH` or one of `exported_models.RUNTIMES`.
    mode: `train` or `inference`.
    config: with batch size, dtype and image size.
  """

  network: Network
  framework: str
  mode: str
  config: ConfigDict

  @property
  def label(self) -> str:
    """The case in words."""
    size, dtype = self.config.batch_size, self.config.model.dtype
    return f'{self.network.label}, {self.framework}, {self.mode}, {dtype}, batch {size}'

  @property
  def module(self) -> nn.Module:
    """The network in Flax."""
    if self.network.textbook:
      model = self.config.model
      se = self.network.name == TEXTBOOK_SE
      return TextbookResNet50(num_classes=model.num_classes, se=se, dtype=model.dtype)
    return build_model(self.config)

  @property
  def se(self) -> bool:
    """True if the network has squeeze-and-excitation."""
    return self.network.name == TEXTBOOK_SE or model_info(self.network.registered).se


Measured = dict[Case, tuple[Workload, Timing]]


class OutOfMemory(UserError):
  """Networks that fit the memory of the devices one by one do not fit it together."""


@dataclasses.dataclass(frozen=True)
class Bench:
  """The devices and frameworks on which networks are measured.

  Attributes:
    mesh: the devices.
    image_size: side of the images in pixels; None is that which each network was published for.
    torch_device: `cuda` or `cpu` to measure PyTorch too; None leaves it out.
    torch_compile: mode of `torch.compile`, or `off`.
    runtimes: of exported files, which are measured too.
    torch_python: the Python with torchvision, for detectors; None: this one.
    versions: of what the numbers of PyTorch and of files depend on.
  """

  mesh: Mesh
  image_size: int | None = None
  torch_device: str | None = None
  torch_compile: str = 'off'
  runtimes: tuple[str, ...] = ()
  torch_python: str | None = None
  versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @classmethod
  def create(
    cls,
    devices: int | None = None,
    image_size: int | None = None,
    against: str | None = None,
    torch_compile: str | None = None,
    torch_python: str | None = None,
    task: str = CLASSIFICATION,
  ) -> 'Bench':
    """Returns a bench on the first `devices` devices, by default all.

    Args:
      devices: how many to use.
      image_size: see the class.
      against: `torch`, `exported`, or None.
      torch_compile: see the class; None is `default` on a GPU and `off` on a CPU. Detectors are not
        compiled.
      torch_python: see the class.
      task: of the networks.

    Raises:
      UserError: there are fewer devices, or PyTorch cannot use what JAX uses.
    """
    if torch_compile:
      errors.one_of('--torch_compile', torch_compile, _TORCH_COMPILE)
    if against is not None:
      errors.one_of('--against', against, _AGAINST)
      # Or JAX takes most of a GPU's memory for itself; and threads of PyTorch spin while they wait,
      # taking cores from XLA's and losing them to whatever else runs, which makes both slow.
      os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
      os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    elif torch_compile:
      raise UserError('--torch_compile has no effect without --against=torch; leave it out.')
    if (devices or 1) > len(runtime.all_devices()):
      raise UserError(f'--devices={devices}: there are {runtime.describe_devices()}; use less.')
    mesh = runtime.data_mesh(devices)
    if torch_python and (task == CLASSIFICATION or not against):
      raise UserError('--torch_python is for detectors with --against=torch; leave it out.')
    if not against:
      return cls(mesh, image_size)
    if task != CLASSIFICATION:
      return cls._of_detectors(mesh, image_size, against, torch_compile, torch_python)
    device = torch_models.check_device(mesh.size)
    runtimes: tuple[str, ...] = ()
    if against != TORCH:
      exported_models.check(device)
      runtimes = tuple(exported_models.RUNTIMES)
    compiled = torch_compile or ('off', 'default')[device == 'cuda']
    versions = torch_models.versions() | (exported_models.versions() if runtimes else {})
    return cls(mesh, image_size, device, compiled, runtimes, versions=versions)

  @classmethod
  def _of_detectors(
    cls,
    mesh: Mesh,
    image_size: int | None,
    against: str,
    torch_compile: str | None,
    torch_python: str | None,
  ) -> 'Bench':
    if against != TORCH or (torch_compile or 'off') != 'off':
      raise UserError(
        'detectors are measured with --against=torch alone, and without --torch_compile.'
      )
    if mesh.size > 1:
      raise UserError(f'--against=torch compares on one device, not {mesh.size}; add --devices=1.')
    versions = torch_detectors.check(torch_python)
    device = 'cpu' if jax.default_backend() == 'cpu' else 'cuda'
    return cls(mesh, image_size, device, 'off', torch_python=torch_python, versions=versions)

  def cases(
    self,
    wanted: Sequence[Network],
    *,
    mode: str,
    dtype: str,
    batch_size: int,
    steps_per_dispatch: int = 1,
    overrides: Sequence[str] = (),
  ) -> list[Case]:
    """Returns each network in each framework that has it.

    Args:
      wanted: the networks.
      mode: `train` or `inference`.
      dtype: of the computation.
      batch_size: images a step, over all devices.
      steps_per_dispatch: steps in a loop on the device.
      overrides: `--config.field=value` for all; fields of `model.se` for those with SE alone.

    Raises:
      UserError: a network, field or value does not exist, or they do not fit together.
    """
    if batch_size % self.mesh.size:
      near = max(batch_size // self.mesh.size, 1) * self.mesh.size
      raise UserError(
        f'a batch of {batch_size} is not divisible by the {self.mesh.size} devices; use {near} or '
        f'{near + self.mesh.size}, or --devices=1.'
      )
    found = []
    for network in wanted:
      se = model_info(network.registered).se
      config = throughput.configuration(
        network.registered, batch_size=batch_size, dtype=dtype, image_size=self.image_size
      )
      config.steps_per_dispatch = steps_per_dispatch
      frameworks = [OURS]
      if self.torch_device and not network.textbook:
        torch_models.as_in_torch(config)
        in_torch = torch_models.variant(network.name) is not None
        frameworks += [TORCH] if in_torch else []
        frameworks += [r for r in self.runtimes if in_torch or not r.startswith(TORCH)]
      for_all = [o for o in overrides if se or not o.startswith(reading.FIELD + SE_FIELD)]
      for override in (*for_all, *(reading.FIELD + change for change in network.changes)):
        reading.apply(config, override)
      config_lib.check(config)
      found += [Case(network, framework, mode, config) for framework in frameworks]
    return found

  def not_in_torch(self, wanted: Sequence[Network]) -> list[str]:
    """Returns the names of the networks that timm, or torchvision, has not, after saying so.

    Raises:
      UserError: it has none of them.
    """
    if not self.torch_device:
      return []
    task = model_info(wanted[0].registered).task
    library = 'timm' if task == CLASSIFICATION else 'torchvision'
    missing = [n.name for n in wanted if torch_models.variant(n.name) is None]
    if len(missing) == len(wanted):
      known = ', '.join(torch_models.known(task))
      raise UserError(f'--against=torch: {library} has no {", ".join(missing)}; it has {known}.')
    for name in missing:
      print(f'{library} has no {name}: it is measured without PyTorch')
    return missing

  def prepare(self, case: Case) -> Workload:
    """Returns the compiled step of a case, with all that it needs on the devices."""
    if case.framework == TORCH:
      if task_of(case.config) != CLASSIFICATION:
        return torch_detectors.prepare(
          case.config, case.mode, str(self.torch_device), self.torch_python
        )
      return torch_models.prepare(
        case.config, case.mode, str(self.torch_device), self.torch_compile
      )
    if case.framework in self.runtimes:
      return exported_models.prepare(case.config, case.framework)
    return throughput.prepare(case.config, case.mode, self.mesh, case.module)

  def measure(
    self, wanted: Sequence[Case], repeats: int, seconds: float, *, each: bool = False
  ) -> tuple[Measured, list[Case]]:
    """Times cases in turn; returns what was measured, and the cases that did not fit into memory.

    Args:
      wanted: the cases.
      repeats: turns.
      seconds: of a case in a turn, about.
      each: see `timing.in_turn`.

    Raises:
      OutOfMemory: they do not fit all at once.
    """
    workloads = self._prepare_all(wanted)
    too_large = [case for case in wanted if case not in workloads]
    try:
      timings = timing.in_turn(workloads, repeats, seconds, each=each)
    except Exception as error:
      if not timing.is_out_of_memory(error):
        raise
      raise OutOfMemory(
        f'out of memory with {len(workloads)} networks on a device at once; give fewer, or a '
        'smaller batch.'
      ) from error
    return {case: (workloads[case], timings[case]) for case in workloads}, too_large

  def _prepare_all(self, wanted: Sequence[Case]) -> dict[Case, Workload]:
    """Prepares the cases that fit into memory, several at a time where that is faster.

    For a GPU it is not: XLA chooses kernels by timing them there, and two compilations at once
    disturb each other's timing. An H200 said so, and five networks took it over 3 minutes, of which
    one alone takes 12 seconds.
    """

    def attempt(case: Case) -> Workload | None:
      print(f'compiling {case.label} …', flush=True)
      try:
        return self.prepare(case)
      except Exception as error:
        if not timing.is_out_of_memory(error):
          raise
        print(f'out of memory: {case.label}', flush=True)
        return None

    ours = [case for case in wanted if case.framework == OURS]
    at_once = 1 if jax.default_backend() == 'gpu' else max(runtime.usable_cores() // _CORES, 1)
    with futures.ThreadPoolExecutor(at_once) as pool:
      prepared = dict(zip(ours, pool.map(attempt, ours), strict=True))
    prepared |= {case: attempt(case) for case in wanted if case.framework != OURS}
    return {case: work for case in wanted if (work := prepared[case])}

  def describe(self, case: Case) -> dict[str, Any]:
    """Returns what a row of results says about a case, beside the numbers."""
    config = case.config
    found = {
      'network': case.network.label,
      'model': case.network.name,
      'se': case.se,
      'options': network_options(config),
      'framework': case.framework,
      'mode': case.mode,
      'batch_size': config.batch_size,
      'batch_per_device': config.batch_size // self.mesh.size,
      'devices': self.mesh.size,
      'image_size': config.data.image_size or list(programs.image_sides(config)),
      'dtype': config.model.dtype,
      'bn_scope': config.bn.scope,
      'steps_per_dispatch': config.steps_per_dispatch,
    }
    form = torch_models.variant(case.network.name)
    if form and case.framework == TORCH:
      found['torch_model'] = form.name
      found['torch_compile'] = self.torch_compile
      found |= {'options': {}, 'bn_scope': 'local', 'steps_per_dispatch': 1}
    return found

  def record(self, what: str, tool: str, argv: list[str]) -> dict[str, Any]:
    """Returns the head of a file of results; see `summary.record_head`."""
    found = {**summary.record_head(what, tool, argv), **machine.describe()}
    found['versions'] |= self.versions
    return found


def pairs(measured: Measured) -> Iterator[tuple[str, Case, Case]]:
  """Yields what is to be compared, as `(kind, first, second)`.

  Kinds: `se_tax`, a network and its twin without SE; `against_torch`, ours and theirs; `changes`, a
  network with changes and without them; `over_textbook`, one of ours and the textbook's.
  """
  for a, b in itertools.permutations(measured, 2):
    if a.config.batch_size != b.config.batch_size:
      continue
    if a.framework != b.framework:
      if a.network == b.network and a.framework == OURS:
        yield 'against_torch', a, b
      continue
    if a.network.without_se == b.network and a.network.name != b.network.name:
      yield 'se_tax', a, b
    elif a.network.name == b.network.name and a.network.changes and not b.network.changes:
      yield 'changes', a, b
    elif b.network.name == TEXTBOOK and not a.network.textbook and not b.network.changes:
      yield 'over_textbook', a, b


def comparison(kind: str, first: Case, second: Case, measured: Measured) -> dict[str, Any]:
  """Returns one entry of the list `kind` of a file of results, over the turns.

  `against_torch` has `ratio`, the speed of ours over theirs; the others have `percent`, the time
  that the first adds to that of the second.
  """
  a, b = measured[first][1], measured[second][1]
  if kind == 'against_torch':
    images = [measured[case][0].images for case in (first, second)]
    scale = images[0] / images[1]
    number = {'ratio': spread([scale * r for r in timing.ratios(b, a)])}
  else:
    number = {'percent': timing.added_percent(a, b)}
  return {
    'network': first.network.label,
    'over': second.framework if kind == 'against_torch' else second.network.label,
    'framework': first.framework,
    'mode': first.mode,
    'dtype': first.config.model.dtype,
    'batch_size': first.config.batch_size,
    **number,
  }
