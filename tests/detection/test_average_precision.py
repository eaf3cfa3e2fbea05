"""Average precision on cases computed by hand."""

import json
import sys

import numpy as np
import pytest

from senet_jax.detection import average_precision as lib, detections
from senet_jax.detection.annotations import from_records, read_instances
from senet_jax.errors import UserError


def annotations(*boxes, images=1, **more):
  """Boxes of class `cat` in image 1, or of (image, category, box)."""
  rows = [box if isinstance(box, tuple) else (1, 3, box) for box in boxes]
  return from_records(
    [{'id': i + 1, 'file_name': f'{i}.jpg', 'height': 400, 'width': 400} for i in range(images)],
    [
      {'id': i, 'image_id': image, 'category_id': category, 'bbox': box, **more}
      for i, (image, category, box) in enumerate(rows)
    ],
    [{'id': 3, 'name': 'cat'}, {'id': 8, 'name': 'dog'}],
    where='here',
  )


def row(bbox, score, image=1, category=3):
  return {'image_id': image, 'category_id': category, 'bbox': bbox, 'score': score}


def perfect(known):
  """Each object, with a score that tells nothing."""
  owners = np.repeat(known.image_ids, known.counts).tolist()
  for i, (x1, y1, x2, y2) in enumerate(known.boxes.tolist()):
    if not known.crowd[i]:
      category = known.category_ids[known.classes[i]]
      yield row([x1, y1, x2 - x1, y2 - y1], 0.5 + i / 1e4, owners[i], category)


def test_perfect_detections_of_real_photos(coco64, capsys):
  known = read_instances(coco64 / 'annotations' / 'instances_train2017_64.json')
  found = lib.judge(known, list(perfect(known)))
  names = {'ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large'}
  assert {name: found.results[name] for name in names} == dict.fromkeys(names, pytest.approx(100))
  assert found.results['ar_100'] == pytest.approx(100)
  assert found.results['ar_1'] < 90
  # Classes that no photo has are left out.
  there = {known.class_names[c] for c in known.classes[~known.crowd]}
  assert set(found.per_class) == there and len(there) > 50
  assert capsys.readouterr().out == ''


def test_a_case_computed_by_hand():
  known = annotations([10, 10, 100, 100], [200, 200, 100, 100])
  # Right, at IoU 0.8; wrong; right at 1, behind it.
  first, wrong, last = (
    row([10, 10, 100, 80], 0.9), row([300, 10, 20, 20], 0.8), row([200, 200, 100, 100], 0.7)
  )  # fmt: skip
  assert lib.average_precision(known, [first, wrong])['ap50'] == pytest.approx(100 * 51 / 101)
  results = lib.average_precision(known, [first, wrong, last])
  # Precision 1 up to recall 0.5, 2/3 behind.
  low = (51 + 50 * 2 / 3) / 101
  assert results['ap50'] == results['ap75'] == pytest.approx(100 * low)
  # Above IoU 0.8, in 0.85, 0.9 and 0.95: the first one is wrong, one of three is right.
  high = 51 / 3 / 101
  assert results['ap'] == pytest.approx(100 * (7 * low + 3 * high) / 10)
  # Of large objects alone nothing smaller is wrong.
  assert results['ap_large'] == pytest.approx(100 * (7 + 3 * 51 / 101) / 10)
  assert 'ap_small' not in results
  assert results['ar_1'] == pytest.approx(100 * (7 * 0.5) / 10)
  assert results['ar_100'] == pytest.approx(100 * (7 * 1 + 3 * 0.5) / 10)


def test_images_and_classes_are_told_apart():
  box = [10, 10, 100, 100]
  known = annotations((1, 3, box), (2, 8, box), images=3)
  exchanged = [row(box, 0.9, image=1, category=8), row(box, 0.9, image=2, category=3)]
  assert lib.average_precision(known, exchanged)['ap'] == 0
  found = lib.judge(known, [row(box, 0.9, image=1), row(box, 0.9, image=3, category=8)])
  assert found.per_class == {'cat': pytest.approx(100), 'dog': 0}
  assert found.results['ap'] == pytest.approx(50)
  assert found.precision.shape == (10, 101, 2)


def test_a_crowd_is_neither_found_nor_missed():
  known = annotations([10, 10, 100, 100], (1, 3, [200, 0, 200, 200]))
  known.crowd[1] = True
  found = [row([10, 10, 100, 100], 0.5), row([250, 50, 20, 20], 0.9)]
  assert lib.average_precision(known, found)['ap'] == pytest.approx(100)
  assert lib.average_precision(known, [])['ap'] == 0


def test_without_objects_there_is_no_precision():
  with pytest.raises(UserError, match='there is no object'):
    lib.judge(annotations(), [])
  with pytest.raises(UserError, match='there is no object'):
    lib.judge(annotations([1, 1, 5, 5], iscrowd=1), [])


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'image_id': 9}, 'no such image'),
    ({'image_id': [1]}, 'no such image'),
    ({'category_id': 4}, 'no such category'),
    ({'bbox': [1, 2, 3]}, 'bbox must be'),
    ({'bbox': [1, 2, -3, 4]}, 'bbox must be'),
    ({'bbox': [1, 2, float('nan'), 4]}, 'bbox must be'),
    ({'score': float('inf')}, 'score must be'),
    ({'score': None}, 'score must be'),
  ],
)
def test_a_row_that_cannot_be(changes, message):
  rows = [row([1, 2, 3, 4], 0.5), {**row([1, 2, 3, 4], 0.5), **changes}]
  with pytest.raises(UserError, match=f'detection 1 is invalid: {message}') as refusal:
    lib.judge(annotations([1, 2, 3, 4]), rows)
  assert '\n' not in str(refusal.value)


def test_the_json_is_that_of_coco(tmp_path):
  known = annotations([10, 10, 100, 100])
  rows = [row([10.123, 10, 99, 100], 0.25), row([1, 2, 3, 4], 0.5)]
  for some in (rows, []):
    detections.write(tmp_path / 'found.json', some)
    assert json.loads((tmp_path / 'found.json').read_text()) == some
    assert detections.read(tmp_path / 'found.json', known) == some
  for text, message in (
    ('{}', 'is not a list of detections in COCO'),
    ('[', 'no JSON'),
    ('[5]', 'it has no fields'),
  ):
    (tmp_path / 'found.json').write_text(text)
    with pytest.raises(UserError, match=message):
      detections.read(tmp_path / 'found.json', known)
  with pytest.raises(UserError, match='cannot be read: No such file'):
    detections.read(tmp_path / 'other.json', known)


def test_without_pycocotools(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pycocotools.coco', None)
  with pytest.raises(UserError, match=r"pip install 'senet_jax\[detection\]'"):
    lib.judge(annotations([1, 2, 3, 4]), [])
