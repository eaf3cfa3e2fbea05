r"""Predicts on paper what many chips would do: images a second, efficiency, and the limit.

  python -m senet_jax.tools.scaling results/benchmarks/profile_v5e_8_chips.json [PROFILE ...] \
      --chips=8,64,256,1024 --images_per_core=1030

Takes profiles of training steps from `senet_jax.tools.profile`; the model is described in
docs/scaling.md. --images_per_core is what one CPU core decodes and augments a second, as
`senet_jax.tools.benchmark --input` measures it.
"""

import json
import pathlib
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError

_HEAD = (
  'network', 'chip', 'chips', 'images/s', 'efficiency', 'step, ms', 'all-reduce, ms', 'hosts',
  'images/s a host: needed', 'at hand', 'limit',
)  # fmt: skip


def main(argv: list[str]) -> None:
  """Prints a table in Markdown; with --output writes the numbers too."""
  parser = cli.Parser('tools.scaling', __doc__)
  parser.add_argument('profiles', nargs='+', type=pathlib.Path, metavar='PROFILE')
  parser.add_argument('--chips', default='8,64,256,1024', help='how many, with commas')
  parser.add_argument('--images_per_core', type=float, required=True)
  parser.add_output()
  args = parser.parse_args(argv)
  chips = args.chips.split(',')
  if not all(n.isdecimal() and int(n) for n in chips):
    parser.error(f'--chips={args.chips} must be whole numbers above 0, with commas')
  if not args.images_per_core > 0:
    parser.error(f'--images_per_core={args.images_per_core} must be above 0')
  rows = [
    row
    for path in args.profiles
    for row in predictions(path, [int(n) for n in chips], args.images_per_core)
  ]
  print(table(rows), end='')
  if args.output:
    from senet_jax.storage import files
    from senet_jax.workdir import summary

    head = summary.record_head('training on many chips, on paper', 'scaling', argv)
    files.write_json(args.output, {**head, 'device': 'none: a model', 'rows': rows})


def predictions(path: pathlib.Path, chips: list[int], images_per_core: float) -> list[dict]:
  """Returns what `measure.scaling.predict` says of the first network of a profile.

  Raises:
    UserError: the file is no profile of a training step on a known chip.
  """
  from senet_jax.measure import scaling

  try:
    profile = json.loads(path.read_text())['profiles'][0]
    name, chip = profile['name'], profile['roofline']['chip']['name']
  except (ValueError, KeyError, TypeError, IndexError) as error:
    raise UserError(
      f'{path} is no profile with a roofline; make one with senet_jax.tools.profile --target=… '
      '--output=….'
    ) from error
  return [
    {'network': name, 'chip': chip, **scaling.predict(profile, n, images_per_core)} for n in chips
  ]


def table(rows: list[dict[str, Any]]) -> str:
  """Returns the predictions as a table in Markdown."""
  lines = [_HEAD, ['---'] * len(_HEAD)]
  for row in rows:
    lines.append([
      f'`{row["network"]}`',
      row['chip'],
      row['devices'],
      f'{row["images_per_second"]:,.0f}',
      f'{row["efficiency"]:.1%}',
      f'{1e3 * row["step_s"]:.1f}',
      f'{1e3 * row["all_reduce_s"]:.2f}',
      row['hosts'],
      f'{row["fed_by_host"]:,.0f}',
      f'{row["host_can_feed"]:,.0f}',
      row['limit'],
    ])  # fmt: skip
  return ''.join(f'| {" | ".join(map(str, line))} |\n' for line in lines)


if __name__ == '__main__':
  cli.run(main)
