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

Of a detector it prints average precision; --detections writes what it found, as COCO's results, and
--figures draws precision over recall and which classes are taken for which:

  python -m senet_jax.tools.evaluate --workdir=runs/r50 --detections=found.json --figures=figures
"""

import argparse
import pathlib
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.storage import files

# Flags that only one of the tasks has a use for.
_OF_CLASSIFIERS = ('size', 'scales', 'crops', 'exclude', 'top_k', 'confusion')
_OF_DETECTORS = ('detections', 'figures')


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)
  pairs = _pairs(args.workdir, args.checkpoint or ['best'])

  from senet_jax import runtime
  from senet_jax.training import classifier_results, detector_results
  from senet_jax.workdir import network, networks

  runtime.use_compilation_cache()
  data = {'split': args.split, 'data_dir': args.data_dir, 'batch_size': args.batch_size}
  task = network.task_of(networks.read_config(args.workdir[0]))
  _check_flags(args, task)
  found: Any
  if task == 'detection':
    found = detector_results.judge(*pairs[0], **data, write_to=args.detections)
  else:
    crops = classifier_results.Crops(args.crops, args.size, args.scales)
    more = {'exclude': args.exclude, 'top_k': args.top_k}
    found = classifier_results.judge(pairs, crops, **data, **more)
  print('\n'.join(found.lines()))
  if args.per_class:
    found.write_per_class(args.per_class)
  if args.confusion:
    found.write_confusion(args.confusion)
  if args.figures:
    found.draw(args.figures)
  if args.output:
    files.write_json(args.output, found.row)


def _check_flags(args: argparse.Namespace, task: str) -> None:
  """Refuses what the task of the network has no use for."""
  others = _OF_CLASSIFIERS if task == 'detection' else _OF_DETECTORS
  for name in others:
    if getattr(args, name) not in (None, (), 1):
      raise UserError(
        f'--{name} has no effect: {args.workdir[0]} holds a network for {task}; leave it out.'
      )
  if task == 'detection' and max(len(args.workdir), len(args.checkpoint or ())) > 1:
    raise UserError('detectors cannot be ensembled: give one --workdir and one --checkpoint.')


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
  add('--per_class', type=pathlib.Path, help='write error or AP of each class to this .csv file')
  add('--detections', type=pathlib.Path, help='write what a detector found to this .json file')
  add('--figures', type=pathlib.Path,
      help='draw precision over recall and confusions of a detector into this folder')  # fmt: skip
  add('--confusion', type=pathlib.Path,
      help='write images by class and prediction to this .csv or .npz file')  # fmt: skip
  parser.add_output()
  args = parser.parse_args(argv)
  if args.size is not None and args.size < 1:
    raise UserError(f'--size={args.size} must be at least 1.')
  for flag, suffixes in (
    ('per_class', ['.csv']),
    ('confusion', ['.csv', '.npz']),
    ('detections', ['.json']),
  ):
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


if __name__ == '__main__':
  cli.run(main)
