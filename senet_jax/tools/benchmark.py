r"""Measures speed on the devices at hand.

  python -m senet_jax.tools.benchmark --models=se_resnet50,resnet50 --mode=train --batch=128 \
      --dtype=bfloat16 --output=results/benchmarks/NAME.json
  python -m senet_jax.tools.benchmark --models=se_resnet50,se_resnet50:model.se.fused=False,resnet50
  python -m senet_jax.tools.benchmark --models=se_resnet50,resnet50 --against=torch
  python -m senet_jax.tools.benchmark --input --config=configs/imagenette_se_r18.py \
      --config.data.dir=FOLDER --output=results/benchmarks/input.json

--models measures the step of training, with loss, gradients and SGD, or inference, or both, on
made-up images that are on the devices already. Networks are measured in turn. Compilation and
warm-up are not counted but shown. Where a network and its SE twin are both there, the SE tax is the
time that SE adds to a step. NAME:FIELD=VALUE is a network with a field of its configuration
changed; --config.FIELD=VALUE changes it for all (fields of model.se for those with SE).

--against=torch measures timm's network in PyTorch in the same turns, and ours with the options that
make it the same function: channels_last, autocast for bfloat16, on a GPU with torch.compile.

--input measures the input pipeline alone, in turn with the raw rate at which TensorFlow decodes and
resizes the same files on the same cores. Any field of the configuration can be changed.
"""

import argparse
import dataclasses
import itertools
import os
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from senet_jax import cli, errors, files
from senet_jax.errors import UserError

if typing.TYPE_CHECKING:
  from jax.sharding import Mesh
  from ml_collections import ConfigDict

  from senet_jax.analysis.timing import Timing, Workload

OURS, TORCH = 'senet_jax', 'torch'
_SE_FIELD = 'model.se.'
_MODES = {'train': ('train',), 'inference': ('inference',), 'both': ('train', 'inference')}
_DTYPES = ('float32', 'bfloat16')
_TORCH_COMPILE = ('off', 'default', 'reduce-overhead', 'max-autotune')
# What --repeats and --seconds are where they are not given, with --models and with --input.
_USUAL = {False: (5, 2.0), True: (3, 10.0)}
_COLUMNS = 'network framework mode dtype batch images/s ± ms/step TFLOP/s compile_s warm_up_s MiB'


@dataclasses.dataclass(frozen=True)
class Network:
  """One of `--models`.

  Attributes:
    name: of the network.
    changes: `field=value` of its configuration.
  """

  name: str
  changes: tuple[str, ...] = ()

  @property
  def label(self) -> str:
    """As it is given on the command line."""
    return ':'.join((self.name, *self.changes))

  @property
  def without_se(self) -> 'Network':
    """Its twin without SE, were there one."""
    kept = tuple(change for change in self.changes if not change.startswith(_SE_FIELD))
    return Network(self.name.removeprefix('se_'), kept)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """What one row is about.

  Attributes:
    network: of `--models`.
    framework: `OURS` or `TORCH`.
    mode: `train` or `inference`.
    config: with batch size, dtype and image size.
  """

  network: Network
  framework: str
  mode: str
  config: 'ConfigDict'

  @property
  def label(self) -> str:
    """In words."""
    size, dtype = self.config.batch_size, self.config.model.dtype
    return f'{self.network.label}, {self.framework}, {self.mode}, {dtype}, batch {size}'


Measured = dict[Case, tuple['Workload', 'Timing']]


def main(argv: list[str]) -> None:
  """Prints the rates, and with --output writes them with all that belongs to them."""
  args, overrides = _parse(argv)
  if args.input:
    _measure_input(args, overrides, argv)
  else:
    _measure_models(args, overrides, argv)


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = cli.Parser('tools.benchmark', __doc__)
  add = parser.add_argument
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument('--models', type=networks, help='names of networks, with commas')
  what.add_argument('--input', action='store_true', help='the input pipeline')
  add('--mode', default='both', help='train, inference or both (default)')
  add('--batch', type=numbers, default=(32,), help='images a step, over all devices; with commas')
  add('--dtype', type=words, default=('float32',), help='float32 or bfloat16, or with a comma both')
  add('--steps_per_dispatch', type=number, default=1, help='in a loop on the device')
  add('--find_batch', action='store_true', help='the largest batch that fits, from --batch on')
  add('--refine', action='store_true', help='with --find_batch: not only powers of two')
  add('--max_batch', type=number, default=8192, help='with --find_batch: try no larger one')
  add('--config', help='of --input: file of the run, as of senet_jax.main')
  add('--repeats', '--rounds', type=number, help='turns (default: 5, of --input 3)')
  add('--seconds', type=seconds, help='of each measurement, about (default: 2, of --input 10)')
  add_shared(parser)
  args, overrides = parser.parse_with_overrides(argv)
  repeats, duration = _USUAL[args.input]
  args.repeats, args.seconds = args.repeats or repeats, args.seconds or duration
  if args.input != (args.config is not None):
    parser.error('--config=FILE is what --input needs and --models has no use for')
  errors.one_of('--mode', args.mode, _MODES)
  for dtype in args.dtype:
    errors.one_of('--dtype', dtype, _DTYPES)
  if args.refine and not args.find_batch:
    parser.error('--refine has no effect without --find_batch')
  return args, overrides


# --- what tools.latency has too ------------------------------------------------------------------


def add_shared(parser: cli.Parser) -> None:
  """Adds the arguments of all measurements of networks."""
  add = parser.add_argument
  add('--image_size', type=number, help='side of the images, in pixels (default: as published)')
  add('--devices', type=number, help='how many to use (default: all)')
  add('--against', help='torch: the same network in PyTorch, in the same turns')
  add('--torch_compile', help='off, default, reduce-overhead or max-autotune (on a CPU: off)')
  parser.add_output()


def number(text: str) -> int:
  """An integer of at least 1."""
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f'{text!r} must be an integer of at least 1')
  return int(text)


def numbers(text: str) -> tuple[int, ...]:
  """Integers of at least 1, with commas."""
  return tuple(map(number, words(text)))


def seconds(text: str) -> float:
  """A number greater than 0."""
  value = float(text)
  if not 0 < value < float('inf'):
    raise argparse.ArgumentTypeError(f'{text!r} must be greater than 0')
  return value


def words(text: str) -> tuple[str, ...]:
  """Words with commas, each once."""
  found = tuple(dict.fromkeys(filter(None, text.split(','))))
  if not found:
    raise argparse.ArgumentTypeError('nothing is given')
  return found


def networks(text: str) -> tuple[Network, ...]:
  """Names with commas, each with or without changes: `name:field=value`."""
  return tuple(Network(name, tuple(rest)) for name, *rest in (w.split(':') for w in words(text)))


def start(args: argparse.Namespace) -> 'Mesh':
  """Checks the arguments of `add_shared`, and gives the devices.

  Raises:
    UserError: there are fewer devices, or PyTorch cannot use what JAX uses.
  """
  if args.torch_compile:
    errors.one_of('--torch_compile', args.torch_compile, _TORCH_COMPILE)
  if args.against is not None:
    errors.one_of('--against', args.against, (TORCH,))
    # Or JAX takes most of a GPU's memory for itself; and threads of PyTorch spin while they wait,
    # taking cores from XLA's and losing them to whatever else runs, which makes both slow.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
  elif args.torch_compile:
    raise UserError('--torch_compile has no effect without --against=torch; leave it out.')

  from senet_jax import runtime

  if (args.devices or 1) > len(runtime.all_devices()):
    raise UserError(f'--devices={args.devices}: there are {runtime.describe_devices()}; use less.')
  mesh = runtime.data_mesh(args.devices)
  if args.against:
    from senet_jax.analysis import torch_models

    args.torch_device = torch_models.check_device(mesh.size)
    args.torch_compile = args.torch_compile or ('off', 'default')[args.torch_device == 'cuda']
  return mesh


def cases(
  args: argparse.Namespace,
  wanted: Sequence[Network],
  mesh: 'Mesh',
  *,
  mode: str,
  dtype: str,
  batch_size: int,
  overrides: Sequence[str] = (),
) -> list[Case]:
  """Each network in each framework that has it.

  Raises:
    UserError: a network, field or value does not exist, or they do not fit together.
  """
  from senet_jax import config as config_lib, flags
  from senet_jax.analysis import throughput
  from senet_jax.models import model_info

  if batch_size % mesh.size:
    near = max(batch_size // mesh.size, 1) * mesh.size
    raise UserError(
      f'a batch of {batch_size} is not divisible by the {mesh.size} devices; use {near} or '
      f'{near + mesh.size}, or --devices=1.'
    )
  found = []
  for network in wanted:
    se = model_info(network.name).se
    config = throughput.configuration(
      network.name, batch_size=batch_size, dtype=dtype, image_size=args.image_size
    )
    config.steps_per_dispatch = getattr(args, 'steps_per_dispatch', 1)
    frameworks = [OURS]
    if args.against:
      from senet_jax.analysis import torch_models

      torch_models.as_in_torch(config)
      frameworks += [TORCH] if torch_models.variant(network.name) else []
    for_all = [o for o in overrides if se or not o.startswith(cli.FIELD + _SE_FIELD)]
    for override in (*for_all, *(cli.FIELD + change for change in network.changes)):
      flags.apply(config, override)
    config_lib.check(config)
    found += [Case(network, framework, mode, config) for framework in frameworks]
  return found


def not_in_torch(args: argparse.Namespace, wanted: Sequence[Network]) -> list[str]:
  """Names of networks that timm has not, after saying so.

  Raises:
    UserError: it has none of them.
  """
  if not args.against:
    return []
  from senet_jax.analysis import torch_models

  missing = [n.name for n in wanted if torch_models.variant(n.name) is None]
  if len(missing) == len(wanted):
    known = ', '.join(torch_models.known())
    raise UserError(f'--against=torch: timm has no {", ".join(missing)}; it has {known}.')
  for name in missing:
    print(f'timm has no {name}: it is measured without PyTorch')
  return missing


def measure(
  args: argparse.Namespace, wanted: Sequence[Case], mesh: 'Mesh', *, each: bool = False
) -> tuple[Measured, list[Case]]:
  """What was measured in turn, and what did not fit into memory.

  Raises:
    UserError: nothing did, or not all at once.
  """
  from senet_jax.analysis import timing

  workloads, too_large = {}, []
  for case in wanted:
    print(f'compiling {case.label} …', flush=True)
    try:
      workloads[case] = _prepare(args, case, mesh)
    except Exception as error:
      if not timing.is_out_of_memory(error):
        raise
      print(f'out of memory: {case.label}')
      too_large.append(case)
  try:
    timings = timing.in_turn(workloads, args.repeats, args.seconds, each=each)
  except Exception as error:
    if not timing.is_out_of_memory(error):
      raise
    raise UserError(
      f'out of memory with {len(workloads)} networks on a device at once; give fewer, or a '
      'smaller batch.'
    ) from error
  return {case: (workloads[case], timings[case]) for case in workloads}, too_large


def _prepare(args: argparse.Namespace, case: Case, mesh: 'Mesh') -> 'Workload':
  from senet_jax.analysis import throughput, torch_models

  if case.framework == OURS:
    return throughput.prepare(case.config, case.mode, mesh)
  return torch_models.prepare(case.config, case.mode, args.torch_device, args.torch_compile)


def pairs(measured: Measured) -> Iterator[tuple[str, Case, Case]]:
  """What is to be compared: `'se_tax', with SE, without` and `'against_torch', ours, theirs`."""
  for a, b in itertools.permutations(measured, 2):
    if a.config.batch_size != b.config.batch_size:
      continue
    if a.framework == b.framework:
      if a.network.without_se == b.network and a.network.name != b.network.name:
        yield 'se_tax', a, b
    elif a.network == b.network and a.framework == OURS:
      yield 'against_torch', a, b


def of_case(args: argparse.Namespace, case: Case, mesh: 'Mesh') -> dict[str, Any]:
  """What a row says about what was measured, beside the numbers."""
  from senet_jax import config as config_lib
  from senet_jax.analysis import torch_models
  from senet_jax.models import model_info

  config, se = case.config, model_info(case.network.name).se
  found = {
    'network': case.network.label,
    'model': case.network.name,
    'se': se,
    'options': {k: v for k, v in config_lib.flatten(config) if _is_option(k, v, se)},
    'framework': case.framework,
    'mode': case.mode,
    'batch_size': config.batch_size,
    'batch_per_device': config.batch_size // mesh.size,
    'devices': mesh.size,
    'image_size': config.data.image_size,
    'dtype': config.model.dtype,
    'bn_scope': config.bn.scope,
    'steps_per_dispatch': config.steps_per_dispatch,
  }
  if case.framework == TORCH:
    found['torch_model'] = torch_models.variant(case.network.name).name
    found['torch_compile'] = args.torch_compile
    found |= {'options': {}, 'bn_scope': 'local', 'steps_per_dispatch': 1}
  return found


def _is_option(field: str, value: Any, se: bool) -> bool:
  from senet_jax import config as config_lib

  default = dict(config_lib.flatten(config_lib.default()))
  kept = field.startswith(('model.', 'bn.')) and (se or not field.startswith(_SE_FIELD))
  named = ('model.name', 'model.num_classes', 'model.dtype', 'bn.scope')
  return kept and field not in named and value != default[field]


def record(what: str, tool: str, args: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
  """The head of a file of results."""
  from senet_jax.analysis import throughput, torch_models
  from senet_jax.training import summary

  found = {**summary.record_head(what, tool, argv), **throughput.machine()}
  found['versions'] |= torch_models.versions() if args.against else {}
  return found


def print_table(columns: str, rows: Sequence[Sequence[str]]) -> None:
  """Prints rows in columns as wide as they need, the first to the left."""
  lines = [columns.split(), *rows]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  for first, *rest in lines:
    cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
    print('  '.join((first.ljust(widths[0]), *cells)).rstrip())


# --- throughput ----------------------------------------------------------------------------------


def _measure_models(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> None:
  from senet_jax.models import model_info
  from senet_jax.training import setup

  for network in args.models:
    model_info(network.name)  # an unknown one is an error before JAX looks for devices
  mesh = start(args)
  groups = [
    cases(args, args.models, mesh, mode=mode, dtype=dtype, batch_size=size, overrides=overrides)
    for mode, dtype, size in itertools.product(_MODES[args.mode], args.dtype, args.batch)
  ]
  for case in groups[0]:
    setup.check_model(case.config)
  found = {
    **record('throughput of steps on images that are on the device', 'benchmark', args, argv),
    'not_in_torch': not_in_torch(args, args.models),
    'rows': [],
    'se_tax': [],
    'against_torch': [],
    'out_of_memory': [],
  }
  for group in groups:
    if args.find_batch:
      _find_batches(args, group, mesh)
    measured, too_large = measure(args, group, mesh)
    found['rows'] += [_row(args, case, *measured[case], mesh) for case in measured]
    found['out_of_memory'] += [of_case(args, case, mesh) for case in too_large]
    for kind, first, second in pairs(measured):
      found[kind].append(_comparison(kind, first, second, measured))
    if args.output:  # after each group: what comes later may fail
      from senet_jax.analysis import throughput

      files.write_json(args.output, {**found, 'device_peak_mib': throughput.device_peak_mib(mesh)})
    del measured  # the memory of its steps
  if not found['rows']:
    raise UserError('out of memory with every network; use a smaller --batch.')
  print_table(_COLUMNS, [_cells(row) for row in found['rows']])
  for comparison in found['se_tax'] + found['against_torch']:
    print(_sentence(comparison))


def _find_batches(args: argparse.Namespace, group: list[Case], mesh: 'Mesh') -> None:
  """Gives each network of ours the largest batch that fits, and PyTorch the same."""
  from senet_jax.analysis import timing

  for case in group:
    if case.framework != OURS:
      continue
    config = case.config

    def run(size: int, case: Case = case) -> None:
      case.config.batch_size = size
      workload = _prepare(args, case, mesh)
      workload.dispatch()
      workload.wait()
      print(f'{case.label} fits', flush=True)

    best = timing.largest_batch(
      run, config.batch_size, devices=mesh.size, most=args.max_batch, refine=args.refine
    )
    if best is None:
      raise UserError(f'out of memory: {case.label}; not even one image a device fits.')
    config.batch_size = best


def _row(
  args: argparse.Namespace, case: Case, workload: 'Workload', timing: 'Timing', mesh: 'Mesh'
) -> dict[str, Any]:
  from senet_jax.analysis import throughput
  from senet_jax.analysis.timing import WARM_UP, spread

  rates = spread([workload.images / s for s in timing.per_turn])
  gflops = throughput.gflops_per_image(case.config, case.mode)
  steps = workload.images / case.config.batch_size
  return {
    **of_case(args, case, mesh),
    'images_per_second': rates,
    'ms_per_step': 1000 * spread(timing.per_turn)['median'] / steps,
    'compile_s': workload.compile_s,
    'warm_up_dispatches': WARM_UP,
    'warm_up_s': timing.warm_up_s,
    'gflops_per_image': gflops,
    'tflops_per_second': rates['median'] * gflops / 1000,
    'program_mib': workload.program_mib,
  }


def _comparison(kind: str, first: Case, second: Case, measured: Measured) -> dict[str, Any]:
  from senet_jax.analysis import timing

  a, b = measured[first][1], measured[second][1]
  if kind == 'se_tax':
    number = {'percent': timing.se_tax(a, b)}
  else:
    per_image = [measured[case][0].images for case in (first, second)]
    scale = per_image[0] / per_image[1]
    number = {'ratio': timing.spread([scale * r for r in timing.ratios(b, a)])}
  return {
    'network': first.network.label,
    'over': second.network.label if kind == 'se_tax' else second.framework,
    'framework': first.framework,
    'mode': first.mode,
    'dtype': first.config.model.dtype,
    'batch_size': first.config.batch_size,
    **number,
  }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  rate = row['images_per_second']
  return (
    row['network'],
    row['framework'],
    row['mode'],
    row['dtype'],
    f'{row["batch_size"]}',
    f'{rate["mean"]:.1f}',
    '-' if rate['std'] is None else f'{rate["std"]:.1f}',
    f'{row["ms_per_step"]:.2f}',
    f'{row["tflops_per_second"]:.3g}',
    f'{row["compile_s"]:.1f}',
    f'{row["warm_up_s"]:.1f}',
    '-' if row['program_mib'] is None else f'{row["program_mib"]:.0f}',
  )


def _sentence(comparison: dict[str, Any]) -> str:
  c = comparison
  where = f'{c["mode"]}, {c["dtype"]}, batch {c["batch_size"]}'
  if 'percent' in c:
    tax = in_words(c['percent'], '+.1f', ' %')
    return f'SE tax of {c["network"]} over {c["over"]} ({c["framework"]}, {where}): {tax}'
  return f'{c["network"]} over {c["over"]} ({where}): {in_words(c["ratio"], ".2f", "x the speed")}'


def in_words(spread: dict[str, Any], digits: str, unit: str) -> str:
  """The median, and mean and standard deviation over the turns."""
  if spread['std'] is None:
    return f'{spread["median"]:{digits}}{unit}'
  mean, std = f'{spread["mean"]:{digits}}', f'{spread["std"]:{digits.removeprefix("+")}}'
  return f'{spread["median"]:{digits}}{unit} (mean {mean} ± {std}, {spread["n"]} turns)'


# --- the input pipeline --------------------------------------------------------------------------


def _measure_input(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> None:
  from senet_jax import config as config_lib, flags
  from senet_jax.analysis import input_rate
  from senet_jax.training import summary

  config = flags.load(args.config, overrides)
  config_lib.check(config)
  found = input_rate.measure(config, args.seconds, args.repeats)
  print(f'{config.data.name}, batches of {config.batch_size}, {os.cpu_count()} cores')
  for way in ('input', 'raw'):
    spread = '' if args.repeats == 1 else f' ± {found[way]["std"]:.0f}'
    print(f'  {way:5} {found[way]["mean"]:8.0f}{spread} images/s')
  print(f'  ratio {found["ratio"]:8.3f}')
  if args.output:
    what = 'input pipeline alone, and raw decoding and resizing of the same files, images/s'
    head = {**summary.record_head(what, 'benchmark', argv), 'cpu_cores': os.cpu_count()}
    files.write_json(args.output, {**head, 'config': config.to_dict(), **found})


if __name__ == '__main__':
  cli.run(main)
