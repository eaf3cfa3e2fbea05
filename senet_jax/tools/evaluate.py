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
  python -m senet_jax.tools.evaluate --from_detections=found.json --data_dir=coco
"""

import argparse
import pathlib
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.storage import files

_SUFFIXES = {'per_class': ['.csv'], 'confusion': ['.csv', '.npz'], 'detections': ['.json']}
# Flags that only some have a use for.
_OF_CLASSIFIERS = ('size', 'scales', 'crops', 'exclude', 'top_k', 'confusion')
_OF_DETECTORS = ('detections', 'figures')
_OF_NETWORKS = (*_OF_CLASSIFIERS, 'checkpoint', 'batch_size', 'detections')


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)
  from senet_jax import runtime
  from senet_jax.models import CLASSIFICATION, DETECTION
  from senet_jax.workdir import network, networks

  if args.from_detections:
    found = _file(args)
  else:
    runtime.use_compilation_cache()
    task = network.task_of(networks.read_config(args.workdir[0]))
    evaluate, flags_of_others = {
      CLASSIFICATION: (_classifiers, _OF_DETECTORS),
      DETECTION: (_detector, _OF_CLASSIFIERS),
    }[task]
    _refuse(args, flags_of_others, f'{args.workdir[0]} holds a network for {task}')
    data = {'split': args.split, 'data_dir': args.data_dir, 'batch_size': args.batch_size}
    found = evaluate(args, networks.pairs(args.workdir, args.checkpoint or ['best']), data)
  print('\n'.join(found.lines()))
  if args.per_class:
    found.write_per_class(args.per_class)
  if args.confusion:
    found.write_confusion(args.confusion)
  if args.figures:
    found.draw(args.figures)
  if args.output:
    files.write_json(args.output, found.row)


def _classifiers(args: argparse.Namespace, pairs: list, data: dict) -> Any:
  from senet_jax.training import classifier_results

  crops = classifier_results.Crops(args.crops, args.size, args.scales)
  more = {'exclude': args.exclude, 'top_k': args.top_k}
  return classifier_results.judge(pairs, crops, **data | more)


def _detector(args: argparse.Namespace, pairs: list, data: dict) -> Any:
  from senet_jax.training import detector_results

  if len(pairs) > 1:
    raise UserError('detectors cannot be ensembled: give one --workdir and one --checkpoint.')
  return detector_results.judge(*pairs[0], **data, write_to=args.detections)


def _file(args: argparse.Namespace) -> Any:
  from senet_jax.training import detector_results

  _refuse(args, _OF_NETWORKS, '--from_detections needs no network')
  workdir, *more = args.workdir or [None]
  if more or not (workdir or args.data_dir):
    raise UserError('--from_detections needs --data_dir, or one --workdir of a run with the data.')
  where = {'split': args.split, 'data_dir': args.data_dir}
  return detector_results.judge_file(args.from_detections, workdir=workdir, **where)


def _refuse(args: argparse.Namespace, flags: tuple[str, ...], why: str) -> None:
  for name in flags:
    if getattr(args, name) not in (None, (), 1):
      raise UserError(f'--{name} has no effect: {why}; leave it out.')


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.evaluate', __doc__)
  add = parser.add_argument
  parser.add_bare('--workdir', required=False, type=cli.path_or_bucket, action='append',
                  help='of the run; once for each network of an ensemble')  # fmt: skip
  add('--checkpoint', action='append',
      help='best (default), latest, or a step; of all workdirs, or once for each')  # fmt: skip
  add('--split', help="default: the run's evaluation split")
  add('--data_dir', help="default: the (first) run's")
  add('--batch_size', type=cli.number, help='crops at once over all devices; default: of the run')
  add('--size', type=cli.number, help="side of the crop; default: the run's")
  add('--resize', '--scales', dest='scales', type=_numbers, default=(), metavar='S,S,...', help=
      'shorter side of the resized image, or several; default: the usual one of the network'
      )  # fmt: skip
  add('--crops', type=int, choices=(1, 10), default=1, help=
      '1, the middle (default), or 10: corners and middle, and their mirror images')  # fmt: skip
  add('--exclude', type=pathlib.Path, help='file with the images to leave out, one a line')
  add('--top_k', type=_numbers, metavar='K,K,...',
      help='default: 1,3,5, or as many as there are classes')  # fmt: skip
  add('--per_class', type=cli.new_file, help='write error or AP of each class to this .csv file')
  add('--detections', type=cli.new_file, help='write what a detector found to this .json file')
  add('--from_detections', type=pathlib.Path, metavar='FILE.json',
      help='judge what this file has, as --detections writes it, instead of a network')  # fmt: skip
  add('--figures', type=cli.new_folder,
      help='draw precision over recall and confusions of a detector into this folder')  # fmt: skip
  add('--confusion', type=cli.new_file,
      help='write images by class and prediction to this .csv or .npz file')  # fmt: skip
  parser.add_output()
  args = parser.parse_args(argv)
  if not (args.workdir or args.from_detections):
    parser.error('--workdir is missing')
  for flag, suffixes in _SUFFIXES.items():
    if (path := getattr(args, flag)) and path.suffix not in suffixes:
      raise UserError(f'--{flag}={path} must end in {" or ".join(suffixes)}.')
  return args


def _numbers(text: str) -> tuple[int, ...]:
  numbers = text.split(',')
  if not all(n.isdecimal() and len(n) < 10 and int(n) for n in numbers):
    raise argparse.ArgumentTypeError(f'{text!r} must be whole numbers from 1 on, such as 1,5')
  return tuple(dict.fromkeys(map(int, numbers)))


if __name__ == '__main__':
  cli.run(main)
