"""Brings weights from other code bases in, and takes ours out.

  python -m senet_jax.tools.convert --from=seresnet50.safetensors --to=runs/timm_seresnet50
  python -m senet_jax.tools.convert --from=SE-ResNet-50.caffemodel --to=se_resnet50.safetensors
  python -m senet_jax.tools.convert --from=runs/se50 --to=se50.safetensors
  python -m senet_jax.tools.convert --from=runs/se50 --to=timm.safetensors --variant=timm:seresnet50

Reads .safetensors and .npz files and those that torch saved (.pth, .pt, .bin, .th, .pth.tar, .ckpt)
of timm, torchvision, Cadene and akamaster, the .caffemodel files of the paper's authors, those of
keras.applications (.h5, .weights.h5, .keras), TensorFlow's MobileNets (.tflite), workdirs, what it
wrote itself, and hf:OWNER/REPO of the Hugging Face hub; nothing in a file is executed.

Writes a workdir for tools.predict, tools.evaluate and config.init_from; a .safetensors file, by our
names and with the configuration, or, from our weights with --variant, by those of torch; or hf:DIR,
a folder with a card that timm and the hub read.
"""

import argparse
import pathlib

from senet_jax import cli
from senet_jax.errors import UserError


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)
  from senet_jax.interop import storage
  from senet_jax.workdir import exchange, saved

  if str(args.to).startswith('hf:'):
    return _write_folder(args, pathlib.Path(str(args.to).removeprefix('hf:')))
  to_file = args.to.suffix == storage.SAFETENSORS
  if not to_file and args.to.suffix in exchange.SUFFIXES:
    raise UserError(
      f'--to={args.to} must end in {storage.SAFETENSORS}, or be a directory for a workdir.'
    )
  if args.to.exists() and (to_file or not args.to.is_dir() or any(args.to.iterdir())):
    what = 'file' if to_file else 'directory'
    raise UserError(f'--to={args.to} is there already; choose another {what}.')
  weights = exchange.read(args.source, args.model, args.variant, args.checkpoint)
  if args.variant and weights.ours and not to_file:
    raise UserError(
      f'--variant={args.variant} names the weights in a file; --to={args.to} is to be a workdir.'
    )
  exchange.write(weights, args.to, args.variant if weights.ours else None)
  name = weights.config.model.name
  print(f'{name} of {weights.num_classes} classes, from {weights.origin}: written to {args.to}')
  for line in (*weights.notes, *saved.how_to_use(weights.config, args.to)):
    print(line)


def _write_folder(args: argparse.Namespace, folder: pathlib.Path) -> None:
  from senet_jax.workdir import exchange, hub_folder

  if folder.exists():
    raise UserError(f'--to={args.to} is there already; choose another directory.')
  weights = exchange.read(args.source, args.model, None, args.checkpoint)
  hub_folder.write(weights, folder, args.variant)
  print(f'{weights.config.model.name}, from {weights.origin}: written to {folder}, for timm')


def _target(text: str) -> pathlib.Path:
  cli.new_path(text.removeprefix('hf:'))
  return pathlib.Path(text)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.convert', __doc__)
  add = parser.add_argument
  add('--from', dest='source', required=True, type=pathlib.Path, help='a file, or a workdir')
  add('--to', required=True, type=_target, help='a .safetensors file, a new workdir, or hf:DIR')
  add('--model', help='our name of the network; default: what the weights look like')
  add('--variant', help='another code base and its name of the network: timm:legacy_seresnet50')
  add('--checkpoint', default='best', help='of a workdir: best (default), latest, or a step')
  return parser.parse_args(argv)


if __name__ == '__main__':
  cli.run(main)
