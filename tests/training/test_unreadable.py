"""What a run knows of unreadable images: found by its streams, by other processes, and before."""

import types

import pytest

from senet_jax import runtime
from senet_jax.data.stream import Streamed
from senet_jax.training import run
from senet_jax.training.task import Feeds


class Feed(Streamed):
  """A feed without batches."""

  def _batches(self, first):
    yield from ()


@pytest.fixture
def feeds():
  """A streamed training split of which image 3 is damaged, and an evaluation split in memory."""
  mesh = runtime.data_mesh(1)
  stream = types.SimpleNamespace(damaged={3: 'c.jpg'})
  return Feeds(mesh, Feed(None, 8, stream, None, mesh), types.SimpleNamespace(), streamed=True)


def test_a_thread_may_find_more_while_the_names_are_read(feeds):
  for names in feeds.unreadable().values():
    for index in names:
      feeds.train.stream.damaged[index + 1] = 'd.jpg'
  assert feeds.unreadable() == {'train': {3: 'c.jpg', 4: 'd.jpg'}}


def test_processes_tell_each_other(feeds, monkeypatch):
  def gather(name, ours):
    return [ours, {'train': {'7': 'g.jpg'}}]

  monkeypatch.setattr(runtime, 'gather', gather)
  assert run.shared_unreadable(feeds, 1) == {'train': {'3': 'c.jpg', '7': 'g.jpg'}}
  assert feeds.train.stream.damaged == {3: 'c.jpg', 7: 'g.jpg'}


def test_a_run_that_goes_on_knows_those_of_its_streams(feeds):
  feeds.know_unreadable({'train': {'7': 'g.jpg'}, 'eval': {'1': 'a.jpg'}})
  assert feeds.unreadable() == {'train': {3: 'c.jpg', 7: 'g.jpg'}}
