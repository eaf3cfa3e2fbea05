"""The order of a detector's images."""

import collections
import itertools

import numpy as np
import pytest

from senet_jax.detection.order import GroupedOrder

SHAPES = [(1, 2), (2, 1), (1, 3), (3, 1)]
# None is of the third shape, and of the last are fewer than a batch.
GROUP = np.random.default_rng(1).permutation([0] * 23 + [1] * 11 + [3] * 3)


def order(batch=4, seed=5, **host) -> GroupedOrder:
  return GroupedOrder.of(GROUP, SHAPES, batch, seed, **host)


def test_each_image_comes_once_an_epoch_of_its_group():
  ours, seen = order(), collections.defaultdict(list)
  for step in range(120):
    position, epoch, index = ours.examples(step)
    (g,) = {int(GROUP[i]) for i in index}  # a batch has one shape
    assert ours.shape(step) == SHAPES[g]
    seen[g] += zip(position.tolist(), epoch.tolist(), index.tolist(), strict=True)
  assert set(seen) == {0, 1, 3}
  for g, found in seen.items():
    members = set(np.flatnonzero(g == GROUP).tolist())
    positions, _, index = zip(*sorted(found), strict=True)
    # The sequence of the group has no hole but at the end, which is under way.
    whole = len(members) * ((len(positions) - 8) // len(members))
    assert positions[:whole] == tuple(range(whole))
    epochs = np.reshape(index[:whole], (-1, len(members)))
    assert all(set(epoch) == members for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def test_epochs_of_groups_go_together_and_their_batches_are_mixed():
  ours, n = order(), len(GROUP)
  kinds = []
  for step in range(150):
    _, epoch, index = ours.examples(step)
    assert abs(epoch.mean() - 4 * step / n) < 1.6
    kinds.append(int(GROUP[index[0]]))
  runs = sum(a != b for a, b in itertools.pairwise(kinds))
  assert runs > 40  # drawn at random: 2 * (0.62 * 0.38) * 150, some 70
  assert kinds[:37] != kinds[37:74]


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_have_parts_of_the_same_batches(hosts):
  ours = [order(host=host, hosts=hosts) for host in range(hosts)]
  for step in (0, 7, 1000, 123_456):
    parts = [one.examples(step) for one in ours]
    for whole, *found in zip(order().examples(step), *parts, strict=True):
      np.testing.assert_array_equal(whole, np.concatenate(found))


def test_seeds_differ():
  first, other = ([order(seed=s).examples(i)[2].tolist() for i in range(9)] for s in (1, 2))
  assert first != other


@pytest.mark.parametrize('batch', [1, 4, 8, 64])
def test_an_evaluation_has_each_image_once(batch):
  ours = order(batch, None)
  seen = []
  for step in range(ours.steps):
    position, _, index = ours.examples(step)
    seen += index[position < len(GROUP)].tolist()
    assert {SHAPES[GROUP[i]] for i in index} == {ours.shape(step)}
  assert sorted(seen) == list(range(len(GROUP)))
  with pytest.raises(IndexError):
    ours.examples(ours.steps)


def test_only_images_of_the_same_shape_take_the_place_of_one():
  for index in (0, 20, 36):
    found = list(order().instead(index))
    assert found[0] == index and sorted(found) == np.flatnonzero(GROUP[index] == GROUP).tolist()
    assert list(order(4, None).instead(index)) == [index]
