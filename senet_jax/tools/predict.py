"""Names what photos show, with a trained network.

  python -m senet_jax.tools.predict runs/flowers rose.jpg garden/
  python -m senet_jax.tools.predict --workdir=runs/flowers --top_k=1 --output=all.csv 'in/*/*.png'
  python -m senet_jax.tools.predict flowers.onnx rose.jpg --backend=openvino

The workdir may also come first, without its name. Takes files, folders (all images below them) and
patterns. An unreadable photo is named, and the exit status is 2, but the others are done.
"""

import dataclasses
import os
import pathlib
import sys
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.reporting import tables
from senet_jax.storage import files

_OUTPUTS = ('.json', '.csv')


def main(argv: list[str]) -> int:
  """Runs the command with the arguments `argv`; returns the exit status."""
  parser = cli.Parser('tools.predict', __doc__)
  parser.add_argument('photos', nargs='+', help='files, folders and patterns in quotes')
  parser.add_argument(
    '--workdir', type=cli.path_or_bucket, help='of the run; or the first argument'
  )
  parser.add_argument('--checkpoint', default='best', help='best (default), latest, or a step')
  parser.add_argument('--top_k', type=int, default=5, help='classes to name; default: 5')
  parser.add_argument(
    '--max_pixels', type=int, help='take photos of up to so many pixels; default: 89 million'
  )
  parser.add_argument('--batch_size', type=int, default=32, help='photos at once; default: 32')
  parser.add_argument(
    '--output', type=pathlib.Path, help='also write the predictions to this .json or .csv file'
  )
  parser.add_argument(
    '--embeddings',
    type=pathlib.Path,
    help='also write what goes into the last layer to this .npz file: `paths`, `features`',
  )
  parser.add_argument(
    '--backend', help='onnxruntime (default) or openvino, for a file of tools.export'
  )
  args = parser.parse_args(argv)
  if args.embeddings and args.embeddings.suffix != '.npz':
    raise UserError(f'--embeddings={args.embeddings} must end in .npz.')
  if args.output and args.output.suffix not in _OUTPUTS:
    raise UserError(f'--output={args.output} must end in {" or ".join(_OUTPUTS)}.')
  if args.top_k < 1:
    raise UserError(f'--top_k={args.top_k} must be at least 1.')
  if args.workdir is None:
    first, *args.photos = args.photos
    if not args.photos:
      parser.error(f'--workdir is missing, or the photos behind the workdir {first}')
    args.workdir = cli.path_or_bucket(first)
  from senet_jax.data.image_folder import find_images

  paths = find_images(args.photos)
  from senet_jax import runtime
  from senet_jax.data import photos

  if args.max_pixels is not None:
    photos.allow_pixels(args.max_pixels)
  runtime.use_compilation_cache()
  batch_size = min(args.batch_size, len(paths))
  predictor = _load(args.workdir, args.checkpoint, args.backend, batch_size)
  results = _predict(predictor, paths, args.top_k)
  if args.output and args.output.suffix == '.json':
    files.write_json(args.output, results)
  elif args.output:
    files.write_text(args.output, _as_csv(results))
  if args.embeddings:
    _write_embeddings(predictor, [r['path'] for r in results if 'error' not in r], args.embeddings)
  return cli.USER_ERROR if any('error' in result for result in results) else 0


def _load(workdir, checkpoint: str, backend: str | None, batch_size: int):
  """Returns the predictor of a run, or of an exported file."""
  from senet_jax import prediction

  if backend is None and workdir.suffix != '.onnx':
    return prediction.load(workdir, checkpoint, batch_size=batch_size)
  from senet_jax.export import file_predictor

  return file_predictor.load(workdir, backend or 'onnxruntime', batch_size=batch_size)


def _predict(predictor, paths: list[str], top_k: int) -> list[dict[str, Any]]:
  """Prints the predictions for each photo while they come, and returns them."""
  from rich.console import Console
  from rich.progress import Progress

  from senet_jax.data.photos import UnreadableImage

  class Quiet(Console):
    """A console that leaves a pipe without a reader to `cli.run`."""

    def on_broken_pipe(self) -> None:
      raise

  console = Quiet(soft_wrap=True, highlight=False, markup=False, emoji=False, force_jupyter=False)
  results: list[dict[str, Any]] = []
  terminal = sys.stdout.isatty()
  # What goes to stderr stays there, unless it is the same terminal.
  with Progress(
    console=console,
    disable=not terminal,
    transient=True,
    redirect_stdout=False,
    redirect_stderr=terminal and sys.stderr.isatty(),
  ) as progress:
    rows = progress.track(predictor.stream(paths), total=len(paths), description='photos')
    for path, row in zip(paths, rows, strict=True):
      path = os.fsencode(path).decode(errors='replace')  # a name need not be text
      if isinstance(row, UnreadableImage):
        print(f'senet_jax: {path} is unreadable: {row}.', file=sys.stderr)
        results.append({'path': path, 'error': str(row)})
        continue
      best = predictor.best(row, top_k)
      lines = [f'  {100 * p.probability:6.2f} %  {p.name}' for p in best]
      console.print('\n'.join([path, *lines]))
      results.append({'path': path, 'predictions': [dataclasses.asdict(p) for p in best]})
  return results


def _write_embeddings(predictor, paths: list[str], to: pathlib.Path) -> None:
  import numpy as np

  features = predictor.features(paths)
  with files.whole(to) as partial, partial.open('wb') as file:
    np.savez(file, paths=np.array(paths), features=features)


def _as_csv(results: list[dict[str, Any]]) -> str:
  rows = (
    [result['path'], rank, p['label'], p['name'], p['probability']]
    for result in results
    for rank, p in enumerate(result.get('predictions', ()), start=1)
  )
  return tables.csv_text(('path', 'rank', 'label', 'name', 'probability'), rows)


if __name__ == '__main__':
  cli.run(main)
