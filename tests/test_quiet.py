"""Libraries say nothing of what is as it should be, and a mistake is one message."""

import logging
import threading
from concurrent import futures

import numpy as np
import pytest

import senet_jax
from senet_jax.data import stream_feed
from senet_jax.errors import UserError
from tests.helpers import paths


def test_a_missing_run_is_one_error(tmp_path):
  with pytest.raises(UserError, match='holds no run') as caught:
    senet_jax.load(tmp_path / 'nothing')
  assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_reading_a_run_warns_of_nothing(caplog):
  logging.getLogger('absl').setLevel(logging.WARNING)
  senet_jax.load(paths.TESTS / 'fixtures' / 'old_workdir')
  assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
  assert logging.getLogger('absl').level == logging.WARNING


def test_threads_do_not_trace_the_decoder_again():
  tf = pytest.importorskip('tensorflow')
  decode = stream_feed._in_blocks(lambda record, epoch, index: (
    tf.cast(tf.strings.length(record)[None], tf.uint8), tf.cast(epoch + index, tf.int32)
  ))  # fmt: skip
  warnings = []
  handler = logging.Handler()
  handler.emit = lambda record: warnings.append(record.getMessage())
  logging.getLogger('tensorflow').addHandler(handler)
  start = threading.Barrier(12)

  def call(number: int) -> int:
    start.wait()
    images, labels = decode(np.array([b'abc']), np.array([number]), np.array([1]))
    assert images.numpy().tolist() == [[3]]
    return int(labels[0])

  try:
    with futures.ThreadPoolExecutor(12) as pool:
      assert list(pool.map(call, range(12))) == list(range(1, 13))
  finally:
    logging.getLogger('tensorflow').removeHandler(handler)
  assert not warnings
