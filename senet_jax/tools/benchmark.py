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
same step on images that stay on the device. With --together so many runs, each a process, share it.

--input measures the input pipeline alone, of a stream in turn with the raw rate at which TensorFlow
decodes and resizes the same files, of other data with the same inputs without random changes.
"""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from senet_jax import cli, errors
from senet_jax.measure import networks, wanted
from senet_jax.storage import files

if TYPE_CHECKING:
  from senet_jax.measure.cases import Bench

_INPUT_REPEATS, _INPUT_SECONDS = 3, 10.0


def main(argv: list[str]) -> int:
  """Prints the rates, and with --output writes them with all that belongs to them."""
  args, overrides = parse(argv)
  measure: Callable[..., int | None] = _logits if args.logits else _models
  if args.input or args.feed:
    measure = _input if args.input else _feed
  return measure(args, overrides, argv) or 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  """Returns the options of the command, and the overrides."""
  parser = cli.Parser('tools.benchmark', __doc__)
  add = parser.add_argument
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument('--models', type=networks.networks, help='names of networks, with commas')
  what.add_argument('--feed', action='store_true', help='a training step on its own data')
  what.add_argument('--input', action='store_true', help='the input pipeline')
  wanted.add_arguments(parser)
  add('--logits', action='store_true', help='compare logits with the CPU instead')
  add('--together', type=cli.numbers, default=(), help='of --feed: runs at a time')
  add('--in_place', action='store_true', help='of --feed: also on images that stay in place')
  add('--config', help='of --feed and --input: file of the run, as of senet_jax.main')
  networks.add_arguments(parser)
  args, overrides = parser.parse_with_overrides(argv)
  if bool(args.models) != (args.config is None):
    parser.error('--config=FILE is what --input and --feed need and --models has no use for')
  for name in ('together', 'in_place'):
    if getattr(args, name) and not args.feed:
      parser.error(f'--{name} has no effect without --feed')
  args.wanted = wanted.from_arguments(args, overrides)
  return args, overrides


def _models(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> None:
  from senet_jax.measure import benchmark_lines, rates

  bench = _bench(args)
  head = bench.record('throughput of steps on images that are on the device', 'benchmark', argv)
  found = rates.measure(bench, args.wanted, lambda found: _write(args, {**head, **found}))
  print(*benchmark_lines.of_rates(found), sep='\n')


def _bench(args: argparse.Namespace) -> 'Bench':
  from senet_jax.measure.cases import Bench

  errors.one_of('--against', args.against, (None, 'torch'))
  return Bench.create(**networks.bench_arguments(args))


def _logits(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> int:
  from senet_jax.measure import agreement, benchmark_lines

  bench = _bench(args)
  rows = [row for network in args.models for row in agreement.logits(bench, network, args.dtype)]
  print(*benchmark_lines.of_logits(rows), sep='\n')
  head = bench.record('logits of the device beside those of the CPU', 'benchmark', argv)
  _write(args, {**head, 'images': agreement.IMAGES, 'rows': rows})
  return int(agreement.worst(rows) > agreement.BOUND)


def _feed(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> None:
  from senet_jax.config import reading
  from senet_jax.measure import benchmark_lines, feeding
  from senet_jax.measure.cases import Bench

  config = reading.load(args.config, overrides)
  if args.together:  # or this process takes most of a GPU's memory for itself
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  bench = Bench.create(args.devices)
  found = feeding.compare(
    config, bench.mesh, args.wanted, in_place=args.in_place, counts=args.together
  )
  print(*benchmark_lines.of_feed(found), sep='\n')
  _write(args, {**bench.record('training step on the data of a run', 'benchmark', argv), **found})


def _input(args: argparse.Namespace, overrides: list[str], argv: list[str]) -> None:
  from senet_jax.config import reading
  from senet_jax.measure import benchmark_lines, input_rate
  from senet_jax.workdir import summary

  config = reading.load(args.config, overrides)
  found = input_rate.measure(config, args.seconds or _INPUT_SECONDS, args.repeats or _INPUT_REPEATS)
  found = {'config': config.to_dict(), **found}
  print(*benchmark_lines.of_input(found), sep='\n')
  head = {
    **summary.record_head(input_rate.describe(config), 'benchmark', argv),
    'cpu_cores': os.cpu_count(),
  }
  _write(args, {**head, **found})


def _write(args: argparse.Namespace, record: dict[str, Any]) -> None:
  if args.output:
    files.write_json(args.output, record)


if __name__ == '__main__':
  cli.run(main)
