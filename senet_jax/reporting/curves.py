"""The curves of a run, or of several, as a picture."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from senet_jax.config import flatten
from senet_jax.reporting import look

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = (*look.COLOURS, 'black')
_TRAIN, _EVAL = _COLOURS[:2]
_Line = tuple[str, str, str, str, str]


def _both(key: str) -> tuple[_Line, ...]:
  training, evaluation = (_TRAIN, '--', 'training'), (_EVAL, '-', 'evaluation')
  return ('train', key, *training), ('eval', key, *evaluation)


# Of each panel the label, the scale and the lines: kind and field of the records, and their look.
_CLASSIFICATION: tuple[tuple[str, str, tuple[_Line, ...]], ...] = (
  ('loss (nats)', 'log', _both('loss')),
  ('top-1 error (%)', 'linear', _both('top1_error')),
)
_DETECTION: tuple[tuple[str, str, tuple[_Line, ...]], ...] = (
  (
    'loss in training',
    'log',
    (
      ('train', 'loss', _TRAIN, '-', 'all'),
      ('train', 'rpn_objectness', _COLOURS[2], '--', 'objectness of anchors'),
      ('train', 'rpn_boxes', _COLOURS[3], '--', 'boxes of anchors'),
      ('train', 'roi_classes', _COLOURS[4], ':', 'classes'),
      ('train', 'roi_boxes', _COLOURS[5], ':', 'boxes'),
    ),
  ),
  (
    'average precision (%)',
    'linear',
    (
      ('eval', 'ap50', _TRAIN, '--', 'at IoU 0.5'),
      ('eval', 'ap', _EVAL, '-', 'over IoU 0.5 to 0.95'),
    ),
  ),
)
# More of them than this would hide their line.
_DOTS = 30
_STYLES = ('-', ':', '-.')
# More of them than this do not fit a legend.
_FIELDS = 2


def plot(records: list[dict[str, Any]], path: pathlib.Path, title: str) -> None:
  """Writes the picture of `of_run` as a PNG to `path`."""
  look.save(of_run(records, title), path)


def of_run(records: list[dict[str, Any]], title: str) -> 'Figure':
  """Returns a picture over epochs of the loss, and of what a run is judged by.

  Args:
    records: of `metrics.jsonl`.
    title: above it.
  """
  figure = look.canvas(9, 3.6, title)
  panels = _DETECTION if any('ap' in record for record in records) else _CLASSIFICATION
  for axes, (label, scale, lines) in zip(figure.subplots(1, 2), panels, strict=True):
    for kind, key, colour, style, name in lines:
      axes.plot(*_points(records, kind, key), style, color=colour, label=name)
    axes.set(xlabel='epoch', ylabel=label, yscale=scale)
    axes.grid(alpha=0.3, which='both')
    axes.legend(frameon=False)
  return figure


def labels(configs: Sequence[ConfigDict], workdirs: Sequence[pathlib.Path]) -> list[str]:
  """Returns a name for each run, by which it can be told from the others.

  That is its network, with the fields in which the configurations differ where several runs have
  one; or its workdir where these do not tell it, or are more than two.

  Args:
    configs: of the runs.
    workdirs: of the same.
  """
  networks = [config.model.name for config in configs]
  if len(set(networks)) == len(networks):
    return networks
  flat = [dict(flatten(config)) for config in configs]
  fields = [
    field
    for field in dict.fromkeys(field for config in flat for field in config)
    if field != 'model.name' and len({repr(config.get(field)) for config in flat}) > 1
  ]
  if len(fields) <= _FIELDS:
    named = [
      ', '.join([network, *(f'{field}={config.get(field)}' for field in fields)])
      for network, config in zip(networks, flat, strict=True)
    ]
    if len(set(named)) == len(named):
      return named
  return [str(workdir) for workdir in workdirs]


def comparison(runs: Sequence[tuple[str, list[dict[str, Any]]]], title: str) -> 'Figure':
  """Returns a picture of the top-1 error of several runs over epochs, as Figure 4 of the paper.

  Networks with SE and their twins without it have one colour, those without are dashed. Other runs
  have a colour each. Training is thin; evaluations have dots where they are few, as a line of a
  single one is nothing.

  Args:
    runs: names, as of `labels`, and their `metrics.jsonl`.
    title: above the picture.
  """
  figure = look.canvas(7, 4.2, title)
  axes = figure.subplots()
  names = [name for name, _ in runs]
  groups = list(dict.fromkeys(name.removeprefix('se_') for name in names))
  for name, records in runs:
    group = name.removeprefix('se_')
    colour = _COLOURS[groups.index(group) % len(_COLOURS)]
    # A style for each time that the colours are used up.
    style = _STYLES[groups.index(group) // len(_COLOURS) % len(_STYLES)]
    if group == name and f'se_{name}' in names:
      style = '--'
    training, evaluation = (_points(records, kind, 'top1_error') for kind in ('train', 'eval'))
    axes.plot(*training, style, color=colour, linewidth=0.9, label=f'{name}, training')
    dots: dict[str, Any] = {
      'marker': 'o' if len(evaluation[0]) <= _DOTS else '',
      'markersize': 4.5,
      'markerfacecolor': colour if style == '-' else 'white',
    }
    axes.plot(*evaluation, style, color=colour, linewidth=2.0, label=f'{name}, evaluation', **dots)
  axes.set(xlabel='epoch', ylabel='top-1 error (%)')
  axes.grid(alpha=0.3)
  axes.legend(frameon=False)
  return figure


def _points(records: list[dict[str, Any]], kind: str, key: str) -> tuple[list, list]:
  chosen = [record for record in records if record['kind'] == kind and key in record]
  return [record['epoch'] for record in chosen], [record[key] for record in chosen]
