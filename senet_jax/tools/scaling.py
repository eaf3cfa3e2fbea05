r"""Predicts on paper what many chips would do: images a second, efficiency, and the limit.

  python -m senet_jax.tools.scaling results/benchmarks/profile_v5e_8_chips.json [PROFILE ...] \
      --chips=8,64,256,1024 --images_per_core=560 --cores_per_process=5

Takes profiles of training steps from `senet_jax.tools.profile`; the model is described in
docs/scaling.md. --images_per_core is what one CPU core decodes and augments a second, as
`senet_jax.tools.benchmark --input` measures it, --cores_per_process how many cores the threads of a
process keep busy.
"""

import pathlib

from senet_jax import cli
from senet_jax.measure import scaling


def main(argv: list[str]) -> None:
  """Prints a table in Markdown; with --output writes the numbers too."""
  parser = cli.Parser('tools.scaling', __doc__)
  parser.add_argument('profiles', nargs='+', type=pathlib.Path, metavar='PROFILE')
  parser.add_argument('--chips', default='8,64,256,1024', help='how many, with commas')
  parser.add_argument('--images_per_core', type=cli.positive, required=True)
  parser.add_argument('--cores_per_process', type=cli.positive, help='default: all of a host')
  parser.add_output()
  args = parser.parse_args(argv)
  chips = args.chips.split(',')
  if not all(n.isdecimal() and int(n) for n in chips):
    parser.error(f'--chips={args.chips} must be whole numbers above 0, with commas')
  counts = [int(n) for n in chips]
  images = scaling.Input(args.images_per_core, args.cores_per_process)
  rows = [row for path in args.profiles for row in scaling.predictions(path, counts, images)]
  print(scaling.table(rows))
  if args.output:
    from senet_jax.storage import files
    from senet_jax.workdir import summary

    head = summary.record_head('training on many chips, on paper', 'scaling', argv)
    files.write_json(args.output, {**head, 'device': 'none: a model', 'rows': rows})


if __name__ == '__main__':
  cli.run(main)
