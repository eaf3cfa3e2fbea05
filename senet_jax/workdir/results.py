"""Keeps what finished runs came to: results files, and pictures of their curves."""

import datetime
import os
import pathlib
from typing import Any

from senet_jax import config as config_lib
from senet_jax.errors import UserError
from senet_jax.models import CLASSIFICATION, model_info
from senet_jax.reporting import curves, look, published
from senet_jax.reporting.statistics import mean_std
from senet_jax.storage import files
from senet_jax.workdir import summary
from senet_jax.workdir.objective import OF_TASK
from senet_jax.workdir.records import read_records
from senet_jax.workdir.saved import check_task, read_config

# What the results file has of the summary of each run.
RUN_FIELDS = ('final', 'best', 'steps', 'epochs', 'examples_seen', 'wall_time_s',
              'images_per_second', 'params_sha256')  # fmt: skip
_ORIGIN = ('git_commit', 'device', 'versions')
_POINT_FIELDS = ('kind', 'epoch', 'loss', 'top1_error')


def record(path: pathlib.Path, workdirs: list[pathlib.Path], command: str, note: str) -> None:
  """Writes the results file of finished runs, and their curves beside it.

  Args:
    path: of the JSON file, in the project's `results/`.
    workdirs: of runs that differ in nothing but the seed.
    command: that made them.
    note: what a reader should know.

  Raises:
    UserError: a run is not finished, or they are of different experiments.
  """
  configs = [read_config(workdir) for workdir in workdirs]
  for workdir, config in zip(workdirs, configs, strict=True):
    differing = set(config_lib.differences(configs[0], config, length=True)) - {'seed'}
    if differing:
      raise UserError(f'{workdir} differs from {workdirs[0]} in {", ".join(sorted(differing))}.')
  if len({config.seed for config in configs}) < len(configs):
    raise UserError('two of the runs have the same seed; a mean over them would be one of fewer.')
  summaries = [summary.read(workdir, (*RUN_FIELDS, 'params', *_ORIGIN)) for workdir in workdirs]
  info, first = model_info(configs[0].model.name), summaries[0]
  metric = OF_TASK[info.task].metric
  values = [s['final'][metric] for s in summaries]
  # What is held out of the training images is not what the published figures are of.
  held_out = configs[0].data.eval_split.startswith('train')
  row = {
    **_origin(command, note, first),
    'model': info.name,
    'dataset': configs[0].data.name,
    'params': first['params'],
    f'published_{metric}': None if held_out else published.error(path.parents[1], command),
    metric: mean_std(values),
    'images_per_second': mean_std([s['images_per_second'] for s in summaries]),
    'runs': [
      {'seed': c.seed, **{k: s[k] for k in RUN_FIELDS}}
      for c, s in zip(configs, summaries, strict=True)
    ],
    'config': configs[0].to_dict(),
  }
  files.write_json(path, row)
  title = f'{info.name} on {row["dataset"]}, {first["epochs"]:.3g} epochs'
  curves.plot(read_records(workdirs[0] / 'metrics.jsonl'), path.with_suffix('.png'), title)


def draw(
  path: pathlib.Path, workdirs: list[pathlib.Path], command: str | None, note: str
) -> list[str]:
  """Draws the errors of runs in one picture; returns their labels in it.

  With `command` it also writes the points, to a JSON file beside the picture.

  Args:
    path: of the PNG.
    workdirs: of the runs, one or more.
    command: that made them, or None.
    note: what a reader should know; it is in the title, too.

  Raises:
    UserError: a directory holds no run.
  """
  configs, records = [], []
  for workdir in workdirs:
    if not (workdir / 'metrics.jsonl').exists():
      raise UserError(f'{workdir} has no metrics.jsonl; give the workdir of a run.')
    configs.append(read_config(workdir))
    check_task(configs[-1], CLASSIFICATION, str(workdir))
    records.append(read_records(workdir / 'metrics.jsonl'))
    if not any('top1_error' in record for record in records[-1]):
      raise UserError(f'{workdir} has no error to draw yet: its run ended before its first report.')
  title = configs[0].data.name + (f': {note}' if note else '')
  labels = curves.labels(configs, workdirs)
  look.save(curves.comparison(list(zip(labels, records, strict=True)), title), path)
  if command:
    runs = [
      {
        'model': c.model.name,
        'seed': c.seed,
        'points': [{k: r[k] for k in _POINT_FIELDS if k in r} for r in points],
      }
      for c, points in zip(configs, records, strict=True)
    ]
    row = _origin(command, note, summary.read(workdirs[0], _ORIGIN)) | {'runs': runs}
    files.write_json(path.with_suffix('.json'), row)
  return labels


def _origin(command: str, note: str, first: dict[str, Any]) -> dict[str, Any]:
  """Returns where a result comes from: the command, and machine and versions of its first run."""
  return {
    'command': command,
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    'note': note,
    **{key: first[key] for key in _ORIGIN},
    'cpu_cores': os.cpu_count(),
  }
