r"""Measures on an accelerator all that this project claims of one, in the order of its worth.

  python -m senet_jax.tools.evidence --list
  python -m senet_jax.tools.evidence --output=results/evidence/h100 --data=DIR --budget=30
  python -m senet_jax.tools.evidence --output=DIR --only=se_tax,cifar_rate
  python -m senet_jax.tools.evidence --output=DIR --rehearse
  python -m senet_jax.tools.evidence --pack=DIR --data=DIR

Each measurement is one or more commands of this project, in a process of its own under a limit of
time, and its record is written to OUTPUT/NAME.json when it ends. The same command goes on where it
was stopped and leaves out what is there; what failed is tried again. --budget says how many minutes
there are: a measurement is begun only if it is expected to fit, or can be resumed. --only takes
names or groups of --list. --rehearse goes through the whole list with tiny networks, on any device.

--data is a pack, or a directory with the published files of CIFAR; otherwise the data sets in the
directory of tfds are used. --photos is a folder of JPEGs, as of configs/finetune_image_folder.py.
--pack writes what a machine without network needs, in parts of less than 60 MB: wheels, this code,
and CIFAR from --data. --commit says of which commit code without a repository is.

Exit status: 0 when everything is there or cannot be measured here, 1 when something failed, 75 when
something is left.
"""

import os
import pathlib

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.reporting import tables
from senet_jax.storage import files


def main(argv: list[str]) -> int:
  """Makes the measurements that are missing and prints the table; returns the exit status."""
  parser = cli.Parser('tools.evidence', __doc__)
  add = parser.add_argument
  add('--list', action='store_true', help='print the measurements')
  add('--output', type=cli.new_folder, help='directory for the records')
  add('--budget', type=cli.positive, help='minutes; default: no limit')
  add('--only', type=cli.words, default=(), help='names or groups, with commas')
  add('--rehearse', action='store_true', help='tiny networks, on any device')
  add('--data', type=pathlib.Path, help='a pack, or the published files of CIFAR')
  add('--photos', type=pathlib.Path, help='folder of JPEGs')
  add('--pack', type=cli.new_folder, help='directory to write a pack to')
  add('--target_python', help='of --pack: version of Python there, such as 3.12')
  add('--commit', help='of this code')
  args = parser.parse_args(argv)
  from senet_jax.measure import plan
  from senet_jax.runtime.commit import VARIABLE

  measurements = plan.chosen(args.only)
  if args.list:
    _print_list(measurements)
    return 0
  if args.pack:
    return _pack(args)
  if args.output is None:
    parser.error('--output=DIR is missing: the directory for the records')
  for name in ('data', 'photos'):
    path = getattr(args, name)
    if path is not None and not path.is_dir():
      raise UserError(f'--{name}={path} is not a directory; check the path.')
    setattr(args, name, path and path.expanduser().absolute())
  if args.commit:
    os.environ[VARIABLE] = args.commit  # of the commands, too
  return _measure(args, measurements)


def _print_list(measurements) -> None:
  rows = [(m.name, m.group, f'{m.minutes:g}', ', '.join(m.needs) or '-', m.what)
          for m in measurements]  # fmt: skip
  tables.print_table('name group minutes needs what', rows, left=True)


def _pack(args) -> int:
  from senet_jax.data import arrays, carry

  source = args.data or arrays.default_data_dir()
  sources = {name: source for name in ('cifar10', 'cifar100') if carry.holds(source, name)}
  if args.data and not sources:
    raise UserError(
      f'--data={source} has neither cifar10 nor cifar100; give another, or leave it out.'
    )
  command = 'python -m senet_jax.tools.evidence --output=../evidence --budget=30'
  for path in carry.pack(
    args.pack, sources=sources, python_version=args.target_python, commands=(command,)
  ):
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f'{path}: {size / 1e6:.1f} MB')
  print(f'what to do there: {args.pack / "part1" / "README.txt"}')
  return 0


def _measure(args, measurements) -> int:
  from senet_jax.measure import evidence
  from senet_jax.measure.plan import Context

  output = args.output.expanduser().absolute()
  machine = evidence.look_around()
  if machine['platform'] == 'cpu' and not args.rehearse:
    raise UserError(
      f'there is no accelerator here, only {machine["device"]}; run this where one is, or try all '
      'of it with --rehearse.'
    )
  evidence.open_directory(output, machine, rehearse=args.rehearse)
  context = Context(output, args.rehearse, machine, args.data, args.photos)
  with files.locked(output / 'work'):
    work = evidence.Evidence(context, measurements, args.budget)
    rows = work.run()
  print()
  tables.print_table(
    'measurement status minutes result',
    [(row.name, row.status, f'{row.minutes:.1f}', row.what) for row in rows],
    left=True,
  )
  print(f'records: {output}')
  found = {row.status for row in rows}
  if evidence.FAILED in found:
    return 1
  return cli.PREEMPTED if found & {evidence.UNFINISHED, evidence.NOT_RUN} else 0


if __name__ == '__main__':
  cli.run(main)
