"""Keeps measured results and writes the tables that show them.

  python -m senet_jax.tools.report --record=NAME --command='...' WORKDIR [WORKDIR ...]
  python -m senet_jax.tools.report --curves=FILE.png WORKDIR WORKDIR [WORKDIR ...]
  python -m senet_jax.tools.report --blocks=DIR
  python -m senet_jax.tools.report

The first form writes results/NAME.json and results/NAME.png from finished runs of one experiment,
one a seed. The second draws the errors of several runs in one picture, SE beside its baseline as in
Figure 4; with --command it writes the points to FILE.json too. The third draws the blocks of
Figures 2, 3 and 5 from what the modules compute. The last rewrites what is between
`<!-- results -->` and `<!-- /results -->`: in README.md the experiments that were run and what was
measured on accelerators, in docs/performance.md all of the latter, in configs/README.md one row a
configuration, and the tables of the studies in results/studies. The published error beside ours is
that of the header of the configuration that the command names.
"""

import datetime
import json
import os
import pathlib
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.reporting import look, published
from senet_jax.reporting.statistics import mean_std
from senet_jax.storage import files

BEGIN, END = '<!-- results -->', '<!-- /results -->'
_OF_A_RUN = ('final', 'best', 'steps', 'epochs', 'examples_seen', 'wall_time_s',
             'images_per_second', 'params_sha256')  # fmt: skip


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  parser = cli.Parser('tools.report', __doc__)
  parser.add_argument('workdirs', nargs='*', type=pathlib.Path, metavar='WORKDIR')
  form = parser.add_mutually_exclusive_group()
  form.add_argument('--record', metavar='NAME', help='of the results file to write')
  form.add_argument(
    '--curves', type=pathlib.Path, metavar='FILE.png', help='picture of several runs to write'
  )
  form.add_argument(
    '--blocks', type=pathlib.Path, metavar='DIR', help='for the drawings of the blocks'
  )
  parser.add_argument('--command', help='that made the runs, to be kept with the result')
  parser.add_argument('--note', default='', help='what a reader of the number should know')
  parser.add_argument('--root', type=pathlib.Path, default=pathlib.Path(), help='of the project')
  args = parser.parse_args(argv)
  if args.workdirs and not (args.record or args.curves):
    parser.error('a WORKDIR needs --record or --curves')
  if args.curves:
    _draw(args.curves, args.workdirs, args.command, args.note)
    return
  if args.blocks:
    from senet_jax.diagrams import blocks as block_drawings

    for path in block_drawings.write(args.blocks):
      print(f'wrote {path}')
    return
  results = args.root / 'results'
  if args.record:
    if not args.workdirs or not args.command:
      parser.error('--record needs --command and at least one WORKDIR')
    record(results / f'{args.record}.json', args.workdirs, args.command, args.note)
  for page, text in pages(args.root).items():
    replace_table(page, text)
    print(f'wrote {page}')


def _draw(path: pathlib.Path, workdirs: list[pathlib.Path], command: str | None, note: str) -> None:
  from senet_jax.reporting import curves
  from senet_jax.workdir.records import read_records
  from senet_jax.workdir.saved import read_config

  if not workdirs:
    raise UserError('--curves needs at least one WORKDIR.')
  configs, records = [], []
  for workdir in workdirs:
    if not (workdir / 'metrics.jsonl').exists():
      raise UserError(f'{workdir} has no metrics.jsonl; give the workdir of a run.')
    configs.append(read_config(workdir))
    records.append(read_records(workdir / 'metrics.jsonl'))
  title = configs[0].data.name + (f': {note}' if note else '')
  named = [(c.model.name, points) for c, points in zip(configs, records, strict=True)]
  look.save(curves.comparison(named, title), path)
  if command:
    keys = ('kind', 'epoch', 'loss', 'top1_error')
    runs = [
      {'model': c.model.name, 'seed': c.seed, 'points': [{k: r[k] for k in keys} for r in points]}
      for c, points in zip(configs, records, strict=True)
    ]
    row = _origin(command, note, _read_summary(workdirs[0])) | {'runs': runs}
    files.write_json(path.with_suffix('.json'), row)


def _origin(command: str, note: str, summary: dict[str, Any]) -> dict[str, Any]:
  """Returns where a result comes from: the command, and machine and versions of its first run."""
  return {
    'command': command,
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    'note': note,
    **{key: summary[key] for key in ('git_commit', 'device', 'versions')},
    'cpu_cores': os.cpu_count(),
  }


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
  from senet_jax import config as config_lib
  from senet_jax.models import model_info
  from senet_jax.reporting import curves
  from senet_jax.workdir.records import read_records
  from senet_jax.workdir.saved import read_config

  configs = [read_config(workdir) for workdir in workdirs]
  for workdir, config in zip(workdirs, configs, strict=True):
    differing = set(config_lib.differences(configs[0], config, length=True)) - {'seed'}
    if differing:
      raise UserError(f'{workdir} differs from {workdirs[0]} in {", ".join(sorted(differing))}.')
  if len({config.seed for config in configs}) < len(configs):
    raise UserError('two of the runs have the same seed; a mean over them would be one of fewer.')
  summaries = [_read_summary(workdir) for workdir in workdirs]
  info, first = model_info(configs[0].model.name), summaries[0]
  errors = [s['final']['top1_error'] for s in summaries]
  # What is held out of the training images is not what the published figures are of.
  held_out = configs[0].data.eval_split.startswith('train')
  row = {
    **_origin(command, note, first),
    'model': info.name,
    'dataset': configs[0].data.name,
    'params': first['params'],
    'published_top1_error': None if held_out else published.error(path.parents[1], command),
    'top1_error': mean_std(errors),
    'images_per_second': mean_std([s['images_per_second'] for s in summaries]),
    'runs': [
      {'seed': c.seed, **{k: s[k] for k in _OF_A_RUN}}
      for c, s in zip(configs, summaries, strict=True)
    ],
    'config': configs[0].to_dict(),
  }
  files.write_json(path, row)
  title = f'{info.name} on {row["dataset"]}, {first["epochs"]:.3g} epochs'
  curves.plot(read_records(workdirs[0] / 'metrics.jsonl'), path.with_suffix('.png'), title)


def _read_summary(workdir: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads((workdir / 'summary.json').read_text())
  except FileNotFoundError as error:
    raise UserError(f'{workdir} holds no finished run: there is no summary.json in it.') from error
  except (ValueError, RecursionError) as error:
    raise UserError(
      f'{workdir}/summary.json is damaged ({error}); the command that made the run writes it anew.'
    ) from error


def pages(root: pathlib.Path) -> dict[pathlib.Path, str]:
  """Returns what is between the marks of each page of the project in `root`."""
  from senet_jax.measure import evidence_tables

  results = root / 'results'
  studies = (path.read_text() for path in sorted((results / 'studies').glob('*.md')))
  return {
    root / 'README.md': '\n\n'.join(
      [table(root, 'results', only_run=True), evidence_tables.overview(results)]
    ),
    root / 'docs' / 'performance.md': evidence_tables.details(results),
    root / 'configs' / 'README.md': '\n\n'.join([table(root, '../results'), *studies]).rstrip(),
  }


def table(root: pathlib.Path, links: str, *, only_run: bool = False) -> str:
  """The results as a Markdown table.

  Args:
    root: of the project, with `configs/` and `results/`.
    links: path of `results/` seen from the page.
    only_run: leave out the configurations that have no result.
  """
  found = {p.stem: json.loads(p.read_text()) for p in sorted((root / 'results').glob('*.json'))}
  lines = [
    '| experiment | published test error | ours | gap | images/s | |',
    '|---|---|---|---|---|---|',
  ]
  names = [p.stem for p in sorted((root / 'configs').glob('*.py'))]
  commands = (published.COMMAND.search(result['command']) for result in found.values())
  varied = {match[1] for match in commands if match and match[2]}
  # A shortened run of a configuration, and one of a variant, has a name of its own and comes below.
  for name in sorted({*names, *found}):
    if name in found:
      lines.append(_row(name, found[name], links))
    elif not only_run:
      ours = 'below, where run' if name in varied else 'not run'
      lines.append(f'| `{name}` | {published.in_words(root, name)} | {ours} | | | |')
  return '\n'.join(lines)


def _row(name: str, result: dict[str, Any], links: str) -> str:
  error, theirs = result['top1_error'], result['published_top1_error']
  shown = f'{error["mean"]:.2f} %'
  if error['std'] is not None:
    shown = f'{error["mean"]:.2f} ± {error["std"]:.2f} % (n = {error["n"]})'
  gap = '' if theirs is None else f'{error["mean"] - theirs:+.2f}'
  cells = [
    f'`{name}`' + (f': {result["note"]}' if result['note'] else ''),
    'none' if theirs is None else f'{theirs:.2f} %',
    shown,
    gap,
    f'{result["images_per_second"]["mean"]:.0f} on {result["device"]}',
    f'[numbers]({links}/{name}.json), [curves]({links}/{name}.png)',
  ]
  return f'| {" | ".join(cells)} |'


def replace_table(page: pathlib.Path, text: str) -> None:
  """Puts `text` between the marks of `page`.

  Raises:
    UserError: the page has no such marks.
  """
  content = page.read_text()
  before, begin, rest = content.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not begin or not end:
    raise UserError(f'{page} has no lines {BEGIN} and {END} to put the table between.')
  page.write_text(f'{before}{BEGIN}\n{text}\n{END}{after}')


if __name__ == '__main__':
  cli.run(main)
