"""The training step of a run on its own data, alone and with other runs on the same devices."""

import contextlib
import copy
import itertools
import multiprocessing
import os
import queue
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import cli, config as config_lib, runtime
from senet_jax.config.length import total_steps
from senet_jax.data import feeds
from senet_jax.errors import UserError
from senet_jax.measure import programs, throughput, timing, trace
from senet_jax.measure.timing import Workload
from senet_jax.measure.wanted import Wanted
from senet_jax.reporting.statistics import spread
from senet_jax.training import setup
from senet_jax.workdir import network

FED, IN_PLACE = 'fed', 'in place'
# Dispatches in the trace that shows how busy the device is, and the most steps of one: each step of
# a deep network is a thousand kernels.
_TRACED, _STEPS_TRACED = 3, 20
# Other processes import JAX and compile before they can begin.
_PATIENCE_S = 600


def compare(
  config: ConfigDict, mesh: Mesh, wanted: Wanted, *, in_place: bool, counts: Sequence[int]
) -> dict[str, Any]:
  """Measures the training step of a run, and several runs at a time in the best way of those.

  Args:
    config: of the run.
    mesh: the devices.
    wanted: see `measure`.
    in_place: see `measure`.
    counts: of runs at a time.

  Returns:
    `rows` of `measure`, the `best` of them, and `together`, the rows of `together`.

  Raises:
    UserError: as of `measure` and `together`.
  """
  rows = measure(config, mesh, wanted, in_place=in_place)
  fed = [row for row in rows if row['kind'] == FED]
  best = max(fed, key=lambda row: row['images_per_second']['median'])
  case = _configured(config, best['dtype'], best['steps_per_dispatch'])
  found = together(case, counts, 2 * wanted.seconds) if counts else []
  return {'rows': rows, 'best': best, 'together': found}


def measure(
  config: ConfigDict, mesh: Mesh, wanted: Wanted, *, in_place: bool = False
) -> list[dict[str, Any]]:
  """Measures the training step of a run as the run feeds it.

  Args:
    config: of the run.
    mesh: the devices.
    wanted: has the dtypes, the steps of a dispatch, of a stream only 1, repeats and seconds.
    in_place: measure the same step on images that stay on the device, too.

  Returns:
    A row for each dtype and number of steps, of the kind `FED` or `IN_PLACE`, with the rate, the
    share of the time that went into waiting for data, the CPU cores in use, and of what is fed the
    share of the time that the device was busy, from a trace.

  Raises:
    UserError: the configuration or its data is not usable.
  """
  workloads, feed = {}, None
  for dtype, steps in itertools.product(wanted.dtypes, wanted.dispatches):
    case = _configured(config, dtype, steps)
    print(f'compiling {config.model.name}, {dtype}, {steps} steps a dispatch …', flush=True)
    # What lies on the device can be read by all; a stream is read in order, by one of them.
    fed, feed = prepare(case, mesh, None if feeds.streams(config) else feed)
    workloads[FED, dtype, steps] = fed
    if in_place:
      case.model.num_classes = feed.split.num_classes
      workloads[IN_PLACE, dtype, steps] = throughput.prepare(case, 'train', mesh)
  timings = timing.in_turn(workloads, wanted.repeats, wanted.seconds)
  rows = []
  for (kind, dtype, steps), work in workloads.items():
    found = timings[kind, dtype, steps]
    rows.append(
      {
        'model': config.model.name,
        'data': config.data.name + (' (fake)' if config.data.fake else ''),
        'kind': kind,
        'dtype': dtype,
        'steps_per_dispatch': steps,
        'batch_size': config.batch_size,
        'images_per_second': spread([work.images / s for s in found.per_turn]),
        'waiting_share': spread(found.waiting),
        'cpu_cores_used': spread(found.cores),
        'device_busy_share': _busy(work, steps) if kind == FED else None,
        'compile_s': work.compile_s,
      }
    )
  return rows


def _configured(config: ConfigDict, dtype: str, steps: int) -> ConfigDict:
  case = copy.deepcopy(config)
  case.model.dtype, case.steps_per_dispatch = dtype, steps
  if case.data.train_size:  # of several the last one, which costs most
    case.data.update({'train_size': case.data.train_size[-1:], 'train_size_boundaries': ()})
  config_lib.check(case)
  if steps > 1 and feeds.streams(case):
    raise UserError(
      f'--steps_per_dispatch={steps}: {case.data.name} is streamed, one step at a time; use 1.'
    )
  return case


def prepare(
  config: ConfigDict, mesh: Mesh, feed: feeds.TrainingFeed | None = None
) -> tuple[Workload, feeds.TrainingFeed]:
  """Returns the training step of a run, compiled and fed by its own data, and the feed.

  Args:
    config: of the run; `steps_per_dispatch` steps are one dispatch, but no more than an epoch.
    mesh: the devices.
    feed: to be used instead of a new one.

  Raises:
    UserError: the configuration or its data is not usable.
  """
  setup.check_batch(config, mesh.size)
  network.check_model(config)
  feed = feed or feeds.training_feed(config, mesh)
  at_once = min(config.steps_per_dispatch, max(feed.split.num_examples // config.batch_size, 1))
  model = network.build_model(config, feed.split.num_classes)
  # The program of the run itself, which then finds it in the cache of compiled programs.
  one = programs.training_step(
    config,
    model,
    feed,
    mesh,
    total_steps=total_steps(config, feed.split.num_examples),
    steps_per_epoch=feed.split.num_examples / config.batch_size,
    looped=config.steps_per_dispatch > 1,
  )
  state = one.first_state(programs.variables(config, model, mesh))
  inputs, _ = feed.inputs(0, 1)
  compiled, facts = programs.compile_timed(one.program, state, inputs, np.int32(1))
  step, waited = 0, 0.0

  def dispatch(most: int = at_once) -> None:
    nonlocal state, step, waited
    asked = time.monotonic()
    inputs, count = feed.inputs(step, most)
    waited += time.monotonic() - asked
    state, _ = compiled(state, inputs, np.int32(count))
    step += count

  work = Workload(
    images=at_once * config.batch_size,
    dispatch=dispatch,
    wait=lambda: jax.block_until_ready(state),
    waited=lambda: waited,
    **facts,
  )
  return work, feed


def _busy(work: Workload, at_once: int) -> float | None:
  with tempfile.TemporaryDirectory() as directory:
    with jax.profiler.trace(directory):
      for _ in range(_TRACED):
        work.dispatch(min(at_once, _STEPS_TRACED))
      work.wait()
    return trace.utilisation(directory)


# --- several runs at a time ----------------------------------------------------------------------


def together(config: ConfigDict, counts: Sequence[int], seconds: float) -> list[dict[str, Any]]:
  """Measures how many images a second several runs train on together, on the same devices.

  Each run is a process of its own; all begin to count at the same moment.

  Args:
    config: of every run, with dtype and steps a dispatch.
    counts: of runs at a time.
    seconds: for which they run.

  Returns:
    For each count `runs`, and `images_per_second` of all of them and `each` of them.

  Raises:
    UserError: the devices serve one process alone, or a process failed.
  """
  if jax.default_backend() == 'tpu' and max(counts) > 1:
    raise UserError('--together: a TPU serves one process at a time; leave it out.')
  rows = []
  for count in counts:
    rates = _run_together(config, count, seconds)
    rows.append({'runs': count, 'images_per_second': sum(rates), 'each': rates})
  return rows


def _run_together(config: ConfigDict, count: int, seconds: float) -> list[float]:
  context = multiprocessing.get_context('spawn')
  barrier, results = context.Barrier(count), context.Queue()
  arguments = (config.to_dict(), barrier, results, seconds)
  members = [context.Process(target=_member, args=arguments, daemon=True) for _ in range(count)]
  with _for_members():
    for member in members:
      member.start()
  found: list[Any] = []
  deadline = time.monotonic() + _PATIENCE_S + seconds
  try:
    while len(found) < count:
      with contextlib.suppress(queue.Empty):
        found.append(results.get(timeout=1))
      dead = [m.exitcode for m in members if m.exitcode]
      failed = [what for what in found if isinstance(what, str)]
      if dead or failed or time.monotonic() > deadline:
        why = failed[0] if failed else f'a process ended with status {dead[0]}' if dead else 'slow'
        raise UserError(f'--together={count}: {why}; use fewer.')
  finally:
    for member in members:
      member.terminate()
      member.join()
  return found


@contextlib.contextmanager
def _for_members() -> Iterator[None]:
  """Lets the processes that start in the block share the memory of a GPU, and end with this one."""
  wanted = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', cli.PARENT: str(os.getpid())}
  before = {name: os.environ.get(name) for name in wanted}
  os.environ.update(wanted)
  try:
    yield
  finally:
    for name, value in before.items():
      os.environ.pop(name)
      if value is not None:
        os.environ[name] = value


def _member(values: dict[str, Any], barrier, results, seconds: float) -> None:
  """Trains in a process of its own, and puts images a second, or what went wrong, into a queue."""
  cli.end_with_parent()
  try:
    runtime.use_compilation_cache()
    work, _ = prepare(config_lib.from_dict(values), runtime.data_mesh())
    for _ in range(timing.WARM_UP):
      work.dispatch()
      work.wait()
    barrier.wait(_PATIENCE_S)
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
      work.dispatch()
      work.wait()
      count += 1
    results.put(count * work.images / passed)
  except Exception as error:  # at the border of the process; the one that waits reports it
    barrier.abort()
    results.put(str(error).splitlines()[0][:200] if str(error) else type(error).__name__)
