"""Names what photos show, with a trained network.

  python -m senet_jax.tools.predict --workdir=runs/flowers rose.jpg garden/
  python -m senet_jax.tools.predict --workdir=runs/flowers --top_k=1 --output=all.csv 'in/*/*.png'

Takes files, folders (all images below them) and patterns. An unreadable photo is named, and the
exit status is 2, but the others are done.
"""

import csv
import dataclasses
import glob
import io
import os
import pathlib
import sys
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.storage import files

_OUTPUTS = ('.json', '.csv')


def main(argv: list[str]) -> int:
  """Runs the command with the arguments `argv`; returns the exit status."""
  parser = cli.Parser('tools.predict', __doc__)
  parser.add_argument('photos', nargs='+', help='files, folders and patterns in quotes')
  parser.add_argument('--workdir', required=True, type=cli.path_or_bucket, help='of the run')
  parser.add_argument('--checkpoint', default='best', help='best (default), latest, or a step')
  parser.add_argument('--top_k', type=int, default=5, help='classes to name; default: 5')
  parser.add_argument(
    '--max_pixels', type=int, help='take photos of up to so many pixels; default: 89 million'
  )
  parser.add_argument('--batch_size', type=int, default=32, help='photos at once; default: 32')
  parser.add_argument(
    '--output', type=pathlib.Path, help='also write the predictions to this .json or .csv file'
  )
  args = parser.parse_args(argv)
  if args.output and args.output.suffix not in _OUTPUTS:
    raise UserError(f'--output={args.output} must end in {" or ".join(_OUTPUTS)}.')
  if args.top_k < 1:
    raise UserError(f'--top_k={args.top_k} must be at least 1.')
  paths = find_images(args.photos)

  from senet_jax import prediction, runtime
  from senet_jax.data import photos

  if args.max_pixels is not None:
    photos.allow_pixels(args.max_pixels)

  runtime.use_compilation_cache()
  batch_size = min(args.batch_size, len(paths))
  predictor = prediction.load(args.workdir, args.checkpoint, batch_size=batch_size)
  results = _predict(predictor, paths, args.top_k)
  if args.output and args.output.suffix == '.json':
    files.write_json(args.output, results)
  elif args.output:
    files.write_text(args.output, _as_csv(results))
  return cli.USER_ERROR if any('error' in result for result in results) else 0


def find_images(arguments: list[str]) -> list[str]:
  """Returns the files that files, folders and patterns stand for, each once, in this order.

  In a folder those are the files with the suffix of an image, sorted, however deep, without hidden
  ones; a line says how many others there are. A file that is named or matched is taken as it is.

  Raises:
    UserError: there is nothing of that name, or no image in a folder.
  """
  from senet_jax.data import image_folder
  from senet_jax.data.photos import SUFFIXES

  found = []
  for argument in arguments:
    matches = (
      [argument] if os.path.exists(argument) else sorted(glob.glob(argument, recursive=True))
    )
    if not matches:
      raise UserError(f'there is no file or folder {argument!r}, and none that it matches.')
    images = []
    for match in matches:
      if not os.path.isdir(match):
        images.append(match)
        continue
      below, left_out = image_folder.images_below(pathlib.Path(match))
      images += map(str, below)
      if left_out:
        others = image_folder.describe_left_out(left_out)
        print(f'senet_jax: {len(below)} images in {match}{others}.', file=sys.stderr)
    if not images:
      raise UserError(f'no image ({" ".join(SUFFIXES)}) is in {argument!r}.')
    found += images
  return list(dict.fromkeys(found))


def _predict(predictor, paths: list[str], top_k: int) -> list[dict[str, Any]]:
  """Prints the predictions for each photo while they come, and returns them."""
  from rich.console import Console
  from rich.progress import Progress

  from senet_jax.data.photos import UnreadableImage

  console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
  results = []
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


def _as_csv(results: list[dict[str, Any]]) -> str:
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  table.writerow(['path', 'rank', 'label', 'name', 'probability'])
  for result in results:
    for rank, p in enumerate(result.get('predictions', ()), start=1):
      table.writerow([result['path'], rank, p['label'], p['name'], p['probability']])
  return text.getvalue()


if __name__ == '__main__':
  cli.run(main)
