"""Prepares a dataset: the files of tfds, and beside them arrays that need no TensorFlow.

  python -m senet_jax.tools.prepare_data --dataset=digits
  python -m senet_jax.tools.prepare_data --dataset=cifar10 --source=DIR
  python -m senet_jax.tools.prepare_data --dataset=cifar100 --source=download

DIR holds the published files of CIFAR: the archive of the Python or the binary version, or what is
in it. Every file is compared with its official MD5. What is prepared already stays as it is.
"""

import numpy as np

from senet_jax import cli
from senet_jax.data import arrays


def main(argv: list[str]) -> None:
  """Prepares the dataset and prints its place, splits and the statistics of its pixels."""
  parser = cli.Parser('tools.prepare_data', __doc__)
  parser.add_argument('--dataset', required=True, help='digits, cifar10 or cifar100')
  parser.add_argument('--source', help='directory or archive of CIFAR, or `download`')
  parser.add_argument(
    '--data_dir',
    default=arrays.default_data_dir(),
    help='directory of all datasets; default: $TFDS_DATA_DIR or ~/tensorflow_datasets',
  )
  parser.add_argument('--overwrite', action='store_true', help='prepare it anew')
  args = parser.parse_args(argv)

  # Late, for a fast --help.
  from senet_jax.data import prepare

  version_dir = prepare.prepare(args.dataset, args.data_dir, args.source, args.overwrite)
  print(version_dir)
  for split, entry in arrays.read_index(version_dir)['splits'].items():
    shape = 'x'.join(map(str, entry['image_shape']))
    print(f'{split}: {entry["num_examples"]} examples of {shape}')
  mean, std = channel_statistics(arrays.read_version(version_dir, 'train')[0])
  print('train mean:', *(f'{value:.4f}' for value in mean))
  print('train std: ', *(f'{value:.4f}' for value in std))


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of every channel, of values 0..1.

  Args:
    images: uint8 `[N, H, W, C]`.

  Returns:
    two `[C]`.
  """
  total, squares = 0, 0
  for start in range(0, len(images), 4096):  # a bounded amount of memory; the sums are exact
    pixels = images[start : start + 4096].reshape(-1, images.shape[-1]).astype(np.int64)
    total += pixels.sum(axis=0)
    squares += np.square(pixels).sum(axis=0)
  count = images[..., 0].size
  mean = total / count
  return mean / 255, np.sqrt(squares / count - np.square(mean)) / 255


if __name__ == '__main__':
  cli.run(main)
