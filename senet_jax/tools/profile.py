r"""Tells what a training step or an evaluation costs on a TPU, a GPU or the machine at hand.

  python -m senet_jax.tools.profile --config=configs/imagenet_se_r50.py --target=tpu:v5e:2x2 \
      --per_device=128 --compare=model.name=resnet50 --output=profile.json

Compiles the real program ahead of time, so the machine need not be there: TPU slices
(tpu:v5e:2x2; extra `tpu`), NVIDIA GPUs as slices x hosts x GPUs (gpu:h200, gpu:h100:1x4x8; extra
`cuda`), or `here`. Prints operations, bytes of main memory, the roofline of the chip, peak memory,
collectives, and the costliest kernels and largest arrays with their layers. Each --compare gives
one more column: fields of the configuration that differ, separated by spaces, or `textbook` or
`textbook_se` for ResNet-50 as in Flax's ImageNet example. On `here`, --steps runs the program and
times it, and --trace says where the time goes: by kind of work, by layer and by kernel.
"""

import argparse
import functools
import os
import typing
from typing import Any

from senet_jax import cli
from senet_jax.measure.networks import TEXTBOOK, TEXTBOOK_SE

if typing.TYPE_CHECKING:
  from senet_jax.measure.targets import Target


def main(argv: list[str]) -> None:
  """Prints the profile; with --output writes it too."""
  parser = cli.Parser('tools.profile', __doc__)
  parser.add_argument('--config', required=True, help='file of the run, as of senet_jax.main')
  parser.add_argument('--target', default='here', help='machine to compile for')
  parser.add_argument('--mode', choices=('train', 'inference'), default='train')
  parser.add_argument(
    '--per_device', type=cli.number, help='images a device; else config.batch_size'
  )
  parser.add_argument(
    '--compare',
    action='append',
    default=[],
    help="such as 'model.name=resnet50' or 'model.se.fused=False'; again for one more",
  )
  parser.add_argument('--top', type=cli.number, default=12, help='kernels and arrays to list')
  parser.add_argument('--steps', type=cli.number, default=0, help='steps to time, on `here`')
  parser.add_argument(
    '--trace', type=cli.new_folder, help='directory for a trace of three more, on `here`'
  )
  parser.add_output()
  args, overrides = parser.parse_with_overrides(argv)

  from senet_jax.measure.targets import HERE, Target

  target = Target.parse(args.target)
  if (args.steps or args.trace) and target.platform != HERE:
    parser.error(f'--steps and --trace run the program, and {args.target} is not here')
  target.prepare()

  from senet_jax.config import reading
  from senet_jax.measure import profiles

  profile = functools.partial(
    profiles.profile,
    args.config,
    target=target,
    mode=args.mode,
    per_device=args.per_device,
    top=args.top,
    steps=args.steps,
    trace_directory=args.trace and str(args.trace),
  )
  found = [profile(overrides)]
  for other in args.compare:
    if other in (TEXTBOOK, TEXTBOOK_SE):
      found.append(profile(overrides, textbook=other))
    else:
      changes = [reading.FIELD + change for change in other.split()]
      found.append(profile([*overrides, *changes]))
  print(f'{args.mode} on {args.target}: ', end='')
  print(*profiles.lines(found), sep='\n')
  if args.output:
    _write(args, argv, target, found)


def _write(
  args: argparse.Namespace, argv: list[str], target: 'Target', found: list[dict[str, Any]]
) -> None:
  from senet_jax.measure.targets import HERE
  from senet_jax.storage import files
  from senet_jax.workdir import summary

  what = f'{args.mode} compiled ahead of time, costs of one device'
  row = {
    **summary.record_head(what, 'profile', argv),
    'target': args.target,
    'versions': {**summary.versions(), **target.compiler_version()},
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'profiles': found,
  }
  if target.platform != HERE:
    row['device'] = f'{found[0]["devices"]} x {args.target}, ahead of time'
  if len(found) == 2:
    row['ratios'] = {k: found[0][k] / found[1][k] for k in ('flops', 'bytes')}
  files.write_json(args.output, row)


if __name__ == '__main__':
  cli.run(main)
