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

import pathlib

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.reporting import pages as pages_lib


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  parser = cli.Parser('tools.report', __doc__)
  parser.add_argument('workdirs', nargs='*', type=pathlib.Path, metavar='WORKDIR')
  form = parser.add_mutually_exclusive_group()
  form.add_argument('--record', metavar='NAME', help='of the results file to write')
  form.add_argument(
    '--curves', type=cli.new_file, metavar='FILE.png', help='picture of several runs to write'
  )
  form.add_argument(
    '--blocks', type=cli.new_folder, metavar='DIR', help='for the drawings of the blocks'
  )
  parser.add_argument('--command', help='that made the runs, to be kept with the result')
  parser.add_argument('--note', default='', help='what a reader of the number should know')
  parser.add_argument('--root', type=pathlib.Path, default=pathlib.Path(), help='of the project')
  args = parser.parse_args(argv)
  if args.workdirs and not (args.record or args.curves):
    parser.error('a WORKDIR needs --record or --curves')
  if args.record and not (args.workdirs and args.command):
    parser.error('--record needs --command and at least one WORKDIR')
  if args.curves and not args.workdirs:
    raise UserError('--curves needs at least one WORKDIR.')
  if args.blocks:
    from senet_jax.diagrams import blocks

    for path in blocks.write(args.blocks):
      print(f'wrote {path}')
    return
  if args.workdirs:
    from senet_jax.workdir import results

    if args.curves:
      labels = results.draw(args.curves, args.workdirs, args.command, args.note)
      print(f'wrote {args.curves}: {", ".join(labels)}')
      if args.command:
        print(f'wrote {args.curves.with_suffix(".json")}')
      return
    path = args.root / 'results' / f'{args.record}.json'
    results.record(path, args.workdirs, args.command, args.note)
  for page, text in pages(args.root).items():
    pages_lib.replace_between_marks(page, text)
    print(f'wrote {page}')


def pages(root: pathlib.Path) -> dict[pathlib.Path, str]:
  """Returns what is between the marks of each page of the project in `root`."""
  from senet_jax.measure import evidence_tables

  results, table = root / 'results', pages_lib.results_table
  studies = {path.stem: path.read_text() for path in sorted((results / 'studies').glob('*.md'))}
  first = [text.strip() for name, text in studies.items() if name.startswith('cifar10_r20')]
  return {
    root / 'README.md': '\n\n'.join(
      [*first, table(root, 'results', only_run=True), evidence_tables.overview(results)]
    ),
    root / 'docs' / 'performance.md': evidence_tables.details(results),
    root / 'configs' / 'README.md': '\n\n'.join(
      [table(root, '../results'), *studies.values()]
    ).rstrip(),
  }


if __name__ == '__main__':
  cli.run(main)
