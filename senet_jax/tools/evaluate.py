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
import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.storage import files


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)
  pairs = _pairs(args.workdir, args.checkpoint or ['best'])

  from senet_jax import config as config_lib, runtime
  from senet_jax.evaluation import competition, exclusion
  from senet_jax.evaluation.ensemble import Ensemble
  from senet_jax.evaluation.evaluate import evaluate_each
  from senet_jax.workdir import networks

  left_out = exclusion.read_list(args.exclude) if args.exclude else ()
  runtime.use_compilation_cache()
  mesh = runtime.data_mesh()
  runs = [networks.load(workdir, checkpoint, mesh) for workdir, checkpoint in pairs]
  _check_fit(runs, [workdir for workdir, _ in pairs])
  config = runs[0].config.copy_and_resolve_references()
  config.data.dir = args.data_dir or config.data.dir
  if args.batch_size is not None:
    config.eval.batch_size = args.batch_size
  config_lib.check(config)
  split = args.split or config.data.eval_split
  num_classes = runs[0].model.num_classes
  config.model.num_classes = num_classes
  transform = competition.choose_crops(
    [run.config for run in runs], args.size, args.scales, args.crops == 10
  )
  feed, excluded = competition.open_feed(config, split, mesh, transform, left_out)
  for run in runs:
    _check_classes(run.class_names, feed.split.class_names, config.data.name)
  ensemble = Ensemble(tuple(run.model for run in runs))
  variables = tuple(run.variables for run in runs)
  results, outcomes = evaluate_each(ensemble, variables, feed, mesh)
  if not math.isfinite(results['loss']):
    raise UserError(f'the loss is {results["loss"]}: no numbers come out; use another checkpoint.')
  wanted = args.top_k or _telling(num_classes)
  errors = {f'top{k}_error': outcomes.top_k_error(k) for k in wanted}

  crops = transform.crops
  networks = ' + '.join(f'{run.config.model.name}, step {run.step}' for run in runs)
  without = f', {excluded} left out' if excluded else ''
  several = f', {len(crops)} crops of each: {crops.describe()}' if len(crops) > 1 else ''
  print(f'{networks}, on {config.data.name} {split}: {len(outcomes)} images{without}{several}')
  _print({'loss': results['loss'], **errors})
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
    'size': crops.size,
    'scales': crops.scales,
    'crops': args.crops,
    'device': runtime.describe_devices(),
    'loss': results['loss'],
    **errors,
  }
  names = feed.split.class_names or next((r.class_names for r in runs if r.class_names), ())
  _write(args, row, outcomes, _all_names(names, num_classes))


def _telling(num_classes: int) -> list[int]:
  """Returns the `k` of top-k errors that can differ from 0, as all classes have the right one."""
  return [k for k in (1, 3, 5) if k == 1 or k < num_classes]


def _print(results: dict[str, float]) -> None:
  for name, value in results.items():
    print(f'  {name:11} {value:8.4f}{" %" if name.endswith("error") else ""}')


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.evaluate', __doc__)
  add = parser.add_argument
  parser.add_bare(
    '--workdir',
    type=cli.path_or_bucket,
    action='append',
    help='of the run; once for each network of an ensemble',
  )
  add(
    '--checkpoint',
    action='append',
    help='best (default), latest, or a step; of all workdirs, or once for each',
  )
  add('--split', help="default: the run's evaluation split")
  add('--data_dir', help="default: the (first) run's")
  add('--batch_size', type=int, help='crops at once over all devices; default: of the run')
  add('--size', type=int, help="side of the crop; default: the run's")
  add(
    '--resize',
    '--scales',
    dest='scales',
    type=_numbers,
    default=(),
    metavar='S,S,...',
    help='shorter side of the resized image, or several; default: the usual one of the network',
  )
  add(
    '--crops',
    type=int,
    choices=(1, 10),
    default=1,
    help='1, the middle (default), or 10: corners and middle, and their mirror images',
  )
  add('--exclude', type=pathlib.Path, help='file with the images to leave out, one a line')
  add(
    '--top_k',
    type=_numbers,
    metavar='K,K,...',
    help='default: 1,3,5, or as many as there are classes',
  )
  add('--per_class', type=pathlib.Path, help='write the error of each class to this .csv file')
  add('--confusion', type=pathlib.Path,
      help='write images by class and prediction to this .csv or .npz file')  # fmt: skip
  parser.add_output()
  args = parser.parse_args(argv)
  if args.size is not None and args.size < 1:
    raise UserError(f'--size={args.size} must be at least 1.')
  for flag, suffixes in (('per_class', ['.csv']), ('confusion', ['.csv', '.npz'])):
    path = getattr(args, flag)
    if path and path.suffix not in suffixes:
      raise UserError(f'--{flag}={path} must end in {" or ".join(suffixes)}.')
  return args


def _numbers(text: str) -> tuple[int, ...]:
  numbers = text.split(',')
  if not all(n.isdecimal() and len(n) < 10 and int(n) for n in numbers):
    raise argparse.ArgumentTypeError(f'{text!r} must be whole numbers from 1 on, such as 1,5')
  return tuple(dict.fromkeys(map(int, numbers)))


def _pairs(workdirs: list[pathlib.Path], checkpoints: list[str]) -> list[tuple[pathlib.Path, str]]:
  """Workdir and checkpoint of each network."""
  count = max(len(workdirs), len(checkpoints))
  if {len(workdirs), len(checkpoints)} - {1, count}:
    raise UserError(
      f'--workdir is given {len(workdirs)} times and --checkpoint {len(checkpoints)} times; give '
      'one of them once, or both as often.'
    )
  workdirs, checkpoints = (
    given * count if len(given) == 1 else given for given in (workdirs, checkpoints)
  )
  return list(zip(workdirs, checkpoints, strict=True))


def _check_fit(runs: Sequence, workdirs: Sequence[pathlib.Path]) -> None:
  """Checks that the outputs of all networks mean the same."""
  first, there = runs[0], workdirs[0]
  for run, here in zip(runs[1:], workdirs[1:], strict=True):
    if run.model.num_classes != first.model.num_classes:
      raise UserError(
        f'{here} has {run.model.num_classes} classes, {there} has {first.model.num_classes}; the '
        'networks of an ensemble need the same classes.'
      )
    names = list(zip(run.class_names or (), first.class_names or (), strict=False))
    for label, (name, other) in enumerate(names):
      if name != other:
        raise UserError(
          f'class {label} of {here} is {name!r}, of {there} {other!r}; the networks of an ensemble '
          'need the same classes.'
        )
    data, others = run.config.data.name, first.config.data.name
    if data != others and not names:
      raise UserError(
        f'{here} was trained on {data}, {there} on {others}, and the names of their classes are '
        'not known; the networks of an ensemble need the same data.'
      )


def _check_classes(
  trained: tuple[str, ...] | None, given: tuple[str, ...] | None, dataset: str
) -> None:
  """Checks that labels mean the same; names that are not known cannot differ."""
  for label, (there, here) in enumerate(zip(trained or (), given or (), strict=False)):
    if there != here:
      raise UserError(
        f'class {label} of {dataset} is {here!r}, and {there!r} in the data that the network was '
        'trained on; evaluate it on data with the same classes.'
      )


def _all_names(names: Sequence[str], num_classes: int) -> list[str]:
  """Returns names of all outputs of a network, which may be more than the classes of its data."""
  return [*names, *(f'class {i}' for i in range(len(names), num_classes))][:num_classes]


def _write(args: argparse.Namespace, row: dict[str, Any], outcomes, names: list[str]) -> None:
  """Writes the files that are asked for."""
  if args.per_class:
    files.write_text(args.per_class, _per_class(outcomes, names))
  if args.confusion:
    _write_confusion(args.confusion, outcomes, names)
  if args.output:
    files.write_json(args.output, row)


def _per_class(outcomes, names: list[str]) -> str:
  """The error of each class in percent, empty for a class without images."""
  counts = zip(names, *outcomes.per_class(len(names)), strict=True)
  return _csv(
    ['class', 'images', 'error'],
    ([name, images, 100 * wrong / images if images else ''] for name, images, wrong in counts),
  )


def _write_confusion(path: pathlib.Path, outcomes, names: list[str]) -> None:
  import numpy as np

  counts = outcomes.confusion(len(names))
  if path.suffix == '.csv':
    rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    files.write_text(path, _csv(['class', *names], rows))
    return
  with files.whole(path) as partial, partial.open('wb') as file:
    np.savez_compressed(file, confusion=counts, class_names=np.array(names))


def _csv(header: list[str], rows) -> str:
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows([header, *rows])
  return text.getvalue()


if __name__ == '__main__':
  cli.run(main)
