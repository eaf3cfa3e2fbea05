"""Adds up where the time of a program goes, by kind of work and layer, from a JAX trace.

The trace says when each operation ran, and by its name in the optimised program; the text of that
program says what the operation is and to which layer it belongs. The same on GPU, TPU and CPU, but
for where the vendors put the operations in a trace (`_operations`).
"""

import collections
import dataclasses
import pathlib
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from senet_jax.errors import UserError
from senet_jax.measure import hlo

PRODUCTS = 'convolution and matrix products'
BN_SE = 'BN + SE'
POOLING = 'pooling'
OPTIMIZER = 'optimizer'
LOSS = 'loss'
COLLECTIVES = 'collectives'
COPIES = 'copies'
OTHER = 'other'
UNATTRIBUTED = 'unattributed'

# Instructions that move, convert or fill, and calculate nothing.
_MOVES = {'bitcast-convert', 'broadcast', 'concatenate', 'convert', 'copy', 'dynamic-slice',
          'dynamic-update-slice', 'pad', 'reshape', 'reverse', 'slice', 'transpose'}  # fmt: skip
# What says nothing about the work of a fusion.
_NO_WORK = {'async', 'bitcast', 'constant', 'fusion', 'get-tuple-element', 'iota', 'parameter',
            'tuple'}  # fmt: skip
# Their time is that of the instructions that they run, which have events of their own.
_CONTAINERS = ('call', 'conditional', 'while')

# What an instruction is: the first rule that holds. A fusion is all that is fused in it: where XLA
# fuses the sums of BN into a convolution, as it does for TPU, their time is the convolution's.
_RULES = (
  (COLLECTIVES, lambda op: op.opcodes & set(hlo.COLLECTIVES)),
  (COPIES, lambda op: op.opcodes <= _MOVES),
  # Before the products, so that all of a gate is there, its two small products too.
  (BN_SE, lambda op: re.search(r'(?i)(^|/)(se|squeeze\w*)(/|$)', op.layer)),
  (PRODUCTS, lambda op: op.opcodes & {'convolution', 'dot'}),
  # Calls of libraries: `__cudnn$convForward`, `__cublas$gemm`, `__onednn$matmul`, …
  (PRODUCTS, lambda op: re.search(r'conv|gemm|matmul|dot', op.target)),
  (POOLING, lambda op: re.search(r'max_pool|avg_pool|reduce_window|select_and_', op.op_name)),
  (LOSS, lambda op: re.search(r'\bloss\b', op.op_name)),
  (OPTIMIZER, lambda op: re.search(r'\boptimizer\b', op.op_name)),
  # What is beside the product: a bias, padding, a convolution that is written as sums.
  (PRODUCTS, lambda op: re.search(r'(?i)(conv\w*|fc\d*|dense_\d+)$', op.layer)),
  # What is left in a network: normalisation, and the additions and ReLUs of its blocks.
  (BN_SE, lambda op: re.search(r'(?i)bn|norm|block|branch|stage|stem', op.layer)),
  (BN_SE, lambda op: '_stem/' in op.op_name),  # a method, whose ReLU belongs to no layer
  (OTHER, lambda op: True),
)
# What a kernel is whose instruction is unknown, by its own name.
_KERNELS = ((COLLECTIVES, r'(?i)(nccl|rccl)'), (COPIES, r'(?i)mem(cpy|set)'), (UNATTRIBUTED, ''))


@dataclasses.dataclass(frozen=True)
class Kernel:
  """The time of one instruction, or of one kernel whose instruction is unknown.

  Attributes:
    name: of the instruction in the program's text, or else of the event.
    layer: as of `hlo.layer_of`; empty if it belongs to none or is unknown.
    kind: as of the table of rules.
    seconds: of one device and one step, without what runs inside of it.
    times: how often it ran on one device in one step.
    bytes: read and written on one device in one step; None if unknown, or done beside others.
  """

  name: str
  layer: str
  kind: str
  seconds: float
  times: float
  bytes: int | None

  @property
  def bandwidth(self) -> float | None:
    """The bytes a second that it moves."""
    return self.bytes / self.seconds if self.bytes and self.seconds else None


@dataclasses.dataclass(frozen=True)
class Reduced:
  """The times of a program in a trace.

  The times of operations that run at the same time, on several streams of a GPU or threads of a
  CPU, all count, so that `seconds` can be more than `busy_s`.

  Attributes:
    file: the trace, relative to its directory.
    devices: how many there are in it.
    steps: how many there are in it.
    wall_s: from a device's first operation to its last, by step; the mean of the devices.
    busy_s: of that, when at least one operation ran.
    kernels: the largest first; their seconds are all that was recorded.
  """

  file: str
  devices: int
  steps: int
  wall_s: float
  busy_s: float
  kernels: tuple[Kernel, ...]

  @property
  def idle_share(self) -> float:
    """The part of the wall time in which nothing ran on a device, 0 to 1."""
    return max(1 - self.busy_s / self.wall_s, 0.0)

  @property
  def seconds(self) -> float:
    """The seconds of all operations of one device in one step."""
    return sum(kernel.seconds for kernel in self.kernels)

  def by(self, field: str) -> dict[str, float]:
    """Returns seconds by `kind` or `layer`, the largest first; they add up to `seconds`."""
    sums: dict[str, float] = collections.defaultdict(float)
    for kernel in self.kernels:
      sums[getattr(kernel, field)] += kernel.seconds
    return dict(_largest_first(sums))

  def report(self, top: int = 12) -> dict:
    """Returns what `tools.profile` writes: all kinds and layers, and the `top` largest kernels."""
    return {
      'file': self.file,
      'devices': self.devices,
      'steps': self.steps,
      'wall_s': self.wall_s,
      'busy_s': self.busy_s,
      'idle_share': self.idle_share,
      'operations_s': self.seconds,
      'kinds': self.by('kind'),
      'layers': self.by('layer'),
      'kernels': [
        {**dataclasses.asdict(kernel), 'bytes_per_second': kernel.bandwidth}
        for kernel in self.kernels[:top]
      ],
    }


@dataclasses.dataclass(slots=True)
class _Event:
  """An operation in a trace; times in nanoseconds.

  Attributes:
    op: the name of the instruction, or of the kernel.
    kernel: the name of the kernel, or of the instruction.
    module: the program; empty if unknown.
    start: when it started.
    end: when it returned.
    own: of that, without the operations inside of it.
    done: when its work was done; later than `end` if that went on in other threads.
  """

  op: str
  kernel: str
  module: str
  start: float
  end: float
  own: float
  done: float


def reduce(directory: str | pathlib.Path, module: hlo.Module) -> Reduced:
  """Returns where the time of a program goes, from the newest trace under a directory.

  An operation of another program, or with a name that the program does not have, is of the kind
  `unattributed`, but for copies and collectives whose kernels say what they are.

  Args:
    directory: as given to `jax.profiler.trace`.
    module: the program. Each `jax.profiler.StepTraceAnnotation` in the trace is one step of it;
      without any, all of the trace is.

  Raises:
    UserError: there is no trace, it cannot be read, or nothing ran in it.
  """
  file, devices, steps = _read(pathlib.Path(directory))
  if not devices:
    raise UserError(f'{file} has no operation of a device; trace steps that run to their end.')
  instructions = {i.name: i for inside in module.computations.values() for i in inside.values()}
  instructions |= {item.instruction.name: item.instruction for item in module.traffic}
  # In a CUDA graph `hlo_op` is the graph, and the kernel has the name of its instruction; of equal
  # kernels that of the first, so that their layer may be another one's, but not their kind.
  of_kernel = {re.sub(r'[.\-]', '_', name): name for name in instructions}
  moved: collections.Counter[str] = collections.Counter()
  runs_in_step: collections.Counter[str] = collections.Counter()
  for item in module.traffic:
    if not item.instruction.opcode.endswith('-start'):  # whose work is not done in its own time
      moved[item.instruction.name] += item.bytes
      runs_in_step[item.instruction.name] += item.times

  seconds: dict[tuple[str, bool], float] = collections.defaultdict(float)
  times: collections.Counter[tuple[str, bool]] = collections.Counter()
  in_graphs: collections.Counter[str] = collections.Counter()
  for event in (event for events in devices.values() for event in events):
    name = event.op if event.op in instructions else of_kernel.get(event.kernel, event.op)
    known = name in instructions and event.module in ('', module.name)
    late = 0 if known and instructions[name].opcode in _CONTAINERS else event.done - event.end
    seconds[name, known] += (event.own + late) / 1e9
    times[name, known] += 1
    in_graphs[name] += name != event.op
  runs = len(devices) * steps
  kernels = []
  for (name, known), total in _largest_first(seconds):
    if known:
      kind, layer = _kind_and_layer(instructions[name], module)
    else:
      kind, layer = next(kind for kind, pattern in _KERNELS if re.match(pattern, name)), ''
    of_others = in_graphs[name] > runs * runs_in_step[name]
    size = moved.get(name) if known and not of_others else None
    kernels.append(Kernel(name, layer, kind, total / runs, times[name, known] / runs, size))
  return Reduced(
    file=str(file.relative_to(directory)),
    devices=len(devices),
    steps=steps,
    wall_s=sum(map(_wall, devices.values())) / 1e9 / runs,
    busy_s=sum(map(_busy, devices.values())) / 1e9 / runs,
    kernels=tuple(kernels),
  )


def _largest_first(seconds: dict[Any, float]) -> list[tuple[Any, float]]:
  return sorted(seconds.items(), key=lambda item: item[1], reverse=True)


def utilisation(directory: str | pathlib.Path) -> float | None:
  """Returns the share of the time in which a device was busy, 0 to 1, from the newest trace.

  It is of the time from a device's first operation to its last, and the mean of the devices. No
  text of the program is needed, so that any trace will do, such as that of a run with
  `config.profile.start` in `WORKDIR/profile`.

  Args:
    directory: of the trace.

  Returns:
    The share; None if no operation of a device is in the trace.

  Raises:
    UserError: there is no trace, or it cannot be read.
  """
  _, devices, _ = _read(pathlib.Path(directory))
  shares = [_busy(events) / _wall(events) for events in devices.values()]
  return sum(shares) / len(shares) if shares else None


def table(report: dict, rows: int = 12) -> Iterator[str]:
  """Yields the lines of `Reduced.report`, as `tools.profile` prints them."""
  total = report['operations_s']

  def line(seconds: float, *cells: str) -> str:
    return f'  {100 * seconds / total:5.1f} %  {1e3 * seconds:9.3f} ms  ' + '  '.join(cells)

  yield (
    f'where the time goes ({report["steps"]} steps, {1e3 * report["wall_s"]:.3f} ms each, '
    f'device idle {100 * report["idle_share"]:.1f} %)'
  )
  if total > 1.01 * report['busy_s']:
    yield (
      f'  operations overlap: they take {1e3 * total:.3f} ms in all, in '
      f'{1e3 * report["busy_s"]:.3f} ms'
    )
  yield from (line(seconds, kind) for kind, seconds in report['kinds'].items())
  yield 'largest layers'
  layers = list(report['layers'].items())[:rows]
  yield from (line(seconds, layer or '(no layer)') for layer, seconds in layers)
  yield 'largest kernels'
  for kernel in report['kernels'][:rows]:
    speed = kernel['bytes_per_second']
    cells = [kernel['layer'] or f'({kernel["kind"]})', kernel['name']]
    yield line(kernel['seconds'], *cells, *([f'{speed / 1e9:.1f} GB/s'] if speed else []))


@dataclasses.dataclass(frozen=True)
class _Op:
  """The properties of an instruction, and of all that is fused in it, that the rules see."""

  opcodes: set[str]
  target: str
  op_name: str
  layer: str


def _kind_and_layer(instruction: hlo.Instruction, module: hlo.Module) -> tuple[str, str]:
  inside = [instruction, *_fused(instruction, module)]
  # XLA leaves some fusions without a name: then it is that of the last fused instruction with one.
  op_name = next(filter(None, (i.op_name for i in (inside[0], *inside[:0:-1]))), '')
  layer = hlo.layer_of(op_name)
  target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
  opcodes = {re.sub(r'-(start|update|done)$', '', i.opcode) for i in inside}
  op = _Op(
    opcodes=opcodes - _NO_WORK,
    target=target[1] if target else '',
    op_name=op_name,
    layer=layer.removesuffix(' backward'),
  )
  return next(kind for kind, holds in _RULES if holds(op)), layer


def _fused(instruction: hlo.Instruction, module: hlo.Module) -> Iterator[hlo.Instruction]:
  """Yields the instructions of the computations that a fusion or an asynchronous start calls."""
  for inner in module.computations.get(instruction.calls('calls'), {}).values():
    yield inner
    yield from _fused(inner, module)


def _wall(events: list[_Event]) -> float:
  return max(event.done for event in events) - min(event.start for event in events)


def _busy(events: list[_Event]) -> float:
  """Returns the length of the union of the events' intervals."""
  busy, until = 0.0, float('-inf')
  for start, done in sorted((event.start, event.done) for event in events):
    busy += max(done - max(start, until), 0)
    until = max(until, done)
  return busy


def _read(directory: pathlib.Path) -> tuple[pathlib.Path, dict[str, list[_Event]], int]:
  """Returns the newest trace: its operations by device, and the number of its steps."""
  # Of jaxlib, which reads the protocol buffers, so that no other package is needed.
  reader = getattr(jax.profiler, 'ProfileData', None)
  if reader is None:
    raise UserError(
      f'jax {jax.__version__} cannot read traces: it has no jax.profiler.ProfileData; install the '
      'jax of constraints.txt.'
    )
  files = sorted(directory.rglob('*.xplane.pb'), key=lambda path: (path.stat().st_mtime_ns, path))
  if not files:
    raise UserError(
      f'{directory} has no trace (*.xplane.pb); give the directory that jax.profiler.trace wrote '
      'to, such as WORKDIR/profile.'
    )
  try:
    data = reader.from_file(str(files[-1]))
  except RuntimeError as e:  # also of an operating system's error
    raise UserError(f'{files[-1]} cannot be read ({e}); remove it and trace again.') from e
  with warnings.catch_warnings():
    # jaxlib makes its iterators when they are first used, of which Python 3.13 warns; where
    # warnings are errors, as in tests, that ends the process.
    warnings.simplefilter('ignore', DeprecationWarning)
    devices, steps = _operations(data)
  return files[-1], devices, steps


# Sources for what follows, all in github.com/openxla/xla unless noted: the names of planes and
# lines, xla/tsl/profiler/utils/xplane_schema.cc; GPU, xla/backends/profiler/gpu/cupti_collector.cc
# (rocm_collector.cc is alike) and xla/backends/gpu/runtime/annotation.cc; CPU,
# xla/backends/cpu/runtime/thunk_executor.cc; the reader, xla/python/profiler/profile_data_lib.cc.
_DEVICE = re.compile(r'/device:\w+:\d+')  # not `/device:TPU:0 SparseCore 1`
_HOST = '/host:CPU'
# Events of a GPU's streams in which memory is managed or merely held.
_MEMORY = {'memalloc_details', 'MemFree_details', 'MemoryResidency_details'}


def _operations(data) -> tuple[dict[str, list[_Event]], int]:
  """Returns the operations by device and the number of annotated steps.

  A GPU has a line for each stream, whose events are kernels with the statistic `hlo_op`; lines
  that xprof derives from them (derived_timeline.cc of github.com/openxla/xprof), such as `XLA Ops`,
  would count them twice. A TPU has no streams and one line `XLA Ops`; what runs beside it is in
  `Async XLA Ops`, and what is waited for of that again in `XLA Ops`. A CPU has no plane of its own.
  """
  devices: dict[str, list[_Event]] = {}
  host: dict[str, list[_Event]] = {}
  steps = 0
  for plane in data.planes:
    if _DEVICE.fullmatch(plane.name):
      lines = list(plane.lines)
      streams = [line for line in lines if line.name.startswith('Stream')]
      streams = streams or [line for line in lines if line.name == 'XLA Ops']
      events = [event for line in streams for event in _exclusive(_device_events(line))]
      if events:
        devices[plane.name] = events
    elif plane.name == _HOST:
      host, steps = _host_operations(plane)
  return devices or host, max(steps, 1)


def _device_events(line) -> Iterator[_Event]:
  for event in line.events:
    stats = dict(event.stats)
    if event.duration_ns > 0 and not _MEMORY & stats.keys():
      yield _event(event, stats)


def _host_operations(plane) -> tuple[dict[str, list[_Event]], int]:
  """Returns the operations of a CPU by device, and the number of steps the program announced.

  An operation may return before its work is done, as convolutions do; that is told by an event
  `end: NAME` of any thread, which consumes what the operation's event produces.
  """
  found, done, steps = [], {}, 0
  for line in plane.lines:
    events = []
    for event in line.events:
      stats = dict(event.stats)
      if 'hlo_op' in stats and event.duration_ns > 0:
        events.append(_event(event, stats))
        found.append((events[-1], str(stats.get('device_ordinal', 0)), stats.get('_p')))
      elif event.name.startswith('end: '):
        done[stats.get('_c')] = event.end_ns
      steps += 'step_num' in stats
    _exclusive(events)
  devices = collections.defaultdict(list)
  for event, device, producer in found:
    event.done = max(event.end, done.get(producer, 0))
    devices[device].append(event)
  return dict(devices), steps


def _event(event, stats: dict) -> _Event:
  """Returns one operation; a GPU's `hlo_op` may be a path, a TPU has it in the event's name."""
  text = re.match(r'%([\w.\-]+) = ', event.name)
  op = stats.get('hlo_op') or (text[1] if text else event.name)
  return _Event(
    op=op.rsplit('::', 1)[-1] if 'hlo_op' in stats else op,
    kernel=event.name,
    module=str(stats.get('hlo_module', '')).split('(')[0],
    start=event.start_ns,
    end=event.end_ns,
    own=event.duration_ns,
    done=event.end_ns,
  )


def _exclusive(events: Iterable[_Event]) -> list[_Event]:
  """Returns the events of one line, each with its time without that of the events inside it."""
  events = sorted(events, key=lambda event: (event.start, -event.end))
  outer: list[_Event] = []
  for event in events:
    while outer and outer[-1].end <= event.start:
      outer.pop()
    if outer:
      outer[-1].own -= min(event.end, outer[-1].end) - event.start
    outer.append(event)
  return events
