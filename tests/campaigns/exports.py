"""Exports networks at full size, and writes down how far each file is from its network.

  python -m tests.campaigns.exports --output=results/export/differences.json
  python -m tests.campaigns.exports --only=se_resnet50:onnx

Weights are random, and statistics those of photos: with others, networks of random weights lose the
digits that are compared. A quarter of an hour.
"""

import functools
import os
import pathlib
import tempfile
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax import cli, config as config_lib
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.export import agreement, exported
from senet_jax.measure import programs
from senet_jax.storage import files
from senet_jax.workdir import saved, summary
from senet_jax.workdir.network import build_model

_ALL = ('stablehlo', 'onnx', 'savedmodel', 'tflite')
WANTED = {
  'mobilenet_v1': _ALL,
  'se_mobilenet_v1': _ALL,
  'se_resnet20_cifar': _ALL,
  'se_resnet50': _ALL,
  'inception_v3': _ALL[:2],
  'se_inception_v3': _ALL[:2],
  'senet154': _ALL[:2],
}


def write_run(name: str, folder: pathlib.Path) -> pathlib.Path:
  """Writes a workdir of a network with random weights; returns it."""
  make = config_lib.cifar if name.endswith('_cifar') else config_lib.imagenet
  config = make(name)
  config.bn.momentum = 0.0  # the statistics are those of the photos
  model = build_model(config)
  variables = jax.tree.map_with_path(_tame, programs.made_up_variables(config, model))
  plain = evaluation_transform(config)
  photos = [photo.resize(plain.shape[:2]) for photo in agreement.sample_photos()[:4]]
  images = plain.to_input(jnp.stack([np.asarray(photo) for photo in photos]))
  forward = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  rngs = {'dropout': jax.random.key(0)}
  _, new = jax.jit(lambda v, x: forward(v, x, rngs=rngs))(variables, images)
  variables['batch_stats'] = jax.device_get(new['batch_stats'])
  config.optimizer.momentum = 0.0
  workdir = folder / name
  saved.write(workdir, config, variables, model.num_classes, None, {'random': name})
  return workdir


def _tame(path: tuple, x: np.ndarray) -> np.ndarray:
  """Opens gates and makes residual branches small.

  Random weights alone lose digits on the way: after many gates of a half maps are in the noise, and
  a last bit grows from unit to unit, in the network itself as in its file.
  """
  names = [key.key for key in path[-2:]]
  if names == ['fc2', 'bias']:
    return x + np.float32(3)
  return x * np.float32(0.2) if names == ['bn3', 'scale'] else x


def main(argv: list[str]) -> int:
  """Runs the campaign; returns 1 if a file differs by too much."""
  parser = cli.Parser('tests.campaigns.exports', __doc__)
  parser.add_argument('--only', type=cli.words, help='NETWORK:FORMAT, with commas')
  parser.add_output()
  args = parser.parse_args(argv)
  rows: list[dict[str, Any]] = []
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    for name, formats in WANTED.items():
      chosen = [f for f in formats if args.only is None or f'{name}:{f}' in args.only]
      workdir = write_run(name, folder) if chosen else None
      for format in chosen:
        found = exported.export(workdir, folder / f'{name}.{format}', format)
        rows.append({'network': name, 'format': format, 'photos': found.photos,
                     'relative': found.worst, 'rows': found.rows})  # fmt: skip
        print(f'{name:20} {format:10} {found.worst:.1e} of the spread', flush=True)
  if args.output:
    head = summary.record_head('differences of exported files from their networks', 'export', [])
    head['command'] = f'python -m tests.campaigns.exports {" ".join(argv)}'
    files.write_json(args.output, {**head, 'bound': agreement.BOUND, 'files': rows})
  return int(any(row['relative'] > agreement.BOUND for row in rows))


if __name__ == '__main__':
  cli.run(main)
