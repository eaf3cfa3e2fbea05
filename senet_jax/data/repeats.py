"""Repeated augmentation (Hoffer et al. 2020): several versions of an image in one batch.

An epoch shows as many images as there are, and so a part of them, each `repeats` times. The
versions of an image are as far apart in the batch as they can be, on devices of their own where
there are as many, so that BN of one device does not normalise them together.
"""

import numpy as np


def spread(batch_size: int, repeats: int) -> np.ndarray:
  """Returns at each place of a batch which of its examples in their order stands there, `[N]`."""
  return np.concatenate([np.arange(k, batch_size, repeats) for k in range(repeats)])
