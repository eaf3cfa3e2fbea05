r"""Measures speed on the devices at hand.

  python -m senet_jax.tools.benchmark --models=se_resnet50,resnet50 --mode=train --batch=128 \
      --dtype=bfloat16 --output=results/benchmarks/NAME.json
  python -m senet_jax.tools.benchmark --models=se_resnet50,se_resnet50:model.se.fused=False,resnet50
  python -m senet_jax.tools.benchmark --models=se_resnet50,resnet50 --against=torch
  python -m senet_jax.tools.benchmark --models=se_resnet50 --logits --dtype=float32,bfloat16
  python -m senet_jax.tools.benchmark --feed --config=configs/cifar10_se_r110.py \
      --steps_per_dispatch=10,50 --together=1,2
  python -m senet_jax.tools.benchmark --input --config=configs/imagenette_se_r18.py \
      --config.data.dir=FOLDER --output=results/benchmarks/input.json

--models measures the step of training, with loss, gradients and SGD, or inference, or both, on
made-up images that are on the devices already. Networks are measured in turn. Compilation and
warm-up are not counted but shown. Where a network and its SE twin are both there, the SE tax is the
time that SE adds to a step. NAME:FIELD=VALUE is a network with a field of its configuration
changed, compared with NAME where that is measured too; --config.FIELD=VALUE changes it for all
(fields of model.se for those with SE). `textbook` and `textbook_se` are ResNet-50 as in Flax's
ImageNet example. Of a chip whose figures are known, MFU is the share of its bfloat16 operations.
--ceilings also measures the rate at which memory is copied, beside that of each network, and on
several devices the time of the all-reduce. --or_smaller halves a batch that does not fit.

--against=torch measures timm's network in PyTorch in the same turns, and ours with the options that
make it the same function: channels_last, autocast for bfloat16, on a GPU with torch.compile.

--logits compares the logits of the device with those that the CPU computes, instead of the time;
exit status 1 where those of float32 differ by more than a thousandth of their spread.

--feed measures the training step of a configuration on its own data, fed as a run feeds it:
images/s, the share of waiting, CPU cores, how busy the device is; with --in_place in turn with the
same step on images that stay on the device. With --together, so many such runs share the device,
each in a process of its own.

--input measures the input pipeline alone, in turn with the raw rate at which TensorFlow decodes and
resizes the same files on the same cores. Any field of the configuration can be changed.
"""

import argparse
import os
import typing
from typing import Any

from senet_jax import cli, errors
from senet_jax.measure.networks import add_arguments, networks
from senet_jax.reporting import tables
from senet_jax.reporting.statistics import in_words
from senet_jax.storage import files

if typing.TYPE_CHECKING:
  from senet_jax.measure.cases import Bench

_MODES = {'train': ('train',), 'inference': ('inference',), 'both': ('train', 'inference')}
_DTYPES = ('float32', 'bfloat16')
# What --repeats and --seconds are where they are not given, with --input and without.
_USUAL = {False: (5, 2.0), True: (3, 10.0)}
_COLUMNS = ('network framework mode dtype batch images/s ± ms/step TFLOP/s MFU GB/s compile_s '
            'warm_up_s MiB')  # fmt: skip


def main(argv: list[str]) -> int:
  """Prints the rates, and with --output writes them with all that belongs to them."""
  args, overrides = _parse(argv)
  if args.logits:
    return _compare_logits(args, argv)
  if args.input:
    _measure_input(args, overrides, argv)
  elif args.feed:
    _measure_feed(args, overrides, argv)
  else:
    _measure_models(args, overrides, argv)
  return 0


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = cli.Parser('tools.benchmark', __doc__)
  add = parser.add_argument
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument('--models', type=networks, help='names of networks, with commas')
  what.add_argument('--feed', action='store_true', help='a training step on its own data')
  what.add_argument('--input', action='store_true', help='the input pipeline')
  add('--mode', default='both', help='train, inference or both (default)')
  add('--batch', type=cli.numbers, default=(32,), help='images a step, over all devices')
  add('--dtype', type=cli.words, default=('float32',), help='float32, bfloat16, or both')
  add('--steps_per_dispatch', type=cli.numbers, default=(1,), help='in a loop on the device')
  add('--find_batch', action='store_true', help='the largest batch that fits, from --batch on')
  add('--refine', action='store_true', help='with --find_batch: not only powers of two')
  add('--max_batch', type=cli.number, default=8192, help='with --find_batch: try no larger one')
  add('--or_smaller', action='store_true', help='halve a batch that does not fit')
  add('--ceilings', action='store_true', help='measure the copy rate and the all-reduce, too')
  add('--logits', action='store_true', help='compare logits with the CPU instead')
  add('--together', type=cli.numbers, help='of --feed: runs at a time')
  add('--in_place', action='store_true', help='of --feed: also on images that stay in place')
  add('--config', help='of --feed and --input: file of the run, as of senet_jax.main')
  add('--repeats', '--rounds', type=cli.number, help='turns (default: 5, of --input 3)')
  add('--seconds', type=cli.positive, help='of each measurement, about (default: 2, of --input 10)')
  add_arguments(parser)
  args, overrides = parser.parse_with_overrides(argv)
  repeats, duration = _USUAL[args.input]
  args.repeats, args.seconds = args.repeats or repeats, args.seconds or duration
  if bool(args.models) != (args.config is None):
    parser.error('--config=FILE is what --input and --feed need and --models has no use for')
  errors.one_of('--mode', args.mode, _MODES)
  for dtype in args.dtype:
    errors.one_of('--dtype', dtype, _DTYPES)
  if args.refine and not args.find_batch:
    parser.error('--refine has no effect without --find_batch')
  for name in ('together', 'in_place'):
    if getattr(args, name) and not args.feed:
      parser.error(f'--{name} has no effect without --feed')
  return args, overrides


# --- networks ------------------------------------------------------------------------------------


def _measure_models(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> None:
  from senet_jax.measure import rates

  bench = _bench(args)
  head = bench.record('throughput of steps on images that are on the device', 'benchmark', argv)
  wanted = rates.Wanted(
    networks=args.models,
    modes=_MODES[args.mode],
    dtypes=args.dtype,
    batches=args.batch,
    dispatches=args.steps_per_dispatch,
    overrides=overrides,
    repeats=args.repeats,
    seconds=args.seconds,
    ceilings=args.ceilings,
    or_smaller=args.or_smaller,
    find_up_to=args.max_batch if args.find_batch else None,
    refine=args.refine,
  )

  def keep(found: dict[str, Any]) -> None:
    if args.output:
      files.write_json(args.output, {**head, **found})

  found = rates.measure(bench, wanted, keep)
  if found['copy']:
    rate = in_words(found['copy']['gb_per_second'], '.1f', ' GB/s')
    print(f'copies of memory, read and written: {rate}')
  tables.print_table(_COLUMNS, [_cells(row) for row in found['rows']])
  for kind in rates.COMPARISONS:
    for comparison in found[kind]:
      print(_sentence(kind, comparison))


def _bench(args: argparse.Namespace) -> 'Bench':
  from senet_jax.models import model_info

  for network in args.models:
    model_info(network.registered)  # an unknown one is an error before JAX looks for devices
  from senet_jax.measure.cases import Bench

  return Bench.create(args.devices, args.image_size, args.against, args.torch_compile)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  rate = row['images_per_second']

  def number(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)

  return (
    row['network'],
    row['framework'],
    row['mode'],
    row['dtype'],
    f'{row["batch_size"]}',
    f'{rate["mean"]:.1f}',
    number(rate['std'], '.1f'),
    f'{row["ms_per_step"]:.2f}',
    f'{row["tflops_per_second"]:.3g}',
    number(row['mfu'], '.3f'),
    number(row['gb_per_second'], '.0f'),
    f'{row["compile_s"]:.1f}',
    f'{row["warm_up_s"]:.1f}',
    number(row['program_mib'], '.0f'),
  )


def _sentence(kind: str, comparison: dict[str, Any]) -> str:
  c = comparison
  where = f'{c["mode"]}, {c["dtype"]}, batch {c["batch_size"]}'
  if kind == 'against_torch':
    ratio = in_words(c['ratio'], '.2f', 'x the speed')
    return f'{c["network"]} over {c["over"]} ({where}): {ratio}'
  what = 'SE tax' if kind == 'se_tax' else 'time'
  added = in_words(c['percent'], '+.1f', ' %')
  return f'{what} of {c["network"]} over {c["over"]} ({c["framework"]}, {where}): {added}'


def _compare_logits(args: argparse.Namespace, argv: list[str]) -> int:
  from senet_jax.measure import agreement

  bench = _bench(args)
  rows = [row for network in args.models for row in agreement.logits(bench, network, args.dtype)]
  cells = [
    (r['network'], r['dtype'], f'{r["max_difference"]:.3g}', f'{r["spread"]:.3g}',
     f'{r["relative"]:.2g}')
    for r in rows
  ]  # fmt: skip
  tables.print_table('network dtype max_difference spread relative', cells)
  if args.output:
    head = bench.record('logits of the device beside those of the CPU', 'benchmark', argv)
    files.write_json(args.output, {**head, 'images': agreement.IMAGES, 'rows': rows})
  worst = max((r['relative'] for r in rows if r['dtype'] == 'float32'), default=0.0)
  if worst > agreement.BOUND:
    print(f'float32 differs by {worst:.1e} of the spread, more than {agreement.BOUND:g}')
  return int(worst > agreement.BOUND)


# --- a run's own data ----------------------------------------------------------------------------


def _measure_feed(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> None:
  from senet_jax import config as config_lib
  from senet_jax.config import reading
  from senet_jax.measure import feeding
  from senet_jax.measure.cases import Bench

  config = reading.load(args.config, overrides)
  config_lib.check(config)
  if args.together:  # or this process takes most of a GPU's memory for itself
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  bench = Bench.create(args.devices)
  rows = feeding.measure(
    config,
    bench.mesh,
    dtypes=args.dtype,
    dispatches=args.steps_per_dispatch,
    repeats=args.repeats,
    seconds=args.seconds,
    in_place=args.in_place,
  )
  best = feeding.best(rows)
  config.model.dtype = best['dtype']
  config.steps_per_dispatch = best['steps_per_dispatch']
  together = feeding.together(config, args.together, 2 * args.seconds) if args.together else []
  cells = [
    (r['kind'], r['dtype'], f'{r["steps_per_dispatch"]}', f'{r["images_per_second"]["mean"]:.0f}',
     f'{100 * r["waiting_share"]["mean"]:.1f}', f'{r["cpu_cores_used"]["mean"]:.1f}',
     '-' if r['device_busy_share'] is None else f'{100 * r["device_busy_share"]:.0f}')
    for r in rows
  ]  # fmt: skip
  tables.print_table('images dtype steps images/s waiting_% cores busy_%', cells)
  for row in together:
    print(f'{row["runs"]} at a time: {row["images_per_second"]:.0f} images/s')
  if args.output:
    head = bench.record('training step on the data of a run', 'benchmark', argv)
    files.write_json(args.output, {**head, 'rows': rows, 'best': best, 'together': together})


def _measure_input(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> None:
  from senet_jax import config as config_lib
  from senet_jax.config import reading
  from senet_jax.measure import input_rate
  from senet_jax.workdir import summary

  config = reading.load(args.config, overrides)
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
