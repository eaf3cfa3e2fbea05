"""Checks that the outputs of networks and the labels of data mean the same classes."""

import dataclasses
import os
from collections.abc import Sequence

from senet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Outputs:
  """The meaning of the outputs of a network.

  Attributes:
    where: workdir of the network, for messages.
    count: how many outputs there are.
    names: of class 0, 1, …; None where they are not known.
    dataset: that the network was trained on.
  """

  where: str | os.PathLike
  count: int
  names: tuple[str, ...] | None
  dataset: str

  def check_data(self, names: Sequence[str] | None, dataset: str) -> None:
    """Checks that labels of a data set mean the same; names that are not known cannot differ.

    Raises:
      UserError: a class has another name.
    """
    for label, (there, here) in enumerate(zip(self.names or (), names or (), strict=False)):
      if there != here:
        raise UserError(
          f'class {label} of {dataset} is {here!r}, and {there!r} in the data that the network was '
          'trained on; evaluate it on data with the same classes.'
        )


def check_same(networks: Sequence[Outputs]) -> None:
  """Checks that the outputs of all networks of an ensemble mean the same.

  Raises:
    UserError: their numbers differ, or their names; or no names are known, and their data differs.
  """
  first = networks[0]
  for other in networks[1:]:
    if other.count != first.count:
      raise UserError(
        f'{other.where} has {other.count} classes, {first.where} has {first.count}; the networks '
        'of an ensemble need the same classes.'
      )
    pairs = list(zip(other.names or (), first.names or (), strict=False))
    for label, (here, there) in enumerate(pairs):
      if here != there:
        raise UserError(
          f'class {label} of {other.where} is {here!r}, of {first.where} {there!r}; the networks '
          'of an ensemble need the same classes.'
        )
    if other.dataset != first.dataset and not pairs:
      raise UserError(
        f'{other.where} was trained on {other.dataset}, {first.where} on {first.dataset}, and the '
        'names of their classes are not known; the networks of an ensemble need the same data.'
      )
