r"""Measures and draws the gates of SE blocks by class, as section 7.2 of the paper does.

  python -m senet_jax.tools.activations --workdir=runs/se50 --classes=goldfish,pug,plane,cliff \
      --output=results/activations_se50
  python -m senet_jax.tools.activations --workdir=runs/digits --blocks=all --output=DIR

Takes the first 50 images of every class of the split. In the directory --output:

  classes.png       mean gates of the classes and of all classes together (figure 6)
  within_class.png  mean and standard deviation over the images of two classes (figure 7)
  separation.png    for each block: variance between classes over that within, saturated gates
  separation.json   the same as numbers
  activations.npz   mean and std of the classes, for all blocks and channels
  activations.csv   the same as a table: block, class, channel, mean, std

Classes are given by their names in the data set, for ImageNet also by those for people, or by
number. ImageNet's `plane` is the carpenter's; `airliner` flies.
"""

import argparse
import math
from typing import TYPE_CHECKING, Any

from senet_jax import cli
from senet_jax.errors import UserError, at_least, one_of
from senet_jax.reporting import tables

if TYPE_CHECKING:
  from ml_collections import ConfigDict

  from senet_jax.workdir.saved import Saved

_COLUMNS = 'block channels mean spread between/within agreement closed_% open_%'


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)

  from senet_jax import runtime
  from senet_jax.data import class_names, feeds
  from senet_jax.excitation import activations, report
  from senet_jax.workdir import networks, summary

  runtime.use_compilation_cache()
  mesh = runtime.data_mesh()
  run = networks.load(args.workdir, args.checkpoint, mesh)
  config = run.evaluation_config(args.data_dir, args.batch_size)
  panels = _choose_blocks(args, run, config)
  split = args.split or config.data.eval_split
  feed = feeds.evaluation_feed(config, split, mesh)
  names = class_names.complete(feed.split.class_names or run.class_names, feed.split.num_classes)
  shown = report.Shown.choose(names, args.classes, args.within)
  args.output.mkdir(parents=True, exist_ok=True)  # before the work, if it cannot be made

  gate = config.model.se.excitation
  saturated = activations.SATURATED[gate]
  blocks = activations.measure(
    run.model, run.variables, feed, mesh, args.images_per_class, saturated
  )
  count = next(iter(blocks.values())).count
  shown.check(count, f'{config.data.name} {split}')
  record = {
    **summary.record_head('excitations by class', 'activations', argv),
    'model': config.model.name,
    'workdir': str(args.workdir),
    'step': run.step,
    'dataset': config.data.name,
    'split': split,
    'images_per_class': args.images_per_class,
    'images': int(count.sum()),
    'classes': int((count > 0).sum()),
    'excitation': gate,
    'saturated': [bound if math.isfinite(bound) else None for bound in saturated],
    'blocks': {name: block.summary() for name, block in blocks.items()},
  }
  _print(record)
  report.write(args.output, record, blocks, shown, panels, args.channels)
  print(f'figures and numbers: {args.output}')


def _choose_blocks(args: argparse.Namespace, run: 'Saved', config: 'ConfigDict') -> list[str]:
  """Returns the names of the blocks to draw; checks that the network has any."""
  from senet_jax.data import preprocessing
  from senet_jax.excitation import activations

  size = preprocessing.evaluation_transform(config).image_size
  try:
    names = list(activations.block_sizes(run.model, run.variables, size))
  except UserError as error:
    raise UserError(f'--workdir={args.workdir} is of {config.model.name}: {error}') from error
  for name in args.blocks:
    one_of('--blocks', name, [*names, 'all'])
  return names if 'all' in args.blocks else args.blocks or activations.paper_blocks(names)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.activations', __doc__)
  add = parser.add_argument
  parser.add_bare('--workdir', type=cli.path_or_bucket, help='of the run')
  add('--output', required=True, type=cli.new_folder, help='directory for figures and numbers')
  add('--checkpoint', default='best', help='best (default), latest, or a step')
  add('--split', help="default: the run's evaluation split")
  add('--data_dir', help="default: the run's")
  add('--batch_size', type=cli.number, help='images at once over all devices; default: of the run')
  add('--classes', type=_names, default=(), metavar='NAME,NAME,...',
      help="default: all up to ten (the figure has five); of ImageNet the paper's four; else four"
      )  # fmt: skip
  add('--within', type=_names, default=(), metavar='NAME,NAME',
      help='classes of within_class.png; default: two of --classes')  # fmt: skip
  add('--images_per_class', type=int, default=50, help='the first so many; default: 50')
  add('--channels', type=int, default=50, help='of a block in a figure; default: 50')
  add(
    '--blocks',
    type=_names,
    default=(),
    metavar='NAME,NAME,...',
    help="in the figures, or all; default: the paper's, the last of each stage and all of the last",
  )
  args = parser.parse_args(argv)
  for flag in ('images_per_class', 'channels'):
    at_least(f'--{flag}', getattr(args, flag), 2)
  return args


def _names(text: str) -> list[str]:
  names = list(dict.fromkeys(filter(None, map(str.strip, text.split(',')))))
  if not names:
    raise argparse.ArgumentTypeError(f'{text!r} must be names with commas')
  return names


def _print(record: dict[str, Any]) -> None:
  print(
    f'{record["model"]}, step {record["step"]}, on {record["dataset"]} {record["split"]}: '
    f'{record["images"]} images of {record["classes"]} classes'
  )
  keys = ('mean', 'spread', 'separation', 'agreement', 'low_share', 'high_share')
  rows = []
  for name, summary in record['blocks'].items():
    numbers = ['-' if summary[key] is None else f'{summary[key]:.3f}' for key in keys[:-2]]
    shares = [f'{100 * summary[key]:.1f}' for key in keys[-2:]]
    rows.append([name, str(summary['channels']), *numbers, *shares])
  tables.print_table(_COLUMNS, rows)


if __name__ == '__main__':
  cli.run(main)
