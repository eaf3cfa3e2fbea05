"""The text of `data.randaugment`, as timm writes it."""

import dataclasses
import math
import re

from senet_jax.errors import UserError, shown

# Magnitudes are out of ten.
MOST = 10.0
_EXAMPLE = 'rand-m7-mstd0.5-inc1'
_MOST_OPERATIONS = 10
_PART = re.compile(r'(mstd|mmax|inc|m|n|p)(\d{1,4}(?:\.\d{1,6})?)', re.ASCII)


@dataclasses.dataclass(frozen=True)
class Policy:
  """The policy of RandAugment (Cubuk et al. 2020), in the form that timm gave it.

  Attributes:
    magnitude: of the operations, out of 10.
    std: standard deviation of the magnitude; infinite: it is uniform from 0 to `magnitude`.
    largest: magnitude.
    operations: that are drawn for an image, with replacement.
    probability: with which each of them is done.
  """

  magnitude: float = MOST
  std: float = 0.0
  largest: float = MOST
  operations: int = 2
  probability: float = 0.5

  @classmethod
  def parse(cls, text: str) -> 'Policy':
    """Reads `rand-m7-mstd0.5-inc1`: parts m, n, p, mstd, mmax and inc, in any order.

    Raises:
      UserError: it is no such text, or of the operations that do not increase with the magnitude.
    """
    first, *parts = text.split('-')
    found = [_PART.fullmatch(part) for part in parts]
    values = {match[1]: float(match[2]) for match in found if match}
    if first != 'rand' or not all(found) or len(values) < len(parts):
      raise UserError(
        f'config.data.randaugment={shown(text)} must be rand and parts m, n, p, mstd, mmax, inc, '
        f'each once, such as {_EXAMPLE}.'
      )
    if values.pop('inc', 0.0) != 1.0:
      raise UserError(
        f'config.data.randaugment={shown(text)} is of operations whose strength does not grow with '
        f'the magnitude, which are not built; add -inc1, as in {_EXAMPLE}.'
      )
    std, operations = values.get('mstd', 0.0), values.get('n', 2.0)
    policy = cls(
      magnitude=values.get('m', MOST),
      std=math.inf if std > 100 else std,
      largest=values.get('mmax', MOST),
      operations=int(operations),
      probability=values.get('p', 0.5),
    )
    whole = 1 <= operations <= _MOST_OPERATIONS and operations == int(operations)
    if not whole or not 0 < policy.largest <= MOST or policy.probability > 1:
      raise UserError(
        f'config.data.randaugment={shown(text)}: n must be 1 to {_MOST_OPERATIONS}, p at most 1, '
        f'mmax above 0 and at most {MOST:g}.'
      )
    return policy
