r"""Evaluates a checkpoint, or several as an ensemble, on a split of a data set.

  python -m senet_jax.tools.evaluate --workdir=runs/digits
  python -m senet_jax.tools.evaluate --workdir=runs/se20 --checkpoint=latest --split='train[:10%]'
  python -m senet_jax.tools.evaluate --workdir=runs/se50 --size=320 --resize=320
  python -m senet_jax.tools.evaluate --workdir=runs/se50 --workdir=runs/se101 \
      --crops=10 --scales=224,256,320 --exclude=blacklist.txt

Prints loss and top-1, top-3 and top-5 error over every example of the split. The probabilities of
all crops, scales and networks are averaged. A list for --exclude has an index (from 0, in the order
of the split) or a file name a line. The numbers of ILSVRC2014's blacklist are neither; this makes
file names of them:

  awk '{printf "ILSVRC2012_val_%08d.JPEG\n", $1}' ILSVRC2014_clsloc_validation_blacklist.txt
"""

import argparse
import pathlib
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.storage import files


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)
  pairs = _pairs(args.workdir, args.checkpoint or ['best'])

  from senet_jax import runtime
  from senet_jax.evaluation import classes, competition, exclusion, outcomes as outcomes_lib
  from senet_jax.evaluation.ensemble import Ensemble
  from senet_jax.evaluation.evaluate import evaluate_each
  from senet_jax.workdir import networks

  left_out = exclusion.read_list(args.exclude) if args.exclude else ()
  runtime.use_compilation_cache()
  mesh = runtime.data_mesh()
  runs = [networks.load(workdir, checkpoint, mesh) for workdir, checkpoint in pairs]
  outputs = [
    classes.Outputs(workdir, run.model.num_classes, run.class_names, run.config.data.name)
    for run, (workdir, _) in zip(runs, pairs, strict=True)
  ]
  classes.check_same(outputs)
  config = runs[0].evaluation_config(args.data_dir, args.batch_size)
  split = args.split or config.data.eval_split
  config.model.num_classes = outputs[0].count
  transform = competition.choose_crops(
    [run.config for run in runs], args.size, args.scales, args.crops == 10
  )
  feed, excluded = competition.open_feed(config, split, mesh, transform, left_out)
  order, names = classes.known(outputs).order(feed.split.class_names, config.data.name)
  ensemble = Ensemble(tuple(run.model for run in runs), order)
  results, outcomes = evaluate_each(ensemble, tuple(run.variables for run in runs), feed, mesh)
  members = [
    {'model': run.config.model.name, 'workdir': str(workdir), 'step': run.step}
    for run, (workdir, _) in zip(runs, pairs, strict=True)
  ]
  row = {
    **(members[0] if len(members) == 1 else {'members': members}),
    'dataset': config.data.name,
    'split': split,
    'examples': len(outcomes),
    'left_out': excluded,
    'size': transform.crops.size,
    'scales': transform.crops.scales,
    'crops': args.crops,
    'device': runtime.describe_devices(),
    'loss': results['loss'],
    **outcomes.top_k_errors(args.top_k, outputs[0].count),
  }
  crops = transform.crops
  several = f', {len(crops)} crops of each: {crops.describe()}' if len(crops) > 1 else ''
  _print(members, row, several)
  if args.per_class:
    outcomes_lib.write_per_class(args.per_class, outcomes, names)
  if args.confusion:
    outcomes_lib.write_confusion(args.confusion, outcomes, names)
  if args.output:
    files.write_json(args.output, row)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.evaluate', __doc__)
  add = parser.add_argument
  parser.add_bare('--workdir', type=cli.path_or_bucket, action='append',
                  help='of the run; once for each network of an ensemble')  # fmt: skip
  add('--checkpoint', action='append',
      help='best (default), latest, or a step; of all workdirs, or once for each')  # fmt: skip
  add('--split', help="default: the run's evaluation split")
  add('--data_dir', help="default: the (first) run's")
  add('--batch_size', type=int, help='crops at once over all devices; default: of the run')
  add('--size', type=int, help="side of the crop; default: the run's")
  add('--resize', '--scales', dest='scales', type=_numbers, default=(), metavar='S,S,...', help=
      'shorter side of the resized image, or several; default: the usual one of the network'
      )  # fmt: skip
  add('--crops', type=int, choices=(1, 10), default=1, help=
      '1, the middle (default), or 10: corners and middle, and their mirror images')  # fmt: skip
  add('--exclude', type=pathlib.Path, help='file with the images to leave out, one a line')
  add('--top_k', type=_numbers, metavar='K,K,...',
      help='default: 1,3,5, or as many as there are classes')  # fmt: skip
  add('--per_class', type=pathlib.Path, help='write the error of each class to this .csv file')
  add('--confusion', type=pathlib.Path,
      help='write images by class and prediction to this .csv or .npz file')  # fmt: skip
  parser.add_output()
  args = parser.parse_args(argv)
  if args.size is not None and args.size < 1:
    raise UserError(f'--size={args.size} must be at least 1.')
  for flag, suffixes in (('per_class', ['.csv']), ('confusion', ['.csv', '.npz'])):
    if (path := getattr(args, flag)) and path.suffix not in suffixes:
      raise UserError(f'--{flag}={path} must end in {" or ".join(suffixes)}.')
  return args


def _numbers(text: str) -> tuple[int, ...]:
  numbers = text.split(',')
  if not all(n.isdecimal() and len(n) < 10 and int(n) for n in numbers):
    raise argparse.ArgumentTypeError(f'{text!r} must be whole numbers from 1 on, such as 1,5')
  return tuple(dict.fromkeys(map(int, numbers)))


def _pairs(workdirs: list[pathlib.Path], checkpoints: list[str]) -> list[tuple[pathlib.Path, str]]:
  """Returns workdir and checkpoint of each network."""
  count = max(len(workdirs), len(checkpoints))
  if {len(workdirs), len(checkpoints)} - {1, count}:
    raise UserError(
      f'--workdir is given {len(workdirs)} times and --checkpoint {len(checkpoints)} times; give '
      'one of them once, or both as often.'
    )
  return list(zip(*(x * (count // len(x)) for x in (workdirs, checkpoints)), strict=True))


def _print(members: list[dict[str, Any]], row: dict[str, Any], several: str) -> None:
  networks = ' + '.join(f'{member["model"]}, step {member["step"]}' for member in members)
  without = f', {row["left_out"]} left out' if row['left_out'] else ''
  print(
    f'{networks}, on {row["dataset"]} {row["split"]}: {row["examples"]} images{without}{several}'
  )
  for name, value in row.items():
    if name == 'loss' or name.endswith('_error'):
      print(f'  {name:11} {value:8.4f}{" %" if name.endswith("error") else ""}')


if __name__ == '__main__':
  cli.run(main)
