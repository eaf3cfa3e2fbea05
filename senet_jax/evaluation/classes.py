"""Makes the outputs of networks and the labels of data mean the same classes."""

import dataclasses
import os
from collections.abc import Sequence

from senet_jax.data import class_names
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

  def order(
    self, labels: Sequence[str] | None, dataset: str
  ) -> tuple[tuple[int, ...] | None, Sequence[str]]:
    """Returns the outputs in the order of the labels of a data set, and their names.

    A data set may have a part of the classes, such as ten folders of ImageNet's, in any order; the
    classes that it has not come behind.

    Args:
      labels: names of label 0, 1, …; those that are not known cannot differ.
      dataset: for messages.

    Returns:
      All outputs, or None if they are in that order already; and a name for each.

    Raises:
      UserError: a class of the data is none of the network's.
    """
    if not labels or not self.names or all(map(str.__eq__, self.names, labels)):
      return None, class_names.complete(labels or self.names, self.count)
    outputs = {name: output for output, name in enumerate(self.names)}
    for label, name in enumerate(labels):
      if self.names.count(name) > 1 or list(labels).count(name) > 1:
        raise UserError(
          f'class {label} of {dataset} is {name!r}, a name that two classes have, and the classes '
          f'are not in the order of those of {self.where}; give each class a name of its own.'
        )
      if name not in outputs:
        there = self.names[label] if label < len(self.names) else 'none'
        raise UserError(
          f'class {label} of {dataset} is {name!r}, which is none of the {self.count} classes of '
          f'{self.where} (its class {label} is {there!r}); evaluate it on data with its classes.'
        )
    first = [outputs[name] for name in labels]
    order = (*first, *(output for output in range(self.count) if output not in set(first)))
    return order, [self.names[output] for output in order]


def known(networks: Sequence[Outputs]) -> Outputs:
  """Returns the first network whose classes have names; the first one if none has."""
  return next((network for network in networks if network.names), networks[0])


def check_same(networks: Sequence[Outputs]) -> None:
  """Checks that the outputs of all networks of an ensemble mean the same.

  Raises:
    UserError: their numbers differ, or their names; or no names are known, and their data differs.
  """
  first, named = networks[0], known(networks)
  for other in networks[1:]:
    if other.count != first.count:
      raise UserError(
        f'{other.where} has {other.count} classes, {first.where} has {first.count}; the networks '
        'of an ensemble need the same classes.'
      )
    pairs = zip(other.names or (), named.names or (), strict=False)
    for label, (here, there) in enumerate(pairs):
      if here != there:
        raise UserError(
          f'class {label} of {other.where} is {here!r}, of {named.where} {there!r}; the networks '
          'of an ensemble need the same classes.'
        )
    if other.dataset != first.dataset and not (other.names and first.names):
      raise UserError(
        f'{other.where} was trained on {other.dataset}, {first.where} on {first.dataset}, and the '
        'names of their classes are not known; the networks of an ensemble need the same data.'
      )
