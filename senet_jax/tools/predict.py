"""Names what photos show, or finds the objects on them, with a trained network.

  python -m senet_jax.tools.predict runs/flowers rose.jpg garden/
  python -m senet_jax.tools.predict --workdir=runs/flowers --top_k=1 --output=all.csv 'in/*/*.png'
  python -m senet_jax.tools.predict flowers.onnx rose.jpg --backend=openvino
  python -m senet_jax.tools.predict --task=detection --workdir=runs/coco street.jpg --output=found/

The workdir may also come first, without its name. Takes files, folders (all images below them) and
patterns. An unreadable photo is named, and the exit status is 2, but the others are done. A network
that detects objects draws them on the photos in the folder --output, beside detections.json.
"""

import argparse
import dataclasses
import os

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.storage import files

_TASKS = ('classification', 'detection')  # written out, as --help imports nothing
_TOP_K, _THRESHOLD, _BATCH_SIZE = 5, 0.5, 32


def main(argv: list[str]) -> int:
  """Runs the command with the arguments `argv`; returns the exit status."""
  args = _parse(argv)
  from senet_jax.data import photos
  from senet_jax.data.image_folder import find_images
  from senet_jax.prediction import showing

  if args.output and args.output.suffix not in (*showing.SUFFIXES, ''):
    allowed = ' or '.join(showing.SUFFIXES)
    raise UserError(f'--output={args.output} must end in {allowed}; a folder is for a detector.')
  if args.workdir.suffix.lower() in photos.SUFFIXES:
    raise UserError(f'{args.workdir} is a photo; give the network first, and then the photos.')
  paths = find_images(args.photos)
  from senet_jax import runtime

  if args.max_pixels is not None:
    photos.allow_pixels(args.max_pixels)
  runtime.use_compilation_cache()
  network = _load(args, len(paths))
  from senet_jax.prediction import Detector

  work = _detect if isinstance(network, Detector) else _classify
  rows = work(args, network, paths)
  return cli.USER_ERROR if any('error' in row for row in rows) else 0


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.predict', __doc__)
  add = parser.add_argument
  add('photos', nargs='*', help='files, folders and patterns in quotes')
  add('--workdir', type=cli.path_or_bucket, help='of the run; or the first argument')
  add('--checkpoint', help='best (default), latest, or a step')
  add('--task', choices=_TASKS, help='what the network must be for (default: either)')
  add('--top_k', type=cli.number, help=f'classes to name; default: {_TOP_K}')
  add('--threshold', type=float, help=f'least score of an object, 0 to 1; default: {_THRESHOLD}')
  add('--max_pixels', type=cli.number, help='most pixels of a photo; default: 89 million')
  add('--batch_size', type=cli.number,
      help=f'photos at once; default: {_BATCH_SIZE}, of a detector 1 a device')  # fmt: skip
  add('--output', type=cli.new_path, help='also write the answers to this .json or .csv file; '
      'those of a detector also to a folder, as pictures')  # fmt: skip
  add('--embeddings', type=cli.new_file,
      help='also write what goes into the last layer to this .npz file: `paths`, `features`'
  )  # fmt: skip
  add('--backend', help='onnxruntime (default) or openvino, for a file of tools.export')
  args = parser.parse_args(argv)
  if args.embeddings and args.embeddings.suffix != '.npz':
    raise UserError(f'--embeddings={args.embeddings} must end in .npz.')
  if args.workdir is None and args.photos:
    args.workdir = cli.path_or_bucket(args.photos.pop(0))
  if not args.photos:
    parser.error('give a network (a workdir, the name of one, or an ONNX file), and then photos')
  return args


def _load(args: argparse.Namespace, photos: int):
  """Returns the network of a run, or the predictor of an exported file."""
  from senet_jax import prediction, runtime
  from senet_jax.models import DETECTION

  given = args.batch_size
  exported = (
    args.backend or args.workdir.suffix == '.onnx' or os.path.isfile(args.workdir)
    or os.path.isfile(args.workdir / 'saved_model.pb')
  )  # fmt: skip
  if not exported:
    network = prediction.load(
      args.workdir, args.checkpoint or 'best', batch_size=given, task=args.task
    )
    most = runtime.fill_devices(photos, network.mesh.size)
    return dataclasses.replace(network, batch_size=min(network.batch_size, most))
  _refuse(args, ('checkpoint',), 'a file, which is of one')
  if args.task == DETECTION:
    raise UserError(f'--task={args.task}: {args.workdir} is a file, and files name classes alone.')
  from senet_jax.export import file_predictor
  from senet_jax.export.card import FEATURES

  size = min(_BATCH_SIZE if given is None else given, photos)
  found = file_predictor.load(args.workdir, args.backend or 'onnxruntime', batch_size=size)
  if args.embeddings and FEATURES not in found.card.outputs:
    raise UserError(f'--embeddings: {args.workdir} gives no features; export it with --features.')
  return found


def _refuse(args: argparse.Namespace, options: tuple[str, ...], what: str) -> None:
  for option in options:
    if getattr(args, option) is not None:
      raise UserError(f'--{option}={getattr(args, option)} has no effect on {what}; leave it out.')


def _classify(args: argparse.Namespace, predictor, paths: list[str]) -> list[dict]:
  from senet_jax.prediction import showing

  _refuse(args, ('threshold',), 'a network that names classes')
  if args.output and args.output.suffix not in showing.SUFFIXES:
    raise UserError(f'--output={args.output} must end in {" or ".join(showing.SUFFIXES)}.')
  rows = showing.classes(predictor, paths, args.top_k or _TOP_K)
  if args.output:
    showing.write_classes(rows, args.output)
  if args.embeddings:
    _write_embeddings(predictor, [row['path'] for row in rows if 'error' not in row], args)
  return rows


def _detect(args: argparse.Namespace, detector, paths: list[str]) -> list[dict]:
  from senet_jax.prediction import showing

  _refuse(args, ('top_k', 'embeddings'), 'a network that detects objects')
  folder = args.output if args.output and args.output.suffix not in showing.SUFFIXES else None
  pictures = showing.Pictures(folder, paths) if folder else None
  threshold = _THRESHOLD if args.threshold is None else args.threshold
  rows = showing.objects(detector, paths, threshold, pictures)
  if args.output:
    showing.write_objects(rows, args.output)
  return rows


def _write_embeddings(predictor, paths: list[str], args: argparse.Namespace) -> None:
  import numpy as np

  features = predictor.features(paths)
  with files.whole(args.embeddings) as partial, partial.open('wb') as file:
    np.savez(file, paths=np.array(paths), features=features)


if __name__ == '__main__':
  cli.run(main)
