"""Gates by class as files: numbers and the figures of section 7.2 of the paper."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from senet_jax.data import class_names
from senet_jax.errors import UserError
from senet_jax.excitation import figures
from senet_jax.excitation.activations import (
  SATURATED,
  Block,
  default_labels,
  labels_of,
  uniform,
)
from senet_jax.reporting import look, tables
from senet_jax.storage import files

# More lines than these hide each other, unless someone asks for them.
_DRAWN = 5
_COLUMNS = ('block', 'class', 'channel', 'mean', 'std')
_LIMITS = {'sigmoid': (0, 1), 'tanh': (-1, 1), 'relu': None}


@dataclasses.dataclass(frozen=True)
class Shown:
  """The classes that numbers and figures show.

  Attributes:
    names: of all classes in the data set, by label.
    labels: of the classes in the files of numbers.
    drawn: of those in `classes.png`.
    pair: of those in `within_class.png`.
  """

  names: Sequence[str]
  labels: list[int]
  drawn: list[int]
  pair: list[int]

  @classmethod
  def choose(
    cls, names: Sequence[str], classes: Sequence[str] = (), within: Sequence[str] = ()
  ) -> 'Shown':
    """Returns the classes that a user names, or the usual ones.

    Args:
      names: of all classes in the data set, by label.
      classes: `--classes`, as of `labels_of`; none: as of `default_labels`.
      within: `--within`, those of `within_class.png`; none: two of the others.

    Raises:
      UserError: there is no such class, or there are several.
    """
    labels = labels_of(classes, names) or default_labels(names)
    drawn = labels if classes else [labels[i] for i in uniform(len(labels), _DRAWN)]
    pair = labels_of(within, names, '--within')
    pair = pair or list(dict.fromkeys([drawn[0], drawn[len(drawn) // 2]]))
    return cls(names, list(dict.fromkeys([*labels, *pair])), drawn, pair)

  def check(self, count: np.ndarray, where: str) -> None:
    """Checks that the classes have means and deviations.

    Args:
      count: images of each class, `[K]`.
      where: data set and split, for messages.

    Raises:
      UserError: a class has fewer than two images.
    """
    for label in self.labels:
      if count[label] < 2:
        raise UserError(
          f'class {self.names[label]!r} has {"no" if not count[label] else "one"} image in '
          f'{where}; it takes two at least: choose other --classes, or another --split.'
        )


def write(
  directory: pathlib.Path,
  record: Mapping[str, Any],
  blocks: Mapping[str, Block],
  shown: Shown,
  panels: Sequence[str],
  channels: int,
) -> None:
  """Writes all files of `tools.activations`.

  Args:
    directory: that they go to.
    record: the contents of `separation.json`; the figures take their title from it.
    blocks: all SE blocks, by name.
    shown: the classes.
    panels: names of the blocks in the figures of classes.
    channels: of a block in a figure.
  """
  files.write_json(directory / 'separation.json', record)
  _write_npz(directory / 'activations.npz', blocks, shown)
  text = tables.csv_text(_COLUMNS, _rows(blocks, shown))
  files.write_text(directory / 'activations.csv', text)
  title = '{model}, {dataset} {split}, at most {images_per_class} images a class'.format(**record)
  gate = record['excitation']
  drawn, pair = (class_names.distinct(shown.names, x) for x in (shown.drawn, shown.pair))
  style: dict[str, Any] = {'channels': channels, 'title': title, 'limits': _LIMITS[gate]}
  chosen = {name: blocks[name] for name in panels}
  for name, figure in (
    ('classes', figures.classes(chosen, drawn, **style)),
    ('within_class', figures.within_class(chosen, pair, **style)),
    ('separation', figures.separation(record['blocks'], title, SATURATED[gate])),
  ):
    look.save(figure, directory / f'{name}.png')


def _write_npz(path: pathlib.Path, blocks: Mapping[str, Block], shown: Shown) -> None:
  """Writes, for each block, numbers of the shown classes and of all classes together."""
  arrays: dict[str, Any] = {
    'blocks': np.array(list(blocks)),
    'class_names': np.array([shown.names[label] for label in shown.labels]),
    'labels': np.array(shown.labels),
    'counts': next(iter(blocks.values())).count[shown.labels],
  }
  for name, block in blocks.items():
    arrays[f'{name}/mean'] = block.mean[shown.labels]
    arrays[f'{name}/std'] = block.std[shown.labels]
    arrays[f'{name}/all_mean'] = block.all_mean
    arrays[f'{name}/between_variance'] = block.between
    arrays[f'{name}/within_variance'] = block.within
  with files.whole(path) as partial, partial.open('wb') as file:
    np.savez_compressed(file, **arrays)


def _rows(blocks: Mapping[str, Block], shown: Shown) -> Iterator[list[Any]]:
  """Yields a row for each block, class and channel; the mean of all classes has no std."""
  for name, block in blocks.items():
    std = block.std
    for label in shown.labels:
      pairs = zip(block.mean[label].tolist(), std[label].tolist(), strict=True)
      yield from ([name, shown.names[label], i, *pair] for i, pair in enumerate(pairs))
    means = enumerate(block.all_mean.tolist())
    yield from ([name, 'all classes', i, mean, ''] for i, mean in means)
