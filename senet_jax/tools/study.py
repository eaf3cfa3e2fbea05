r"""Runs the experiments of a table, those that are missing, and prints it.

  python -m senet_jax.tools.study --study=configs/studies/ratio.py:small --workdir=runs/ratio \
      --output=results/studies/ratio_small.json

A study is a list of configurations, with seeds and what was published. Each run is one of
`senet_jax.main` with its workdir in WORKDIR/ROW/seedK, so the same command goes on wherever it was
stopped; a run whose summary is in RECORDS/ROW/seedK counts as made. Configurations, data and
classes of all runs are checked before the first one begins.
--shard=1/4 makes the first quarter of the runs, for four machines with one WORKDIR; --table makes
none. A row that fails is shown as such, and the others go on. --output writes the table as JSON,
and as .csv and .md beside it; --figure draws the errors over the seconds of training, those that
were logged or, by --rates, at the rates of a `tools.benchmark --models=… --mode=train`. --rows and
--seeds take a part of a study, --config.FIELD=VALUE changes a field of all its configurations, such
as --config.data.dir or --config.data.fake, and --together=N makes N runs at a time, each a process
of its own, which small networks on a large GPU gain from. Exit status: 0 when all runs are there, 1
if one failed or is missing, 75 after SIGTERM or Ctrl-C, with a table of what is there.
"""

import dataclasses
import pathlib

from senet_jax import cli, flags
from senet_jax.errors import UserError
from senet_jax.storage import files


def main(argv: list[str]) -> int:
  """Runs the command with the arguments `argv`; returns the exit status."""
  args, overrides = _parse(argv)

  # Late, so that a missing package is one line.
  from senet_jax.config import reading
  from senet_jax.reporting import study_table
  from senet_jax.training import step_rates, studies

  study = studies.part(reading.load_study(args.study), args.rows, args.seeds, overrides)
  study = dataclasses.replace(study, note=f'{study.note} {args.note}'.strip())
  studies.check(study, args.study)
  if args.records and not args.records.is_dir():
    raise UserError(f'--records={args.records} is not a directory; check the path.')
  runs = studies.runs_of(study, args.workdir, args.records)
  rate = step_rates.read(args.rates) if args.rates else None
  if rate:
    for run in runs:
      rate(run.config())  # what is missing is said before hours of training
  finished = args.table or _make(runs[_shard(args.shard)], args.together)
  rows = [studies.results(row, runs, rate) for row in study.rows]
  study_table.compare(rows, {row.name: row.baseline for row in study.rows})
  text = study_table.markdown(study, rows)
  print(text, end='')
  if args.figure:
    from senet_jax.reporting import error_and_time

    error_and_time.draw(args.figure, study.title, rows)
  if args.output:
    _write(args.output, study.title, study.note, rows, text, argv)
  if not finished:
    return cli.PREEMPTED
  missing = any(len(row['errors']) < len(study.seeds) for row in rows)
  failed = any(row['failures'] for row in rows)
  return int(failed or (missing and args.shard == '1/1'))


def _parse(argv: list[str]):
  parser = cli.Parser('tools.study', __doc__)
  add = parser.add_argument
  add('--study', help='FILE.py, or the name of one in the package; NAME:small; list prints them')
  parser.add_bare('--workdir', required=False, type=pathlib.Path)
  add(
    '--records',
    type=pathlib.Path,
    help='directory with the summaries of runs made before; enough for --table',
  )
  add('--shard', default='1/1', help='I/N: the I-th of N parts of the runs')
  add('--rows', type=cli.words, help='only these, with commas')
  add('--seeds', type=cli.words, help='instead of those of the study, with commas')
  add('--together', type=cli.number, default=1, help='runs at a time')
  add(
    '--rates',
    type=pathlib.Path,
    help='record of tools.benchmark: seconds of training by these, not by those that runs logged',
  )
  add('--table', action='store_true', help='only print the table')
  add('--figure', type=cli.new_file, metavar='FILE.png', help='error against time of training')
  add('--note', default='', help='below the table: what a reader should know')
  parser.add_output()
  args, overrides = parser.parse_with_overrides(argv)
  if args.study == 'list':
    flags.print_shipped(studies=True)
    parser.exit()
  if args.study is None:
    from senet_jax.config import reading

    known = ', '.join(reading.shipped(studies=True))
    parser.error(f'--study is missing: FILE.py, or one in the package: {known}')
  if args.table:
    args.workdir = args.workdir or args.records
  if args.workdir is None:
    parser.error('--workdir is missing')
  if not args.table and (why := files.unwritable(args.workdir)):
    parser.error(f'argument --workdir: {why}')
  return args, overrides


def _shard(text: str) -> slice:
  number, _, count = text.partition('/')
  if not (number.isdecimal() and count.isdecimal() and 0 < int(number) <= int(count)):
    raise UserError(f'--shard={text} must be I/N with I from 1 to N, such as 1/4.')
  return slice(int(number) - 1, None, int(count))


def _make(runs, together: int) -> bool:
  """Makes the runs that are missing; returns False if a signal stopped that."""
  from senet_jax import runtime
  from senet_jax.training import studies

  if together > 1:
    studies.share_devices()
  missing = [run for run in runs if not run.summary()]
  studies.check_runs(missing)
  if together > 1:
    return studies.make_together(together, missing)
  with (
    runtime.Preemption() as stop
  ):  # here: a signal between two runs, or at the end of one, counts
    return studies.make(runs, stop)


def _write(path: pathlib.Path, title: str, note: str, rows: list, text: str, argv) -> None:
  from senet_jax.reporting import study_table
  from senet_jax.workdir import summary

  head = summary.record_head(title, 'study', argv)
  files.write_json(path, {**head, 'note': note, 'rows': rows})
  files.write_text(path.with_suffix('.md'), text)
  files.write_text(path.with_suffix('.csv'), study_table.csv(rows))


if __name__ == '__main__':
  cli.run(main)
