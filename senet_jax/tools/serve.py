"""Serves a page to try a trained network on, and its API.

  senet serve --workdir=se_resnet20_cifar10
  senet serve --workdir=runs/flowers --port=8080 --mean_gates=gates/activations.npz

Open the address that it prints: it takes photos by drop, paste, file or camera, two beside each
other, and shows the most probable classes and the gates of each SE block. /docs describes the API.
Only this machine reaches it, unless --host says otherwise. Photos are never kept. Ctrl-C ends it.
"""

import argparse
import importlib.util
import pathlib
import sys
import time
from typing import TYPE_CHECKING

from senet_jax import cli
from senet_jax.errors import UserError

if TYPE_CHECKING:
  import socket

_NEEDED = ('fastapi', 'uvicorn', 'python_multipart')  # the extra `demo`


def main(argv: list[str]) -> None:
  """Runs the command with the arguments `argv`."""
  args = _parse(argv)
  missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
  if missing:
    raise UserError(f"serving needs {', '.join(missing)}: pip install 'senet_jax[demo]'.")
  from senet_jax.serving import server

  with server.bind(args.host, args.port) as taken:  # before the work, if it cannot be taken
    if not server.is_local(taken):
      print(
        f'senet_jax: warning: --host={args.host} lets all who reach this machine use it, without '
        'encryption; a proxy in front of 127.0.0.1 is safer.',
        file=sys.stderr,
      )
    _serve(args, taken)


def _serve(args: argparse.Namespace, taken: 'socket.socket') -> None:
  """Reads and compiles the network, says where it is, and serves it."""
  start = time.monotonic()
  from senet_jax import prediction, runtime
  from senet_jax.data import photos
  from senet_jax.models import CLASSIFICATION
  from senet_jax.serving import app, classifier, guard, limits, mean_gates, server

  bounds = limits.Limits(
    round(args.max_megabytes * 2**20), args.max_pixels, args.max_requests, args.timeout
  )
  photos.allow_pixels(bounds.pixels)
  runtime.use_compilation_cache()
  predictor = prediction.load(
    args.workdir, args.checkpoint, batch_size=args.batch_size, task=CLASSIFICATION
  )
  network = predictor.config.model.name
  name = pathlib.PurePath(str(args.workdir)).name or network
  file = args.mean_gates or mean_gates.of_shipped(args.workdir)
  with classifier.Classifier(predictor, args.batch_size) as answering:
    means = mean_gates.read(file, answering.blocks) if file else None
    page = app.create_app(answering, name, bounds, means)

    def ready() -> None:
      seconds = time.monotonic() - start
      cli.say(
        f'{name}: {network}, {len(predictor.class_names)} classes, on '
        f'{runtime.describe_devices()}; ready after {seconds:.1f} s'
      )
      cli.say(f'{server.url(taken)}  (API: {server.url(taken)}/docs; Ctrl-C ends)')

    guarded = guard.Guard(page, bounds, args.hosts, server.is_local(taken))
    server.serve(guarded, taken, bounds, ready)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.serve', __doc__)
  add = parser.add_argument
  parser.add_bare('--workdir', type=cli.path_or_bucket, help='of the run, or a name of a network')
  add('--checkpoint', default='best', help='best (default), latest, or a step')
  add('--port', type=int, default=8000, help='default: 8000; 0 takes any that is free')
  add('--host', default='127.0.0.1', help='address to listen at; default: 127.0.0.1')
  add('--hosts', type=cli.words, default=(), metavar='NAME,NAME,...',
      help='that it may be called by, behind a proxy or in a network; addresses and localhost may '
      'always')  # fmt: skip
  add('--mean_gates', type=pathlib.Path, metavar='FILE',
      help='activations.npz of tools.activations, which gates are shown relative to')  # fmt: skip
  add('--batch_size', type=cli.number, default=16, help='photos at once at most; default: 16')
  add('--max_megabytes', type=cli.positive, default=16.0, help='of a photo; default: 16')
  add('--max_pixels', type=cli.number, default=50_000_000, help='of a photo; default: 50 million')
  add('--max_requests', type=cli.number, default=128, help='at once; default: 128')
  add('--timeout', type=cli.positive, default=30.0, help='seconds of a request; default: 30')
  return parser.parse_args(argv)


if __name__ == '__main__':
  cli.run(main)
