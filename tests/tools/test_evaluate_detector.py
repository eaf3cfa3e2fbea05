"""`tools.evaluate` of a detector: the same for any batch, files that others read, wrong flags."""

import csv
import json

import jax
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.tools import evaluate
from senet_jax.workdir import network, saved
from tests.helpers.small_detection_run import small_detector
from tests.helpers.small_run import small

NAMES = ('person', 'bicycle', 'car')


def written(workdir, config, count, names):
  """A workdir of a network with random weights."""
  shapes = network.variable_shapes(config, network.build_model(config, count))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: 0.1 * rng.standard_normal(x.shape, np.float32), shapes)
  variables['batch_stats'] = jax.tree.map(np.ones_like, variables['batch_stats'])
  saved.write(workdir, config, variables, count, names, {'converted_from': 'a test'})
  return f'--workdir={workdir}'


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
  return written(tmp_path_factory.mktemp('runs') / 'detector', small_detector(), 3, NAMES)


def evaluated(detector, folder, batch_size):
  """What the command writes: the row, and the detections."""
  row, boxes, classes = (folder / f'{batch_size}{end}' for end in ('.json', '_f.json', '.csv'))
  evaluate.main([detector, f'--batch_size={batch_size}', '--split=validation[:20]',
                 f'--output={row}', f'--detections={boxes}', f'--per_class={classes}',
                 f'--figures={folder / "figures"}'])  # fmt: skip
  pictures = {path.name for path in (folder / 'figures').iterdir()}
  assert pictures == {'precision.png', 'confusion.png'}
  assert next(csv.reader(classes.open())) == ['class', 'AP, %']
  return json.loads(row.read_text()), json.loads(boxes.read_text())


def test_files_and_lines(detector, tmp_path, capsys):
  row, boxes = evaluated(detector, tmp_path, 8)
  assert row['examples'] == 20 and row['split'] == 'validation[:20]' and row['step'] == 0
  assert 0 <= row['ap'] <= row['ap50'] <= 100 and set(row['per_class']) == set(NAMES)
  assert boxes and set(boxes[0]) == {'image_id', 'category_id', 'bbox', 'score'}
  assert {box['image_id'] for box in boxes} <= set(range(20))
  shown = capsys.readouterr().out
  assert 'se_faster_rcnn_r50_fpn, step 0, on coco validation[:20]: 20 photos' in shown
  assert f'AP, IoU 0.5 {row["ap50"]:16.2f} %' in shown


@pytest.mark.thorough
def test_every_batch_size_gives_the_same(detector, tmp_path):
  (row, boxes), (other_row, others) = (evaluated(detector, tmp_path, size) for size in (8, 24))
  # Sums of other batches differ in the last bits, and so do boxes that suppress each other.
  for name in ('ap', 'ap50', 'ar_100'):
    assert row[name] == pytest.approx(other_row[name], abs=0.1)
  counts = [np.bincount([b['image_id'] for b in each], minlength=20) for each in (boxes, others)]
  np.testing.assert_array_equal(*counts)
  same, again = (
    {(b['image_id'], b['category_id'], *np.round(b['bbox'])) for b in each}
    for each in (boxes, others)
  )
  assert len(same & again) > 0.95 * len(same)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--top_k=1,3'], '--top_k has no effect: .* holds a network for detection'),
    (['--crops=10'], '--crops has no effect'),
    (['--checkpoint=1', '--checkpoint=2'], 'detectors cannot be ensembled'),
    (['--detections=found.txt'], 'must end in .json'),
    (['--checkpoint=7'], "has no checkpoint '7'"),
    (['--split=test'], "'test'"),
  ],
)
def test_what_cannot_be_is_one_line(detector, flags, message):
  with pytest.raises(UserError, match=message) as error:
    evaluate.main([detector, *flags])
  assert '\n' not in str(error.value)


def test_a_classifier_has_no_detections(tmp_path):
  workdir = written(tmp_path / 'run', small(), 10, None)
  with pytest.raises(UserError, match=r'--detections has no effect: .* for classification'):
    evaluate.main([workdir, '--detections=found.json'])


def test_other_classes_than_those_of_the_data(tmp_path):
  workdir = written(tmp_path / 'run', small_detector(), 3, ('cat', 'dog', 'bird'))
  with pytest.raises(UserError, match=r'the 3 classes of .* are not the 3 of coco'):
    evaluate.main([workdir])
