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
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from senet_jax import cli
from senet_jax.errors import UserError, one_of
from senet_jax.reporting import tables
from senet_jax.reporting.statistics import mean_std
from senet_jax.storage import files

if TYPE_CHECKING:
  import numpy as np
  from jax.sharding import Mesh

  from senet_jax.data.feeds import EvaluationFeed
  from senet_jax.excitation.pruning import Gates
  from senet_jax.workdir.saved import Saved

  Gone = list[str] | dict[str, np.ndarray]

_CHOICES = ('gates', 'magnitude', 'random')
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_MOST_COUNTS = 9  # of blocks, in a table that nobody has asked for more
_COLUMNS = 'drop amount by params % top-1_% ± top-5_% n'


class _Choice(NamedTuple):
  """A choice of what is dropped.

  Attributes:
    what: `blocks` or `channels`.
    amount: how many blocks, or which share of channels.
    by: what ranks them; None for blocks that are given by name.
    seed: of `random`, else None.
  """

  what: str
  amount: float
  by: str | None
  seed: int | None


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)

  from senet_jax import config as config_lib, runtime
  from senet_jax.data import feeds
  from senet_jax.data.preprocessing import evaluation_transform
  from senet_jax.excitation import activations, pruning
  from senet_jax.workdir import saved, summary

  runtime.use_compilation_cache()
  mesh = runtime.data_mesh()
  run = pruning.prepared(saved.load(args.workdir, args.checkpoint, mesh))
  config = run.config.copy_and_resolve_references()
  config.data.dir = args.data_dir or config.data.dir
  if args.batch_size is not None:
    config.eval.batch_size = args.batch_size
  config_lib.check(config)
  size = evaluation_transform(config).image_size
  names = list(activations.block_sizes(run.model, run.variables, size))
  _check_blocks(args, names)
  split, gates_split = args.split or config.data.eval_split, args.gates_split
  gates_split = gates_split or config.data.train_split
  feed = feeds.evaluation_feed(config, split, mesh)
  gates_feed = feeds.evaluation_feed(config, gates_split, mesh)

  blocks = activations.measure(run.model, run.variables, gates_feed, mesh, args.images_per_class)
  gates = {name: pruning.Gates.of(block) for name, block in blocks.items()}
  record = {
    **summary.record_head('errors of pruned networks', 'prune', argv),
    'model': config.model.name,
    'workdir': str(args.workdir),
    'step': run.step,
    'dataset': config.data.name,
    'split': split,
    'gates_split': gates_split,
    'gates_images': int(next(iter(blocks.values())).count.sum()),
    'blocks': _describe(run, gates),
  }
  print(f'{config.model.name}, step {run.step}, on {config.data.name} {split}')
  if args.to:
    _make_one(args, run, gates, feed, mesh, record)
  else:
    _compare(args, run, gates, feed, mesh, record)
  if args.output:
    files.write_json(args.output, record)


# --- arguments -----------------------------------------------------------------------------------


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.prune', __doc__)
  add = parser.add_argument
  parser.add_bare('--workdir', type=cli.path_or_bucket, help='of the run')
  add('--checkpoint', default='best', help='best (default), latest, or a step')
  add('--drop_blocks', type=_blocks, metavar='N[,N,...]', help='how many, or with --to their names')
  add('--channels', type=_shares, metavar='S[,S,...]', help='share of each branch to drop')
  add('--by', choices=_CHOICES, help='default: gates; of the table, all')
  add('--to', type=pathlib.Path, help='new workdir for the smaller network')
  add('--seed', type=int, default=0, help='of --by=random with --to; default: 0')
  add('--seeds', type=int, default=5, help='random choices in the table; default: 5')
  add('--split', help="to evaluate on; default: the run's evaluation split")
  add('--gates_split', help="to take the gates from; default: the run's training split")
  add('--images_per_class', type=int, default=50, help='for the gates; default: 50')
  add('--data_dir', help="default: the run's")
  add('--batch_size', type=int, help='images at once over all devices; default: of the run')
  add('--figure', type=pathlib.Path, help='also draw the table to this PNG file')
  parser.add_output()
  args = parser.parse_args(argv)
  for flag, least in (('images_per_class', 1), ('seeds', 1), ('seed', 0)):
    if getattr(args, flag) < least:
      raise UserError(f'--{flag}={getattr(args, flag)} must be at least {least}.')
  if args.figure and args.figure.suffix != '.png':
    raise UserError(f'--figure={args.figure} must end in .png.')
  _check_one(args) if args.to else _check_table(args)
  return args


def _check_one(args: argparse.Namespace) -> None:
  if args.figure:
    raise UserError(f'--figure={args.figure} shows the table; leave --to out for that.')
  given = [*(args.drop_blocks or ()), *(args.channels or ())]
  named = args.drop_blocks and isinstance(args.drop_blocks[0], str)
  if not given or (args.drop_blocks and args.channels) or (len(given) > 1 and not named):
    raise UserError(
      '--to takes one --drop_blocks or one --channels; to drop both, first make a network with '
      'fewer channels, then take blocks from that one.'
    )
  if args.to.exists() and (not args.to.is_dir() or any(args.to.iterdir())):
    raise UserError(f'--to={args.to} is there already; choose another directory.')


def _check_table(args: argparse.Namespace) -> None:
  if args.drop_blocks and isinstance(args.drop_blocks[0], str):
    raise UserError(
      f'--drop_blocks={",".join(args.drop_blocks)}: blocks have names where --to makes a network '
      'without them; the table takes numbers.'
    )


def _check_blocks(args: argparse.Namespace, names: Sequence[str]) -> None:
  """Checks that the network, whose SE blocks have these names, has those to drop."""
  for given in args.drop_blocks or ():
    if isinstance(given, str):
      one_of('--drop_blocks', given, names)
    elif given > len(names):
      raise UserError(f'--drop_blocks={given} is more than the {len(names)} SE blocks there are.')


def _blocks(text: str) -> tuple[int, ...] | tuple[str, ...]:
  parts = list(dict.fromkeys(filter(None, map(str.strip, text.split(',')))))
  if parts and all(part.isdecimal() and len(part) < 5 and int(part) for part in parts):
    return tuple(sorted(map(int, parts)))
  if not parts or any(part.lstrip('+-').replace('.', '').isdecimal() for part in parts):
    raise argparse.ArgumentTypeError(
      f'{text!r} must be whole numbers from 1 on, or names of SE blocks, with commas'
    )
  return tuple(parts)


def _shares(text: str) -> tuple[float, ...]:
  try:
    shares = sorted({float(part) for part in text.split(',')})
  except ValueError:
    shares = [0.0]
  if not all(0 < share < 1 for share in shares):
    raise argparse.ArgumentTypeError(f'{text!r} must be shares between 0 and 1, such as 0.3')
  return tuple(shares)


# --- one smaller network -------------------------------------------------------------------------


def _make_one(
  args: argparse.Namespace,
  run: 'Saved',
  gates: dict[str, 'Gates'],
  feed: 'EvaluationFeed',
  mesh: 'Mesh',
  record: dict[str, Any],
) -> None:
  """Writes the smaller network, reads it back and evaluates it; adds that to the record."""
  from senet_jax.workdir import saved

  what, given = ('channels', args.channels) if args.channels else ('blocks', args.drop_blocks)
  if isinstance(given[0], str):
    choice, gone = _Choice(what, len(given), None, None), list(given)
  else:
    by = args.by or 'gates'
    choice = _Choice(what, given[0], by, args.seed if by == 'random' else None)
    gone = _going(run, gates, choice)
  smaller = _smaller(run, gates, gone)
  before = _evaluated(run, feed, mesh)
  saved.write(
    args.to,
    smaller.config,
    smaller.variables,
    run.model.num_classes,
    run.class_names,
    {'pruned_from': f'{args.workdir}, step {run.step}'},
  )
  after = _evaluated(saved.load(args.to, 'latest', mesh), feed, mesh)
  record |= {
    'to': str(args.to),
    'choice': choice._asdict(),
    'dropped': _dropped(gone),
    'whole': before,
    'pruned': after,
  }
  rows = [['whole', *_cells(before, before)], ['pruned', *_cells(after, before)]]
  tables.print_table('network params % top-1_% top-5_%', rows)
  print(f'written to {args.to}')
  for line in saved.how_to_use(smaller.config, args.to):
    print(line)


def _evaluated(run: 'Saved', feed: 'EvaluationFeed', mesh: 'Mesh') -> dict[str, Any]:
  from senet_jax.evaluation.evaluate import eval_program, evaluate
  from senet_jax.excitation import pruning

  results = evaluate(eval_program(run.model, feed, mesh), run.variables, feed)
  return {'params': pruning.parameters(run), **results}


def _cells(found: dict[str, Any], whole: dict[str, Any]) -> list[str]:
  share = 100 * found['params'] / whole['params']
  errors = (f'{found[key]:.2f}' for key in ('top1_error', 'top5_error'))
  return [f'{found["params"]:,}', f'{share:.2f}', *errors]


# --- the table -----------------------------------------------------------------------------------


def _compare(
  args: argparse.Namespace,
  run: 'Saved',
  gates: dict[str, 'Gates'],
  feed: 'EvaluationFeed',
  mesh: 'Mesh',
  record: dict[str, Any],
) -> None:
  """Evaluates all choices, prints and draws them; adds them to the record.

  One program evaluates them all, that of the whole network: gates are held and channels closed by
  its weights.
  """
  from senet_jax.evaluation.evaluate import eval_program, evaluate
  from senet_jax.excitation import pruning, pruning_figure

  whole = pruning.with_biases(run)
  program = eval_program(whole.model, feed, mesh)
  record['whole'] = {
    'params': pruning.parameters(run),
    **evaluate(program, whole.variables, feed),
  }
  record['rows'] = []
  for choice in _choices(args, len(gates)):
    gone = _going(run, gates, choice)
    if choice.what == 'blocks':
      variables = pruning.held(whole, gone, gates)
    else:
      variables = pruning.closed(whole, gone)
    row = {
      **choice._asdict(),
      'dropped': _dropped(gone),
      'params': pruning.parameters(_smaller(run, gates, gone)),
      **evaluate(program, variables, feed),
    }
    record['rows'].append(row)
  record['table'] = _table(record['rows'])
  _print(record)
  if args.figure:
    title = '{model} on {dataset} {split}, not trained further'.format(**record)
    pruning_figure.draw(args.figure, title, record['whole'], record['table'])


def _choices(args: argparse.Namespace, total: int) -> Iterator[_Choice]:
  """All rows of the table, for a network of `total` SE blocks."""
  from senet_jax.excitation import activations

  amounts = {'blocks': args.drop_blocks or (), 'channels': args.channels or ()}
  if not any(amounts.values()):
    counts = activations.uniform(total + 1, _MOST_COUNTS + 1)[1:]
    amounts = {'blocks': counts, 'channels': _SHARES}
  for what, given in amounts.items():
    for by in (args.by,) if args.by else _CHOICES:
      for amount in given:
        for seed in range(args.seeds) if by == 'random' else (None,):
          yield _Choice(what, amount, by, seed)


def _going(run: 'Saved', gates: dict[str, 'Gates'], choice: _Choice) -> 'Gone':
  """The names of the blocks that go, or, by names, the channels that stay.

  Raises:
    UserError: the share is so small that nothing goes.
  """
  from senet_jax.excitation import pruning

  if choice.what == 'blocks':
    scores = pruning.block_scores(run, gates, choice.by, choice.seed or 0)
    return pruning.lowest(scores, choice.amount)
  scores = pruning.channel_scores(run, gates, choice.by, choice.seed or 0)
  kept = pruning.kept_channels(scores, choice.amount)
  if all(mask.all() for mask in kept.values()):
    most = max(map(len, kept.values()))
    raise UserError(
      f'--channels={choice.amount} drops none of at most {most} channels of a branch; give a '
      'larger share.'
    )
  return kept


def _smaller(run: 'Saved', gates: dict[str, 'Gates'], gone: 'Gone') -> 'Saved':
  from senet_jax.excitation import pruning

  if isinstance(gone, dict):
    return pruning.without_channels(run, gone)
  return pruning.without_blocks(run, gone, gates)


def _dropped(gone: 'Gone') -> list[str] | int:
  """Returns what was dropped, for the record: names of blocks, or the number of channels."""
  return int(sum((~mask).sum() for mask in gone.values())) if isinstance(gone, dict) else gone


def _describe(run: 'Saved', gates: dict[str, 'Gates']) -> dict[str, Any]:
  from senet_jax.excitation import pruning

  weights = pruning.block_scores(run, gates, 'magnitude')
  return {
    name: {
      'channels': len(gate.mean),
      'mean_gate': float(gate.mean.mean()),
      'information': gate.information,
      'magnitude': float(weights[name]),
    }
    for name, gate in gates.items()
  }


def _table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The rows, with all random choices of one amount together."""
  groups: dict[tuple, list[dict[str, Any]]] = {}
  for row in rows:
    groups.setdefault((row['what'], row['amount'], row['by']), []).append(row)
  keys = ('params', 'loss', 'top1_error', 'top3_error', 'top5_error')
  return [
    {
      'what': what,
      'amount': amount,
      'by': by,
      **{key: mean_std([row[key] for row in group]) for key in keys},
    }
    for (what, amount, by), group in groups.items()
  ]


def _print(record: dict[str, Any]) -> None:
  whole = record['whole']
  rows = [['nothing', '', '', f'{whole["params"]:,}', '100.00', f'{whole["top1_error"]:.2f}', '',
           f'{whole["top5_error"]:.2f}', '']]  # fmt: skip
  for row in record['table']:
    params, top1 = row['params']['mean'], row['top1_error']
    rows.append(
      [
        row['what'],
        f'{row["amount"]:g}',
        row['by'],
        f'{params:,.0f}',
        f'{100 * params / whole["params"]:.2f}',
        f'{top1["mean"]:.2f}',
        '' if top1['std'] is None else f'{top1["std"]:.2f}',
        f'{row["top5_error"]["mean"]:.2f}',
        f'{top1["n"]}',
      ]
    )
  tables.print_table(_COLUMNS, rows)


if __name__ == '__main__':
  cli.run(main)
