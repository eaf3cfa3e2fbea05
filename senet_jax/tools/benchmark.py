r"""Measures speed on the machine at hand.

  python -m senet_jax.tools.benchmark --input --config=configs/imagenette_se_r18.py \
      --config.data.dir=FOLDER --output=results/benchmarks/input.json

--input measures the input pipeline alone, in turn with the raw rate at which TensorFlow decodes and
resizes the same files on the same cores. Any field of the configuration can be changed.
"""

import datetime
import os

from senet_jax import cli


def main(argv: list[str]) -> None:
  """Prints the rates, and with --output writes them with all that belongs to them."""
  from senet_jax import flags

  parser = cli.Parser('tools.benchmark', __doc__)
  parser.add_argument('--input', action='store_true', required=True, help='the input pipeline')
  parser.add_argument('--config', required=True, help='file of the run, as of senet_jax.main')
  parser.add_argument('--seconds', type=float, default=10.0, help='of each measurement')
  parser.add_argument('--rounds', type=int, default=3, help='pairs of measurements')
  parser.add_output()
  args, config = flags.parse_with_config(parser, argv)
  if args.seconds <= 0 or args.rounds < 1:
    parser.error('--seconds must be greater than 0 and --rounds at least 1')

  from senet_jax import config as config_lib, files, runtime
  from senet_jax.analysis import input_rate
  from senet_jax.training import summary

  config_lib.check(config)
  found = input_rate.measure(config, args.seconds, args.rounds)
  print(f'{config.data.name}, batches of {config.batch_size}, {os.cpu_count()} cores')
  for way in ('input', 'raw'):
    spread = '' if args.rounds == 1 else f' ± {found[way]["std"]:.0f}'
    print(f'  {way:5} {found[way]["mean"]:8.0f}{spread} images/s')
  print(f'  ratio {found["ratio"]:8.3f}')
  if args.output:
    row = {
      'what': 'input pipeline alone, and raw decoding and resizing of the same files, images/s',
      'command': 'python -m senet_jax.tools.benchmark ' + ' '.join(argv),
      'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
      'device': runtime.describe_devices(),
      'cpu_cores': os.cpu_count(),
      'git_commit': summary.git_commit(),
      'versions': summary.versions(),
      'config': config.to_dict(),
    }
    files.write_json(args.output, {**row, **found})


if __name__ == '__main__':
  cli.run(main)
