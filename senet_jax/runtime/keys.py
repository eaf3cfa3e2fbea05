"""Random keys: named streams of one seed, of which no two meet.

The first number that is folded into the key of the seed tells a stream from all others. The
augmentation of images folds in the epoch, which is below 2**31; other streams have a name.
"""

import jax
import jax.numpy as jnp

STREAMS = {
  'order': 0xFFFF_FFFF, 'network': 0xFFFF_FFFE, 'mixing': 0xFFFF_FFFD, 'drop_path': 0xFFFF_FFFC,
  'sampling': 0xFFFF_FFFB,
}  # fmt: skip


def stream(seed: int | jax.Array, name: str) -> jax.Array:
  """Returns the key of a stream, from which others are made with `jax.random.fold_in`.

  Args:
    seed: of the run.
    name: one of `STREAMS`: `order` of the examples, `network` for what networks draw on each
      device, `mixing` of the images of a batch, `drop_path` for the units that images skip,
      `sampling` of the boxes that are in the loss of a detector.
  """
  return jax.random.fold_in(jax.random.key(seed), jnp.uint32(STREAMS[name]))


def of_example(seed: int | jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
  """Returns the key of the augmentation of an example.

  Args:
    seed: of the run.
    epoch: scalar int32, from 0 on.
    index: scalar int32, of the example in its split.
  """
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), index)
