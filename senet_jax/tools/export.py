"""Writes a trained network as a file that other programs run, and checks it in its own runtime.

  python -m senet_jax.tools.export runs/flowers --to=flowers.onnx
  python -m senet_jax.tools.export se_resnet20_cifar10 --format=savedmodel --uint8 --to=net
  python -m senet_jax.tools.export --check=flowers.onnx

Formats: stablehlo, onnx, savedmodel and tflite. The input `images` is [N, 3, S, S] for ONNX and
[N, S, S, 3] for the others; float32 and normalised, or with --uint8 raw RGB. Outputs: `logits`, or
`probabilities`, and with --features what goes into the last layer.

A file that differs from the network by more than 0.0001 of the spread of its outputs is not kept.
--check runs a file, so be sure of where it is from.
"""

import argparse
import pathlib
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.reporting import tables
from senet_jax.storage import files

_COLUMNS = 'output batch difference spread relative'
_ROUNDED = ' unrounded from_float32 same_top1'


def main(argv: list[str]) -> int:
  """Runs the command with the arguments `argv`; returns the exit status."""
  args = _parse(argv)
  from senet_jax import runtime
  from senet_jax.data.image_folder import find_images
  from senet_jax.export import exported

  runtime.use_compilation_cache()
  photos = find_images(args.photos) if args.photos else ()
  if args.check:
    found = exported.check(
      args.check, args.workdir, args.format, checkpoint=args.checkpoint, photos=photos
    )
  else:
    found = exported.export(
      args.workdir,
      args.to,
      args.format,
      checkpoint=args.checkpoint or 'best',
      batch=args.batch,
      size=args.size,
      uint8=args.uint8,
      probabilities=args.probabilities,
      features=args.features,
      dtype=args.dtype or 'float32',
      photos=photos,
    )
  rounded = 'from_float32' in found.rows[0]
  tables.print_table(_COLUMNS + rounded * _ROUNDED, [_cells(row) for row in found.rows])
  if args.output:
    files.write_json(args.output, {'photos': found.photos, 'rows': found.rows})
  if args.check:
    found.check(args.check)
    print(f'{args.check} agrees with its network')
  else:
    print(f'written to {args.to}')
  return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  numbers = [f'{row[name]:.1e}' for name in ('max_difference', 'spread', 'relative')]
  if 'from_float32' in row:
    same = row.get('same_top1')
    numbers += [f'{row[name]:.1e}' for name in ('unrounded', 'from_float32')]
    numbers.append('-' if same is None else f'{100 * same:.1f} %')
  return row['output'], f'{row["batch"]}', *numbers


def _batch(text: str) -> int | str:
  return text if text == 'any' else cli.number(text)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.export', __doc__)
  add = parser.add_argument
  parser.add_bare(
    '--workdir', required=False, help='of the run, or a name that tools.predict takes'
  )
  add('--to', type=cli.new_path, help='the file, or the directory of a savedmodel')
  add('--format', help='stablehlo, onnx, savedmodel or tflite (default: what --to ends in)')
  add('--check', type=pathlib.Path, metavar='FILE', help='compare an exported file again')
  add('--checkpoint', help='best (default), latest, or a step')
  add('--batch', type=_batch, help='images at once, or any (default, but 1 for tflite)')
  add('--size', type=cli.number, help='side of the images, in pixels (default: of the run)')
  add('--uint8', action='store_true', help='take raw RGB of the right size, and normalise it')
  add('--probabilities', action='store_true', help='give probabilities instead of logits')
  add('--features', action='store_true', help='give what goes into the last layer, too')
  add('--dtype', help='of the weights: float32 (default) or bfloat16')
  add('--photos', nargs='+', help='to compare with (default: those of scikit-learn)')
  parser.add_output()
  args = parser.parse_args(argv)
  if args.check is None:
    for name in ('workdir', 'to'):
      if getattr(args, name) is None:
        parser.error(f'--{name} is missing')
    return args
  for name in ('to', 'batch', 'size', 'uint8', 'probabilities', 'features', 'dtype'):
    if getattr(args, name):
      raise UserError(f'--{name} has no effect with --check, which reads it in the file.')
  return args


if __name__ == '__main__':
  cli.run(main)
