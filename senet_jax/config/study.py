"""Studies: the runs that make a table of a publication."""

import dataclasses
from collections.abc import Mapping, Sequence

from senet_jax.errors import one_of


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table: runs that differ in nothing but the seed.

  Attributes:
    name: in the table, and of the directory of its runs.
    config: as of `senet_jax.main --config=…`.
    overrides: of fields, `--config.field=value`.
    published: the configuration whose header has the published error; None: `config`.
  """

  name: str
  config: str
  overrides: tuple[str, ...] = ()
  published: str | None = None


@dataclasses.dataclass(frozen=True)
class Study:
  """A table.

  Attributes:
    title: what it shows.
    rows: from top to bottom.
    seeds: of the runs of each row.
    baseline: the row that the others are compared with, seed by seed.
    note: what a reader must know of its numbers.
  """

  title: str
  rows: tuple[Row, ...]
  seeds: tuple[int, ...] = (0, 1, 2)
  baseline: str | None = None
  note: str = ''


# About a minute of training on two CPU cores.
_SMALL = (
  '--config.data.train_split=train[:10%]',
  '--config.data.eval_split=test[:5000]',
  '--config.data.image_size=16',
  '--config.epochs=12',
  '--config.eval.every_epochs=12',
  '--config.schedule.name=cosine',
  '--config.schedule.warmup=0',
  '--config.log.tensorboard=False',
)
_SMALL_NOTE = (
  'Small: ResNet-20 on a tenth of CIFAR-10 at 16x16 pixels, 12 epochs, error on 5,000 test images; '
  'the published column is of the network and data of the paper.'
)


def ablation(
  size: str,
  title: str,
  file: str,
  names: Sequence[str],
  small: Mapping[str, Sequence[str] | None],
  baseline: str,
) -> Study:
  """An ablation at full scale, or `small`, which a CPU finishes.

  Args:
    size: `full` or `small`; empty is full.
    title: of the table.
    file: `configs/FILE.py`, which has the rows as variants.
    names: of the rows.
    small: of those that a small network has too, the options of its SE blocks, such as `ratio=8`;
      None: no SE.
    baseline: the row to compare with.

  Raises:
    UserError: there is no such size.
  """
  one_of('--study=FILE.py:SIZE with SIZE', size or 'full', ('full', 'small'))
  path = f'configs/{file}.py'
  if size != 'small':
    return Study(title, tuple(Row(n, f'{path}:{n}') for n in names), baseline=baseline)
  rows = []
  for name, options in small.items():
    network = 'r20' if options is None else 'se_r20'
    changes = (f'--config.model.se.{option}' for option in options or ())
    rows.append(Row(name, f'configs/cifar10_{network}.py', (*_SMALL, *changes), f'{path}:{name}'))
  return Study(f'{title} (small)', tuple(rows), (0, 1), baseline, _SMALL_NOTE)
