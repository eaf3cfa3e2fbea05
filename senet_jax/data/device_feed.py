"""The device feed: a whole split in device memory, shuffled, augmented and cut into batches there.

Batch `s` holds the examples at positions `s * batch_size` and up of an endless sequence: epoch 0 in
its random order, epoch 1 in its, and so on. A batch may thus straddle two epochs, each epoch shows
each example once, and nothing but the step is needed to go on anywhere, on any number of devices.
Under class-aware sampling the sequence is that of `ClassOrder`, and an epoch merely as long.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.data import datasets, preprocessing, repeats
from senet_jax.data.class_order import ClassOrder
from senet_jax.data.crops import CropTransform
from senet_jax.data.preprocessing import TrainingTransform, Transform
from senet_jax.data.sizes import Sizes
from senet_jax.errors import UserError
from senet_jax.runtime import keys


@dataclasses.dataclass(frozen=True)
class Split:
  """A split in device memory.

  Attributes:
    arrays: `images` `[N, H, W, C]` uint8 and `labels` `[N]` int32, whole on every device. They are
      arguments of the compiled programs, never constants in them.
    num_examples: N.
    num_classes: labels are below it.
    class_names: of label 0, 1, ...; None where they are not known.
    checksum: of the arrays.
  """

  arrays: dict[str, jax.Array]
  num_examples: int
  num_classes: int
  class_names: tuple[str, ...] | None
  checksum: int

  @classmethod
  def load(cls, config: ConfigDict, split: str, mesh: Mesh, at_least: int = 1) -> 'Split':
    """Reads a split of the data set that `config.data` describes onto the devices.

    Raises:
      UserError: it is not there, has fewer than `at_least` examples, or a label is no class.
    """
    data, classes = config.data, config.model.num_classes
    if data.fake:
      shape = preprocessing.evaluation_transform(config).shape
      images, labels = datasets.fake(data.name, split, shape, classes, at_least)
      names = None
    else:
      images, labels = datasets.load(data.name, split, data.dir)
      names = datasets.class_names(data.name, data.dir)
    if len(labels) < at_least:
      raise UserError(
        f'config.batch_size={at_least} is larger than the {len(labels)} examples of {data.name}, '
        f'split {split}; use at most that many.'
      )
    if classes is None:
      classes = datasets.streamed_info(data.name).num_classes
    datasets.check_labels(labels, classes, f'{data.name}, split {split}')
    arrays = {'images': images, 'labels': labels}
    on_devices = runtime.put_everywhere(arrays, mesh)
    return cls(on_devices, len(labels), classes, names, runtime.checksum(arrays))


@dataclasses.dataclass
class DeviceFeed:
  """Training batches from a split in device memory.

  Attributes:
    split: the data.
    batch_size: images a step, over all devices.
    seed: of the order.
    transform: from images to inputs.
    mesh: the devices.
    by_class: the order of class-aware sampling; None: random.
    repeats: how often a batch has each of its examples, see `stream_feed.Order`.
    sizes: of the inputs by step; None: always that of `transform`.
  """

  split: Split
  batch_size: int
  seed: int
  transform: TrainingTransform
  mesh: Mesh
  by_class: ClassOrder | None = None
  repeats: int = 1
  sizes: Sizes | None = None
  _epoch: int | None = None
  _orders: dict[str, jax.Array] | None = None
  # Every device gets the same inputs and picks its own examples.
  input_spec = PartitionSpec()

  @classmethod
  def create(cls, config: ConfigDict, mesh: Mesh) -> 'DeviceFeed':
    """The feed of a run.

    Raises:
      UserError: the batch is larger than the split, or does not fit the devices.
    """
    runtime.per_device(config.batch_size, mesh.size)
    split = Split.load(config, config.data.train_split, mesh, at_least=config.batch_size)
    by_class = None
    if config.data.sampling == 'class_aware':
      by_class = ClassOrder(np.asarray(split.arrays['labels']), config.seed)
    transform = TrainingTransform.create(config)
    times, sizes = config.data.repeats, Sizes.create(config, split.num_examples)
    return cls(split, config.batch_size, config.seed, transform, mesh, by_class, times, sizes)

  def inputs(self, step: int, limit: int) -> tuple[dict[str, Any], int]:
    """Returns the inputs of a program that runs from `step` on, and how many steps they allow.

    Args:
      step: the next step.
      limit: steps wanted at most.
    """
    n = self.split.num_examples
    epoch, offset = divmod(step * self.batch_size, n)
    steps = min(limit, (2 * n - offset) // self.batch_size)
    if self.sizes:
      steps = self.sizes.steps_left(step, steps)
    if epoch != self._epoch:
      # Placed once an epoch, or every dispatch would copy them to the other devices.
      orders = self._two_orders(epoch)
      self._epoch, self._orders = epoch, runtime.put_everywhere(orders, self.mesh)
    window = {'epoch': np.int32(epoch), 'step': np.int32(step), 'offset': np.int32(offset)}
    given = {**self.split.arrays, **window, **(self._orders or {})}
    return {**given, **_of_side(self.sizes.at(step))} if self.sizes else given, steps

  def shapes(self) -> list[dict[str, Any]]:
    """Returns what `inputs` gives, one for each shape that it may have."""
    given, _ = self.inputs(0, 1)
    if not self.sizes:
      return [given]
    return [{**given, **_of_side(side)} for side in dict.fromkeys(self.sizes.sides)]

  def _two_orders(self, epoch: int) -> dict[str, jax.Array | np.ndarray]:
    """The examples of `epoch` and of the one after it, and of classes the epochs, `[2 n]` int32."""
    n = self.split.num_examples
    if not self.by_class:
      return {'order': _two_orders(self.seed, epoch, n)}
    found = self.by_class.examples(epoch * n + np.arange(2 * n))
    return dict(zip(('epochs', 'order'), (x.astype(np.int32) for x in found), strict=True))

  def batch(self, inputs: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    """This device's share of the batch of `step`; runs inside the compiled program.

    Args:
      inputs: from `inputs`, for a range of steps with `step` in it.
      step: int32.

    Returns:
      `images` `[n, S, S, 3]` float32, `labels` `[n]` int32, with `n` the batch over the devices,
      and what `Mixing` adds.
    """
    index, epoch = self.examples(inputs, step)
    images, labels = inputs['images'][index], inputs['labels'][index]
    transform = self.transform
    if 'side' in inputs:
      transform = transform.at_size(len(inputs['side']))
    return transform.batch(images, labels, epoch, index, step)

  def examples(self, inputs: dict[str, jax.Array], step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index in the split and epoch, each `[n]` int32, of this device's examples of `step`.

    Under class-aware sampling the epoch is that of the example's class.
    """
    first = inputs['offset'] + (step - inputs['step']) * self.batch_size
    place = runtime.local_places(self.batch_size)
    if self.repeats > 1:
      place = jnp.asarray(repeats.spread(self.batch_size, self.repeats))[place]
    position = first + place
    if self.by_class:
      return inputs['order'][position], inputs['epochs'][position]
    n, later = self.split.num_examples, position >= self.split.num_examples
    epoch = inputs['epoch'] + later
    if self.repeats == 1:
      return inputs['order'][position], epoch
    turn, again = jnp.divmod(position - n * later, self.repeats)
    return inputs['order'][n * later + turn], epoch * self.repeats + again


def _of_side(side: int) -> dict[str, np.ndarray]:
  """Returns inputs that are empty, and by their shape alone say how large images are to be."""
  return {'side': np.zeros((side, 0), np.uint8)}


@functools.partial(jax.jit, static_argnums=2)
def _two_orders(seed, epoch, n: int) -> jax.Array:
  """The examples of `epoch` and of the one after it, each in its random order, `[2 n]` int32."""
  key = keys.stream(seed, 'order')
  orders = [jax.random.permutation(jax.random.fold_in(key, epoch + i), n) for i in (0, 1)]
  return jnp.concatenate(orders).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class EvalFeed:
  """Evaluation batches from a split in device memory: each example once, in order.

  Attributes:
    split: the data.
    batch_size: images a step, over all devices; the last batch is padded and masked.
    transform: from images to inputs.
  """

  split: Split
  batch_size: int
  transform: Transform | CropTransform
  input_spec = PartitionSpec()

  @classmethod
  def create(cls, config: ConfigDict, split: str, mesh: Mesh) -> 'EvalFeed':
    """The feed over `split`; the batch is at most the split, rounded up to fill the devices."""
    loaded = Split.load(config, split, mesh)
    batch_size = datasets.eval_batch_size(config, loaded.num_examples, mesh.size)
    transform = preprocessing.evaluation_transform(config)
    return cls(loaded, batch_size, transform)

  def __len__(self) -> int:
    return -(-self.split.num_examples // self.batch_size)

  def inputs(self, step: int) -> dict[str, Any]:
    """Returns the inputs of a program that evaluates batch `step`."""
    return {**self.split.arrays, 'first': np.int32(step * self.batch_size)}

  def batch(self, inputs: dict[str, jax.Array]) -> dict[str, Any]:
    """This device's share: as of `DeviceFeed.batch`, and `mask` `[n]`, 0.0 where it is padding."""
    index = inputs['first'] + runtime.local_places(self.batch_size)
    mask = index < self.split.num_examples
    index = jnp.minimum(index, self.split.num_examples - 1)
    return {
      'images': self.transform.to_input(inputs['images'][index]),
      'labels': inputs['labels'][index],
      'mask': mask.astype(jnp.float32),
    }
