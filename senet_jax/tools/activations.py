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
import csv
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from senet_jax import cli
from senet_jax.errors import UserError, one_of
from senet_jax.reporting import look, tables
from senet_jax.storage import files

if TYPE_CHECKING:
  import numpy as np
  from ml_collections import ConfigDict

  from senet_jax.excitation.activations import Block
  from senet_jax.workdir.saved import Saved

_COLUMNS = 'block channels mean spread between/within agreement closed_% open_%'
# More lines than these hide each other, unless someone asks for them.
_DRAWN = 5
_LIMITS = {'sigmoid': (0, 1), 'tanh': (-1, 1), 'relu': None}


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)

  from senet_jax import config as config_lib, runtime
  from senet_jax.data import feeds
  from senet_jax.excitation import activations
  from senet_jax.workdir import networks, summary

  runtime.use_compilation_cache()
  mesh = runtime.data_mesh()
  run = networks.load(args.workdir, args.checkpoint, mesh)
  config = run.config.copy_and_resolve_references()
  config.data.dir = args.data_dir or config.data.dir
  if args.batch_size is not None:
    config.eval.batch_size = args.batch_size
  config_lib.check(config)
  shown = _choose_blocks(args, run, config)
  split = args.split or config.data.eval_split
  feed = feeds.evaluation_feed(config, split, mesh)
  known = feed.split.class_names or run.class_names or ()
  known = [*known, *(f'class {i}' for i in range(len(known), feed.split.num_classes))]
  labels = activations.labels_of(args.classes, known) or activations.default_labels(known)
  drawn = labels if args.classes else [labels[i] for i in activations.uniform(len(labels), _DRAWN)]
  pair = activations.labels_of(args.within, known, '--within')
  pair = pair or list(dict.fromkeys([drawn[0], drawn[len(drawn) // 2]]))
  labels = list(dict.fromkeys([*labels, *pair]))
  args.output.mkdir(parents=True, exist_ok=True)  # before the work, if it cannot be made

  gate = config.model.se.excitation
  saturated = activations.SATURATED[gate]
  blocks = activations.measure(
    run.model, run.variables, feed, mesh, args.images_per_class, saturated
  )
  count = next(iter(blocks.values())).count
  _check_images(count, known, labels, f'{config.data.name} {split}')
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
  files.write_json(args.output / 'separation.json', record)
  _write_npz(args.output / 'activations.npz', blocks, known, labels)
  _write_csv(args.output / 'activations.csv', blocks, known, labels)
  panels = {name: blocks[name] for name in shown}
  _draw(args, record, panels, _readable(known, drawn), _readable(known, pair))
  print(f'figures and numbers: {args.output}')


def _choose_blocks(args: argparse.Namespace, run: 'Saved', config: 'ConfigDict') -> list[str]:
  """The blocks to draw; checks that the network has any."""
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
  add('--output', required=True, type=pathlib.Path, help='directory for figures and numbers')
  add('--checkpoint', default='best', help='best (default), latest, or a step')
  add('--split', help="default: the run's evaluation split")
  add('--data_dir', help="default: the run's")
  add('--batch_size', type=int, help='images at once over all devices; default: of the run')
  add(
    '--classes',
    type=_names,
    default=(),
    metavar='NAME,NAME,...',
    help="default: all up to ten (the figure has five); of ImageNet the paper's four; else four",
  )
  add(
    '--within',
    type=_names,
    default=(),
    metavar='NAME,NAME',
    help='classes of within_class.png; default: two of --classes',
  )
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
    if getattr(args, flag) < 2:
      raise UserError(f'--{flag}={getattr(args, flag)} must be at least 2.')
  return args


def _names(text: str) -> list[str]:
  names = list(dict.fromkeys(filter(None, map(str.strip, text.split(',')))))
  if not names:
    raise argparse.ArgumentTypeError(f'{text!r} must be names with commas')
  return names


def _check_images(
  count: 'np.ndarray', names: Sequence[str], labels: Sequence[int], where: str
) -> None:
  """Checks that the classes have means and deviations."""
  for label in labels:
    if count[label] < 2:
      raise UserError(
        f'class {names[label]!r} has {"no" if not count[label] else "one"} image in {where}; it '
        'takes two at least: choose other --classes, or another --split.'
      )


def _readable(names: Sequence[str], labels: Sequence[int]) -> dict[str, int]:
  """The labels by the names of their classes for people; where two have one name, by others."""
  from senet_jax.data import class_names

  shown = [class_names.readable(names[label]) for label in labels]
  return {
    name if shown.count(name) == 1 else names[label]: label
    for name, label in zip(shown, labels, strict=True)
  }


def _draw(
  args: argparse.Namespace,
  record: dict[str, Any],
  panels: Mapping[str, 'Block'],
  classes: Mapping[str, int],
  pair: Mapping[str, int],
) -> None:
  """Writes the three figures."""
  from senet_jax.excitation import activations, figures as activation_figures

  title = '{model}, {dataset} {split}, at most {images_per_class} images a class'.format(**record)
  style = {
    'channels': args.channels,
    'title': title,
    'limits': _LIMITS[record['excitation']],
  }
  saturated = activations.SATURATED[record['excitation']]
  for name, figure in (
    ('classes', activation_figures.classes(panels, classes, **style)),
    ('within_class', activation_figures.within_class(panels, pair, **style)),
    ('separation', activation_figures.separation(record['blocks'], title, saturated)),
  ):
    look.save(figure, args.output / f'{name}.png')


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


def _write_npz(
  path: pathlib.Path, blocks: Mapping[str, 'Block'], names: Sequence[str], labels: Sequence[int]
) -> None:
  """Writes, for each block, the classes and what is of all classes."""
  import numpy as np

  arrays = {
    'blocks': np.array(list(blocks)),
    'class_names': np.array([names[label] for label in labels]),
    'labels': np.array(labels),
    'counts': next(iter(blocks.values())).count[labels],
  }
  for name, block in blocks.items():
    arrays[f'{name}/mean'] = block.mean[labels]
    arrays[f'{name}/std'] = block.std[labels]
    arrays[f'{name}/all_mean'] = block.all_mean
    arrays[f'{name}/between_variance'] = block.between
    arrays[f'{name}/within_variance'] = block.within
  with files.whole(path) as partial, partial.open('wb') as file:
    np.savez_compressed(file, **arrays)


def _write_csv(
  path: pathlib.Path, blocks: Mapping[str, 'Block'], names: Sequence[str], labels: Sequence[int]
) -> None:
  """Writes a row for each block, class and channel; the mean of all classes has no std."""
  with files.whole(path) as partial, partial.open('w', newline='', encoding='utf-8') as file:
    table = csv.writer(file, lineterminator='\n')
    table.writerow(['block', 'class', 'channel', 'mean', 'std'])
    for block_name, block in blocks.items():
      std = block.std
      for label in labels:
        pairs = zip(block.mean[label].tolist(), std[label].tolist(), strict=True)
        rows = ([block_name, names[label], i, *pair] for i, pair in enumerate(pairs))
        table.writerows(rows)
      means = enumerate(block.all_mean.tolist())
      table.writerows([block_name, 'all classes', i, mean, ''] for i, mean in means)


if __name__ == '__main__':
  cli.run(main)
