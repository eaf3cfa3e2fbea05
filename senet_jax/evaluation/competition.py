"""Evaluation as in the competition: which crops, of which images, for several networks at once."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax.data import sources
from senet_jax.data.crops import Crops, CropTransform
from senet_jax.data.device_feed import EvalFeed
from senet_jax.data.feeds import EvaluationFeed, streams
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.data.stream_feed import StreamEvalFeed
from senet_jax.errors import UserError
from senet_jax.evaluation import exclusion


def choose_crops(
  configs: Sequence[ConfigDict],
  size: int | None = None,
  scales: Sequence[int] = (),
  ten: bool = False,
) -> CropTransform:
  """Returns the crops that the networks of some runs are evaluated on.

  Args:
    configs: of the runs.
    size: side of a crop; None: that of the runs. Other than theirs, it comes with the resizing that
      is usual for the network.
    scales: shorter sides of the resized images; none: as in an evaluation of the runs.
    ten: ten crops, as of `Crops`.

  Raises:
    UserError: the runs differ in it, or the crops do not fit.
  """
  transforms, chosen = [], []
  for config in configs:
    config = config.copy_and_resolve_references()
    if size:
      config.data.image_size = size
    if size or scales:
      config.data.resize = None
    transform = evaluation_transform(config)
    usual = transform.resize if streams(config) else transform.image_size
    transforms.append(transform)
    scales_of = tuple(scales) or (usual,)
    kind = transform.keep_aspect, transform.interpolation
    chosen.append(Crops(transform.image_size, scales_of, ten, *kind))
  crops = chosen[0]
  for transform, other in zip(transforms, chosen, strict=True):
    if (other, transform.shape) != (crops, transforms[0].shape):
      raise UserError(
        f'the networks are evaluated on different crops: {crops.describe()}, and '
        f'{other.describe()}; give --size and --resize for all of them.'
      )
  if min(crops.scales) < crops.size:
    raise UserError(
      f'--scales: images whose shorter side is {min(crops.scales)} are smaller than the crop of '
      f'{crops.size}; use at least that, or a smaller --size.'
    )
  if ten and not streams(configs[0]) and max(crops.scales) == crops.size:
    raise UserError(
      f'--crops=10: all crops of {crops.size} of an image of that size are the image and its '
      f'mirror image; give a larger --resize, such as {crops.size + max(crops.size // 8, 1)}.'
    )
  return CropTransform(crops, tuple(transforms))


def open_feed(
  config: ConfigDict,
  split: str,
  mesh: Mesh,
  transform: CropTransform,
  left_out: Sequence[str] = (),
) -> tuple[EvaluationFeed, int]:
  """Opens the feed of the crops of a split, with as many crops a step as images otherwise.

  Args:
    config: of the run that names the data; `model.num_classes` is set.
    split: of the data.
    mesh: the devices.
    transform: from `choose_crops`.
    left_out: images that are not read, as of `exclusion.find`.

  Returns:
    The feed, and how many images are left out.

  Raises:
    UserError: the data is not usable, or a line of `left_out` names no image.
  """
  config = config.copy_and_resolve_references()
  crops = transform.crops
  config.eval.batch_size = max((config.eval.batch_size or config.batch_size) // len(crops), 1)
  where = f'{config.data.name}, split {split}'
  if streams(config):
    source, count = sources.open_source(config, split), 0
    if left_out:
      folder = config.data.name == sources.IMAGE_FOLDER
      known = exclusion.only_indices(left_out)
      names = None if known else exclusion.file_names(source, folder)
      indices = exclusion.find(left_out, source.num_examples, names, where)
      source, count = exclusion.without(source, indices), len(indices)
    streamed = StreamEvalFeed.create(config, split, mesh, crops, source)
    return dataclasses.replace(streamed, transform=transform), count
  feed, count = EvalFeed.create(config, split, mesh), 0
  if left_out:
    indices = exclusion.find(left_out, feed.split.num_examples, None, where)
    count = len(indices)
    kept = np.delete(np.arange(feed.split.num_examples), indices)
    arrays = jax.tree.map(lambda x: x[kept], feed.split.arrays)
    shorter = dataclasses.replace(feed.split, arrays=arrays, num_examples=len(kept))
    feed = dataclasses.replace(feed, split=shorter)
  return dataclasses.replace(feed, transform=transform), count
