"""Trials of what to prune: what is left of a network by each choice, and what that still knows."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax.data.feeds import EvaluationFeed
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError, one_of
from senet_jax.evaluation.evaluate import eval_program, evaluate
from senet_jax.excitation import activations, pruning
from senet_jax.excitation.pruning import Gates
from senet_jax.excitation.pruning_choices import RANKINGS, Choice
from senet_jax.reporting.statistics import mean_std
from senet_jax.workdir import saved
from senet_jax.workdir.saved import Saved

# Names of the SE blocks that go, or, by such names, which channels stay, `[C]` bool.
Gone = list[str] | dict[str, np.ndarray]

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_MOST_COUNTS = 9  # of blocks, in a table that nobody has asked for more
_AVERAGED = ('params', 'loss', 'top1_error', 'top3_error', 'top5_error')


def choices(
  total: int,
  by: Sequence[str] = RANKINGS,
  counts: Sequence[int] | None = None,
  shares: Sequence[float] | None = None,
  seeds: int = 5,
) -> Iterator[Choice]:
  """Yields the choices of a table, for a network of `total` SE blocks.

  Args:
    total: how many blocks there are.
    by: what ranks blocks and channels.
    counts: how many blocks go.
    shares: which shares of channels go; without any of both, some of each.
    seeds: how often `random` chooses.
  """
  if not counts and not shares:
    counts, shares = activations.uniform(total + 1, _MOST_COUNTS + 1)[1:], _SHARES
  for what, amounts in (('blocks', counts), ('channels', shares)):
    for ranking in by:
      for amount in amounts or ():
        for seed in range(seeds) if ranking == 'random' else (None,):
          yield Choice(what, amount, ranking, seed)


def check_blocks(run: Saved, config: ConfigDict, given: Sequence[int | str]) -> None:
  """Checks that a network has the blocks that are to go.

  Args:
    run: the network.
    config: of its evaluation.
    given: names of SE blocks, or numbers of them.

  Raises:
    UserError: it has no such block, or not as many.
  """
  size = evaluation_transform(config).image_size
  names = list(activations.block_sizes(run.model, run.variables, size))
  for block in given:
    if isinstance(block, str):
      one_of('--drop_blocks', block, names)
    elif block > len(names):
      raise UserError(f'--drop_blocks={block} is more than the {len(names)} SE blocks there are.')


def dropped(gone: Gone) -> list[str] | int:
  """Returns what goes, for a record: names of blocks, or the number of channels."""
  return int(sum((~mask).sum() for mask in gone.values())) if isinstance(gone, dict) else gone


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
  """A network to prune, and the images on which the smaller ones are evaluated.

  Attributes:
    run: of `pruning.prepared`.
    gates: of each SE block, by name.
    feed: the images.
    mesh: the devices.
  """

  run: Saved
  gates: Mapping[str, Gates]
  feed: EvaluationFeed
  mesh: Mesh

  def describe(self) -> dict[str, dict[str, Any]]:
    """Returns what blocks and channels may be ranked by, as numbers for each block."""
    weights = pruning.block_scores(self.run, self.gates, 'magnitude')
    return {
      name: {
        'channels': len(gate.mean),
        'mean_gate': float(gate.mean.mean()),
        'information': gate.information,
        'magnitude': float(weights[name]),
      }
      for name, gate in self.gates.items()
    }

  def gone(self, choice: Choice) -> Gone:
    """Returns what goes by a choice.

    Raises:
      UserError: the share is so small that nothing goes.
    """
    ranking: tuple[Any, ...] = (self.run, self.gates, choice.by, choice.seed or 0)
    if choice.what == 'blocks':
      return pruning.lowest(pruning.block_scores(*ranking), int(choice.amount))
    kept = pruning.kept_channels(pruning.channel_scores(*ranking), choice.amount)
    if all(mask.all() for mask in kept.values()):
      most = max(map(len, kept.values()))
      raise UserError(
        f'--channels={choice.amount} drops none of at most {most} channels of a branch; give a '
        'larger share.'
      )
    return kept

  def smaller(self, gone: Gone) -> Saved:
    """Returns the network without what goes."""
    if isinstance(gone, dict):
      return pruning.without_channels(self.run, gone)
    return pruning.without_blocks(self.run, gone, self.gates)

  def compare(self, wanted: Iterable[Choice]) -> dict[str, Any]:
    """Evaluates the network and what is left of it by each choice.

    One program evaluates them all, that of the whole network: gates are held and channels closed by
    its weights.

    Returns:
      Parameters, loss and errors: `whole`, of the network; `rows`, of each choice; and `table`, of
      the rows, with all random choices of one amount together.
    """
    whole = pruning.with_biases(self.run)
    program = eval_program(whole.model, self.feed, self.mesh)
    found = evaluate(program, whole.variables, self.feed)
    rows = []
    for choice in wanted:
      gone = self.gone(choice)
      if isinstance(gone, dict):
        variables = pruning.closed(whole, gone)
      else:
        variables = pruning.held(whole, gone, self.gates)
      row = {
        **choice._asdict(),
        'dropped': dropped(gone),
        'params': pruning.parameters(self.smaller(gone)),
        **evaluate(program, variables, self.feed),
      }
      rows.append(row)
    return {
      'whole': {'params': pruning.parameters(self.run), **found},
      'rows': rows,
      'table': _table(rows),
    }

  def write(self, to: pathlib.Path, smaller: Saved, origin: str) -> dict[str, dict[str, Any]]:
    """Writes a smaller network to a new workdir.

    Args:
      to: the workdir.
      smaller: of `smaller`.
      origin: the workdir and step that it is from.

    Returns:
      Parameters, loss and errors: `whole`, of the network, and `pruned`, of what was written.
    """
    whole = self._evaluated(self.run)
    classes = (self.run.model.num_classes, self.run.class_names)
    saved.write(to, smaller.config, smaller.variables, *classes, {'pruned_from': origin})
    return {'whole': whole, 'pruned': self._evaluated(saved.load(to, 'latest', self.mesh))}

  def _evaluated(self, run: Saved) -> dict[str, Any]:
    program = eval_program(run.model, self.feed, self.mesh)
    return {'params': pruning.parameters(run), **evaluate(program, run.variables, self.feed)}


def cells(found: Mapping[str, Any], whole: Mapping[str, Any]) -> list[str]:
  """Returns parameters, their share of those of the whole network, and errors, as text."""
  share = 100 * found['params'] / whole['params']
  errors = (f'{found[key]:.2f}' for key in ('top1_error', 'top5_error'))
  return [f'{found["params"]:,.0f}', f'{share:.2f}', *errors]


def table_cells(found: Mapping[str, Any]) -> list[list[str]]:
  """Returns the table of `Trial.compare` as text, the whole network first.

  Columns: `what`, `amount`, `by`, those of `cells` with the deviation of the top-1 error behind it,
  and how many choices there were.
  """
  params, share, top1, top5 = cells(found['whole'], found['whole'])
  rows = [['nothing', '', '', params, share, top1, '', top5, '']]
  for row in found['table']:
    means = {key: row[key]['mean'] for key in _AVERAGED}
    params, share, top1, top5 = cells(means, found['whole'])
    std, n = row['top1_error']['std'], row['top1_error']['n']
    deviation = '' if std is None else f'{std:.2f}'
    choice = (row['what'], f'{row["amount"]:g}', row['by'])
    rows.append([*choice, params, share, top1, deviation, top5, f'{n}'])
  return rows


def _table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the rows, with all random choices of one amount together."""
  groups: dict[tuple, list[dict[str, Any]]] = {}
  for row in rows:
    groups.setdefault((row['what'], row['amount'], row['by']), []).append(row)
  return [
    {
      'what': what,
      'amount': amount,
      'by': by,
      **{key: mean_std([row[key] for row in group]) for key in _AVERAGED},
    }
    for (what, amount, by), group in groups.items()
  ]
