"""Reads what a benchmark is to measure from a command line; imports nothing heavy."""

import argparse
import dataclasses
from collections.abc import Sequence

from senet_jax import cli, errors
from senet_jax.measure.networks import Network

_MODES = {'train': ('train',), 'inference': ('inference',), 'both': ('train', 'inference')}
_DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class Wanted:
  """The combinations of mode, dtype, batch and steps a dispatch to measure, and how.

  Attributes:
    networks: in turn with each other.
    modes: `train`, `inference`.
    dtypes: of the computation.
    batches: images a step, over all devices.
    dispatches: steps in a loop on the device.
    overrides: `--config.field=value`, of all networks.
    repeats: turns.
    seconds: of a measurement, about.
    ceilings: measure the copy rate and, on several devices, the all-reduce.
    or_smaller: halve a batch that does not fit, for all networks of the turn.
    find_up_to: find the largest batch that fits each network, up to this one; None: do not.
    refine: find batches that are no powers of two, too.
  """

  networks: Sequence[Network]
  modes: Sequence[str]
  dtypes: Sequence[str]
  batches: Sequence[int]
  dispatches: Sequence[int] = (1,)
  overrides: Sequence[str] = ()
  repeats: int = 5
  seconds: float = 2.0
  ceilings: bool = False
  or_smaller: bool = False
  find_up_to: int | None = None
  refine: bool = False


def add_arguments(parser: cli.Parser) -> None:
  """Adds the arguments that `from_arguments` reads, but for `--models`."""
  add = parser.add_argument
  add('--mode', default='both', help='train, inference or both (default)')
  add('--batch', type=cli.numbers, default=(32,), help='images a step, over all devices')
  add('--dtype', type=cli.words, default=('float32',), help='float32, bfloat16, or both')
  add('--steps_per_dispatch', type=cli.numbers, default=(1,), help='in a loop on the device')
  add('--find_batch', action='store_true', help='the largest batch that fits, from --batch on')
  add('--refine', action='store_true', help='with --find_batch: not only powers of two')
  add('--max_batch', type=cli.number, default=8192, help='with --find_batch: try no larger one')
  add('--or_smaller', action='store_true', help='halve a batch that does not fit')
  add('--ceilings', action='store_true', help='measure the copy rate and the all-reduce, too')
  add('--repeats', '--rounds', type=cli.number, help='turns (default: 5, of --input 3)')
  add('--seconds', type=cli.positive, help='of each measurement, about (default: 2, of --input 10)')


def from_arguments(args: argparse.Namespace, overrides: Sequence[str]) -> Wanted:
  """Returns what parsed arguments ask for.

  Args:
    args: those of `add_arguments`, and `models`, which may be None.
    overrides: `--config.field=value`, of all networks.

  Raises:
    UserError: a network, mode or dtype does not exist, or an argument has no effect.
  """
  errors.one_of('--mode', args.mode, _MODES)
  for dtype in args.dtype:
    errors.one_of('--dtype', dtype, _DTYPES)
  if args.refine and not args.find_batch:
    raise errors.UserError('--refine has no effect without --find_batch; leave it out.')
  from senet_jax.models import model_info  # late, for a fast --help

  for network in args.models or ():
    model_info(network.registered)  # an unknown one is an error before JAX looks for devices
  return Wanted(
    networks=args.models or (),
    modes=_MODES[args.mode],
    dtypes=args.dtype,
    batches=args.batch,
    dispatches=args.steps_per_dispatch,
    overrides=overrides,
    repeats=args.repeats or Wanted.repeats,
    seconds=args.seconds or Wanted.seconds,
    ceilings=args.ceilings,
    or_smaller=args.or_smaller,
    find_up_to=args.max_batch if args.find_batch else None,
    refine=args.refine,
  )
