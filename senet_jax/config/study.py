"""Studies: the runs that make a table of a publication."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from senet_jax.errors import one_of


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table: runs that differ in nothing but the seed.

  Attributes:
    name: in the table, and of the directory of its runs.
    config: as of `senet_jax.main --config=…`.
    overrides: of fields, `--config.field=value`.
    baseline: the row that it is compared with, seed by seed.
    published: the configuration whose header has the published error; None: `config`.
  """

  name: str
  config: str
  overrides: tuple[str, ...] = ()
  baseline: str | None = None
  published: str | None = None


@dataclasses.dataclass(frozen=True)
class Study:
  """A table.

  Attributes:
    title: what it shows.
    rows: from top to bottom.
    seeds: of the runs of each row.
    note: what a reader must know of its numbers.
  """

  title: str
  rows: tuple[Row, ...]
  seeds: tuple[int, ...] = (0, 1, 2)
  note: str = ''


HELD_OUT = 'Ours is of the held-out images, the published of the test images.'
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
  'the published column is of the published network and data.'
)


def variants(file: str, names: Iterable[str]) -> dict[str, str]:
  """Returns the rows of `configs/FILE.py`, each a variant of that name."""
  return {name: f'configs/{file}.py:{name}' for name in names}


def pairs(networks: Iterable[str]) -> dict[str, str]:
  """Returns configurations called `DATA_NETWORK`, each followed by its twin `DATA_se_NETWORK`."""
  rows = {}
  for name in networks:
    data, network = name.split('_', 1)
    for row in (name, f'{data}_se_{network}'):
      rows[row] = f'configs/{row}.py'
  return rows


def study(
  size: str,
  title: str,
  rows: Mapping[str, str],
  baselines: str | Mapping[str, str],
  small: Mapping[str, Sequence[str] | None],
  note: str = '',
) -> Study:
  """Returns a study at full scale, or a `small` one, which a CPU finishes.

  Args:
    size: `full` or `small`; empty is full.
    title: of the table.
    rows: configuration of each row.
    baselines: the row that all are compared with, or that of each that is.
    small: of the rows that a small network has too, the options of its SE blocks, such as
      `ratio=8`; None: no SE.
    note: on the numbers at full scale.

  Raises:
    UserError: there is no such size.
  """
  one_of('the size', size or 'full', ('full', 'small'))
  if isinstance(baselines, str):
    baselines = {name: baselines for name in rows if name != baselines}
  if size != 'small':
    full = (Row(name, config, (), baselines.get(name)) for name, config in rows.items())
    return Study(title, tuple(full), note=note)
  made = []
  for name, options in small.items():
    network = 'r20' if options is None else 'se_r20'
    changes = (f'--config.model.se.{option}' for option in options or ())
    config, overrides = f'configs/cifar10_{network}.py', (*_SMALL, *changes)
    made.append(Row(name, config, overrides, baselines.get(name), rows[name]))
  return Study(f'{title} (small)', tuple(made), (0, 1), _SMALL_NOTE)


def twins(rows: Iterable[str]) -> dict[str, str]:
  """Returns the baseline of each row with SE: the same name without `se_`."""
  names = list(rows)
  return {n: n.replace('se_', '', 1) for n in names if n.replace('se_', '', 1) in set(names) - {n}}
