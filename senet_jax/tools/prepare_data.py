"""Prepares a dataset: the files of tfds, and for small images arrays that need no TensorFlow.

  python -m senet_jax.tools.prepare_data --dataset=digits
  python -m senet_jax.tools.prepare_data --dataset=cifar10 --source=DIR
  python -m senet_jax.tools.prepare_data --dataset=cifar10 --source=DIR --arrays_only
  python -m senet_jax.tools.prepare_data --dataset=cifar100 --source=download
  python -m senet_jax.tools.prepare_data --dataset=tiny_imagenet --source=DIR
  python -m senet_jax.tools.prepare_data --dataset=imagenet2012 --source=DIR
  python -m senet_jax.tools.prepare_data --dataset=places365_challenge --source=DIR
  python -m senet_jax.tools.prepare_data --dataset=coco --source=download
  python -m senet_jax.tools.prepare_data --dataset=my_photos --image_folder=ROOT

CIFAR: DIR holds its published files: the archive of the Python or the binary version, or what is in
it. Every file is compared with its official MD5. --arrays_only writes the same arrays where there
is no TensorFlow; DIR may also hold the parts of a pack of senet_jax.data.carry.

Tiny ImageNet: DIR holds tiny-imagenet-200.zip, which is compared with its MD5, or the folder that
is in it; or --source=download. Colour images come first, in a random order, and grey ones last:
train[:98179] and validation[:9832] are those in colour, of 100,000 and 10,000.

ImageNet: DIR holds ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, and may hold
ILSVRC2012_img_test.tar, from https://image-net.org/download-images. Their sizes and the numbers of
images are compared with the official ones; the data set takes as much disk space as they do.

Places365-Challenge, 8 million images of 256x256: DIR holds train_256_places365challenge.tar,
val_256.tar and filelist_places365-challenge.tar, from http://places2.csail.mit.edu/download.html.
They are compared with their MD5s and read as they are.

COCO 2017, for detectors: DIR holds annotations_trainval2017.zip, val2017.zip and train2017.zip, or
--source=download, 20 GB, which goes on where it ended. They are compared with their SHA-256 and
unpacked into <data_dir>/coco, which is then config.data.dir.

A folder of photos becomes the data set of the name that is given. ROOT holds train/<class>/*.jpg
and val/<class>/*.jpg, or only train/<class>/*.jpg or <class>/*.jpg, of which --val_fraction holds
some out; .png, .webp, .gif, .bmp, .tif and .avif will do, too, and a line says what is left out.
The photos keep their bytes; only those that a plain decoder would show wrong, such as turned ones,
become PNGs.

What is prepared already stays as it is.
"""

import argparse
import pathlib
from typing import Any

from senet_jax import cli


def main(argv: list[str]) -> None:
  """Prepares the dataset and prints its place, its splits and what is in them."""
  args = _parse(argv)
  from senet_jax.data import arrays, photos, prepare

  if args.max_pixels is not None:
    photos.allow_pixels(args.max_pixels)
  version_dir = prepare.prepare(
    args.dataset,
    args.data_dir,
    args.source,
    args.overwrite,
    file_format=args.file_format,
    partial=args.partial,
    image_folder=args.image_folder,
    val_fraction=args.val_fraction,
    arrays_only=args.arrays_only,
  )
  print(version_dir)
  if (version_dir / arrays.FOLDER).is_dir():
    _print_arrays(version_dir, args.dataset)
  else:
    _print_info(prepare.read_info(version_dir), args.dataset)


def _parse(argv: list[str]) -> argparse.Namespace:
  from senet_jax.data import arrays

  parser = cli.Parser('tools.prepare_data', __doc__)
  parser.add_argument(
    '--dataset',
    required=True,
    help='digits, cifar10, cifar100, tiny_imagenet, imagenet2012, places365_challenge or coco; '
    'with --image_folder, a name of your own',
  )
  parser.add_argument(
    '--source',
    help='directory or archive of CIFAR, Tiny ImageNet or COCO, or `download`; directory of others',
  )
  parser.add_argument('--image_folder', metavar='ROOT', help='folder of photos to pack')
  parser.add_argument(
    '--val_fraction',
    type=float,
    default=0.0,
    help='share of each class of the photos to hold out as `val`; default: 0',
  )
  parser.add_argument(
    '--partial',
    action='store_true',
    help='take files with some of the images, too; not of CIFAR',
  )
  parser.add_argument(
    '--file_format',
    default='tfrecord',
    help='tfrecord (default) or array_record, which has random access',
  )
  parser.add_argument(
    '--data_dir',
    default=arrays.default_data_dir(),
    help='directory of all datasets; default: $TFDS_DATA_DIR or ~/tensorflow_datasets',
  )
  parser.add_argument(
    '--arrays_only',
    action='store_true',
    help='of CIFAR, write the arrays alone, without TensorFlow',
  )
  parser.add_argument(
    '--max_pixels', type=cli.number, help='take photos of up to so many pixels; default: 89 million'
  )
  parser.add_argument('--overwrite', action='store_true', help='prepare it anew')
  return parser.parse_args(argv)


def _print_info(info: dict[str, Any], name: str) -> None:
  for split, count in info['splits'].items():
    print(*filter(None, (f'{split}: {count:,} examples', _beside(name, split, count))))
  print(f'{info["num_classes"]} classes, {info["file_format"]} files')


def _print_arrays(version_dir: pathlib.Path, name: str) -> None:
  from senet_jax.data import arrays

  for split, entry in arrays.read_index(version_dir)['splits'].items():
    shape, count = 'x'.join(map(str, entry['image_shape'])), entry['num_examples']
    found = f'{split}: {count} examples of {shape}', _beside(name, split, count)
    print(*filter(None, found), sep=', ')
  mean, std = arrays.channel_statistics(arrays.read_version(version_dir, 'train')[0])
  print('train mean:', *(f'{value:.4f}' for value in mean))
  print('train std: ', *(f'{value:.4f}' for value in std))


def _beside(name: str, split: str, count: int) -> str:
  """Returns how many there are officially, if that is another number."""
  from senet_jax.data import prepare

  official = prepare.official_count(name, split)
  return '' if official in (None, count) else f'of {official:,} official ones'


if __name__ == '__main__':
  cli.run(main)
