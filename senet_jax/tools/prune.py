r"""Makes a network smaller by what its SE gates say, and compares that with other choices.

  python -m senet_jax.tools.prune --workdir=runs/se20 --output=table.json --figure=table.png
  python -m senet_jax.tools.prune --workdir=runs/se20 --channels=0.3 --to=runs/se20_pruned
  python -m senet_jax.tools.prune --workdir=runs/se20 --drop_blocks=3 --by=magnitude --to=DIR
  python -m senet_jax.tools.prune --workdir=runs/se20 --drop_blocks=SE_4_2,SE_4_3 --to=DIR

Without --to it prints the errors of the evaluation split against the parameters, for some numbers
of SE blocks and some shares of channels, chosen in three ways:

  gates      SE blocks from the last stage to the first, and in a stage those whose gates vary
             least over the images; channels by their mean gate
  magnitude  SE blocks by the mean size of their weights; channels by the L1 norm of the filter
  random     several times, mean and standard deviation

With --to it writes the smaller network: a workdir for tools.evaluate, tools.predict and
config.init_from, which trains it further. Gates are those of the first images of each class of the
training split.

A block that is dropped leaves its mean gate in the weights in front of it. A channel that is
dropped is one of a residual branch: its filter in the last convolution, its BN, its part of SE. Of
each branch with SE the same share goes. To drop channels and blocks, drop the channels first.
"""

import argparse
from typing import TYPE_CHECKING, Any

from senet_jax import cli
from senet_jax.errors import UserError, at_least
from senet_jax.excitation import pruning_choices
from senet_jax.reporting import tables
from senet_jax.storage import files

if TYPE_CHECKING:
  from senet_jax.excitation.pruning_trial import Trial

_COLUMNS = 'drop amount by params % top-1_% ± top-5_% n'


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)

  from senet_jax import runtime
  from senet_jax.data import feeds
  from senet_jax.excitation import activations, pruning, pruning_figure, pruning_trial
  from senet_jax.workdir import networks, summary

  runtime.use_compilation_cache()
  mesh = runtime.data_mesh()
  run = pruning.prepared(networks.load(args.workdir, args.checkpoint, mesh))
  config = run.evaluation_config(args.data_dir, args.batch_size)
  pruning_trial.check_blocks(run, config, args.drop_blocks or ())
  split = args.split or config.data.eval_split
  gates_split = args.gates_split or config.data.train_split
  feed = feeds.evaluation_feed(config, split, mesh)
  gates_feed = feeds.evaluation_feed(config, gates_split, mesh)
  blocks = activations.measure(run.model, run.variables, gates_feed, mesh, args.images_per_class)
  gates = {name: pruning.Gates.of(block) for name, block in blocks.items()}
  trial = pruning_trial.Trial(run, gates, feed, mesh)
  record = {
    **summary.record_head('errors of pruned networks', 'prune', argv),
    'model': config.model.name,
    'workdir': str(args.workdir),
    'step': run.step,
    'dataset': config.data.name,
    'split': split,
    'gates_split': gates_split,
    'gates_images': int(next(iter(blocks.values())).count.sum()),
    'blocks': trial.describe(),
  }
  print(f'{config.model.name}, step {run.step}, on {config.data.name} {split}')
  if args.to:
    record |= _make_one(args, trial)
  else:
    by = (args.by,) if args.by else pruning_choices.RANKINGS
    wanted = pruning_trial.choices(len(gates), by, args.drop_blocks, args.channels, args.seeds)
    record |= trial.compare(wanted)
    tables.print_table(_COLUMNS, pruning_trial.table_cells(record))
  if args.figure:
    title = '{model} on {dataset} {split}, not trained further'.format(**record)
    pruning_figure.draw(args.figure, title, record['whole'], record['table'])
  if args.output:
    files.write_json(args.output, record)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.prune', __doc__)
  add = parser.add_argument
  parser.add_bare('--workdir', type=cli.path_or_bucket, help='of the run')
  add('--checkpoint', default='best', help='best (default), latest, or a step')
  add(
    '--drop_blocks',
    type=pruning_choices.blocks,
    metavar='N[,N,...]',
    help='how many, or with --to their names',
  )
  add(
    '--channels',
    type=pruning_choices.shares,
    metavar='S[,S,...]',
    help='share of each branch to drop',
  )
  add('--by', choices=pruning_choices.RANKINGS, help='default: gates; of the table, all')
  add('--to', type=cli.new_path, help='new workdir for the smaller network')
  add('--seed', type=int, default=0, help='of --by=random with --to; default: 0')
  add('--seeds', type=cli.number, default=5, help='random choices in the table; default: 5')
  add('--split', help="to evaluate on; default: the run's evaluation split")
  add('--gates_split', help="to take the gates from; default: the run's training split")
  add('--images_per_class', type=cli.number, default=50, help='for the gates; default: 50')
  add('--data_dir', help="default: the run's")
  add('--batch_size', type=cli.number, help='images at once over all devices; default: of the run')
  add('--figure', type=cli.new_file, help='also draw the table to this PNG file')
  parser.add_output()
  args = parser.parse_args(argv)
  at_least('--seed', args.seed, 0)
  if args.figure and args.figure.suffix != '.png':
    raise UserError(f'--figure={args.figure} must end in .png.')
  if not args.to:
    pruning_choices.check_numbers(args.drop_blocks)
    return args
  if args.figure:
    raise UserError(f'--figure={args.figure} shows the table; leave --to out for that.')
  args.choice, args.names = pruning_choices.one(args.drop_blocks, args.channels, args.by, args.seed)
  if args.to.exists() and (not args.to.is_dir() or any(args.to.iterdir())):
    raise UserError(f'--to={args.to} is there already; choose another directory.')
  return args


def _make_one(args: argparse.Namespace, trial: 'Trial') -> dict[str, Any]:
  """Writes the smaller network and prints how good it is; returns that for the record."""
  from senet_jax.excitation.pruning_trial import cells, dropped
  from senet_jax.workdir import saved

  gone = args.names or trial.gone(args.choice)
  smaller = trial.smaller(gone)
  found = trial.write(args.to, smaller, f'{args.workdir}, step {trial.run.step}')
  rows = [[name, *cells(found[name], found['whole'])] for name in ('whole', 'pruned')]
  tables.print_table('network params % top-1_% top-5_%', rows)
  print(f'written to {args.to}')
  for line in saved.how_to_use(smaller.config, args.to):
    print(line)
  return {'to': str(args.to), 'choice': args.choice._asdict(), 'dropped': dropped(gone), **found}


if __name__ == '__main__':
  cli.run(main)
