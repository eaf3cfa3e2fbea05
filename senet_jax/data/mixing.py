"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): images of a batch mixed in pairs.

Of a pair each image gets a share of the other. The pairs are neighbours in the batch, whose order
is random, so that no pair lies on two devices and their number has no part in who meets whom.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from senet_jax.runtime import keys

# What is folded into the key of an example; `augment` has the numbers below.
_OF_EXAMPLE = 7


@dataclasses.dataclass(frozen=True)
class Mixing:
  """Mixes the images of a batch.

  Attributes:
    seed: of the draws.
    mixup: alpha of mixup, whose share is of Beta(alpha, alpha); 0: there is none.
    cutmix: the same of CutMix.
    cutmix_share: how often it is CutMix, of the two.
    share: how often there is any mixing.
    each: every image has draws of its own, keyed by (seed, epoch, index), instead of those of the
      batch, keyed by (seed, step).
  """

  seed: int
  mixup: float
  cutmix: float
  cutmix_share: float = 0.5
  share: float = 1.0
  each: bool = False

  @classmethod
  def create(cls, config: ConfigDict) -> 'Mixing | None':
    """Returns the mixing of a run, None for none."""
    data = config.data
    if not (data.mixup or data.cutmix):
      return None
    return cls(
      config.seed, data.mixup, data.cutmix, data.cutmix_share, data.mix_share, data.mix_each
    )

  def __call__(
    self, batch: dict[str, jax.Array], of_each: jax.Array, step: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns a batch whose images are mixed.

    Args:
      batch: `images` `[n, H, W, C]` float32 and `labels` `[n]`; n is even.
      of_each: `[n]` keys of the examples.
      step: int32.

    Returns:
      `images` and `labels`, and of the image that is mixed in `other_labels` `[n]`; `share` `[n]`
      float32 is that of `labels`.
    """
    images, labels = batch['images'], batch['labels']
    _, height, width, _ = images.shape
    draw = functools.partial(self.draw, shape=(height, width))
    if self.each:
      fold = functools.partial(jax.random.fold_in, data=_OF_EXAMPLE)
      weights, share = jax.vmap(lambda key: draw(fold(key)))(of_each)
    else:
      key = jax.random.fold_in(keys.stream(self.seed, 'mixing'), step)
      weights, share = (x[None] for x in draw(key))
    weights = weights[..., None]
    return {
      **batch,
      'images': weights * images + (1 - weights) * _neighbours(images),
      'other_labels': _neighbours(labels),
      'share': jnp.broadcast_to(share, labels.shape),
    }

  def draw(self, key: jax.Array, shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Returns the weight of an image in each pixel `[H, W]`, and that of its label; float32."""
    any_key, kind_key, share_key, place_key = jax.random.split(key, 4)
    is_cutmix = jax.random.bernoulli(kind_key, self._cutmix_share)
    alpha = jnp.where(is_cutmix, self.cutmix, self.mixup)
    share = jax.random.beta(share_key, alpha, alpha)
    share = jnp.where(jax.random.bernoulli(any_key, self.share), share, 1.0)
    center = jax.random.randint(place_key, (2,), 0, jnp.array(shape))
    low, high = box(share, center, jnp.array(shape))
    inside = [
      (jnp.arange(side) >= first) & (jnp.arange(side) < end)
      for side, first, end in zip(shape, low, high, strict=True)
    ]
    outside = 1.0 - (inside[0][:, None] & inside[1]).astype(jnp.float32)
    weights = jnp.where(is_cutmix, outside, share)
    return weights, jnp.where(is_cutmix, outside.mean(), share)

  @property
  def _cutmix_share(self) -> float:
    return self.cutmix_share if self.mixup and self.cutmix else float(self.cutmix > 0)


def box(share: jax.Array, center: jax.Array, sides: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the box of CutMix: its first row and column, and those behind it, each `[2]` int32.

  Its sides are `sqrt(1 - share)` of the image's; where it sticks out it is cut off.

  Args:
    share: of the image that keeps what is outside.
    center: row and column, `[2]` int32.
    sides: height and width, `[2]` int32.
  """
  cut = jnp.floor(sides * jnp.sqrt(1 - share)).astype(jnp.int32)
  low, high = center - cut // 2, center + (cut + 1) // 2
  return jnp.clip(low, 0, sides), jnp.clip(high, 0, sides)


def _neighbours(x: jax.Array) -> jax.Array:
  """Returns `[n, ...]` with the two of each pair exchanged."""
  return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)
