"""Annotations: what COCO's JSON says, and what is done about faults in it."""

import json
import os
import re

import numpy as np
import pytest

from senet_jax.detection import annotations as lib
from senet_jax.errors import UserError

IMAGES = [
  {'id': 7, 'file_name': 'b.jpg', 'height': 40, 'width': 60},
  {'id': 3, 'file_name': 'a.jpg', 'height': 30, 'width': 20},
]
CATEGORIES = [{'id': 5, 'name': 'cup'}, {'id': 2, 'name': 'cat'}]
BOX = {'id': 1, 'image_id': 7, 'category_id': 5, 'bbox': [10, 20, 30, 10], 'area': 99, 'iscrowd': 0}


def parsed(text=None, **parts):
  content = {'images': IMAGES, 'annotations': [BOX], 'categories': CATEGORIES, **parts}
  content = json.loads(text or json.dumps(content))
  return lib.from_records(*content.values(), where='here')


def test_an_instances_json_is_read_whole(coco64):
  path = coco64 / 'annotations' / 'instances_train2017_64.json'
  raw = json.loads(path.read_text())
  found = lib.read_instances(path, coco64 / 'train2017')
  assert not found.faults and len(found) == 64 and len(found.class_names) == 80
  assert list(found.image_ids) == sorted(image['id'] for image in raw['images'])
  assert found.crowd.sum() == 5
  for i, number in enumerate(found.image_ids):
    expected = {a['id']: a for a in raw['annotations'] if a['image_id'] == number}
    rows = found.of(i)
    assert sorted(found.ids[rows]) == sorted(expected)
    for j in range(rows.start, rows.stop):
      one = expected[found.ids[j]]
      x, y, w, h = one['bbox']
      np.testing.assert_allclose(found.boxes[j], [x, y, x + w, y + h], rtol=1e-12)
      assert found.category_ids[found.classes[j]] == one['category_id']
      assert found.areas[j] == one['area'] and found.crowd[j] == one['iscrowd']


def test_images_and_classes_go_by_their_ids():
  found = parsed()
  assert found.file_names == ('a.jpg', 'b.jpg') and found.class_names == ('cat', 'cup')
  np.testing.assert_array_equal(found.sizes, [[30, 20], [40, 60]])
  # An image without boxes stays.
  np.testing.assert_array_equal(found.counts, [0, 1])
  np.testing.assert_array_equal(found.boxes, [[10, 20, 40, 30]])
  assert found.classes.tolist() == [1] and found.areas.tolist() == [99]


@pytest.mark.parametrize(
  ('kind', 'changes', 'left'),
  [
    (lib.OUTSIDE, {'bbox': [50, 20, 30, 10]}, [50, 20, 60, 30]),
    (lib.OUTSIDE, {'bbox': [70, 20, 30, 10]}, None),
    (lib.EMPTY, {'bbox': [10, 20, 0, 10]}, None),
    (lib.EMPTY, {'bbox': [10, 20, 5, -10]}, None),
    (lib.NO_BOX, {'bbox': [10, 20, float('nan'), 10]}, None),
    (lib.NO_BOX, {'bbox': [10, 20, float('inf'), 10]}, None),
    (lib.NO_BOX, {'bbox': [10, 20, 10**400, 10]}, None),
    (lib.NO_BOX, {'bbox': [10, 20, '5', 10]}, None),
    (lib.NO_BOX, {'bbox': [10, 20, 5]}, None),
    (lib.NO_BOX, {'bbox': None}, None),
    (lib.CATEGORY, {'category_id': 6}, None),
    (lib.CATEGORY, {'category_id': [5]}, None),
    (lib.IMAGE, {'image_id': 8}, None),
    (lib.IMAGE, {'image_id': {}}, None),
    (lib.CROWD, {'iscrowd': '0'}, [10, 20, 40, 30]),
    (lib.CROWD, {'iscrowd': [0]}, [10, 20, 40, 30]),
    (lib.CROWD, {'iscrowd': 2}, [10, 20, 40, 30]),
    (lib.RECORD, {'id': None}, None),
    (lib.RECORD, {'id': True}, None),
  ],
)
def test_a_fault_is_mended_or_left_out_and_counted(kind, changes, left):
  good = {**BOX, 'id': 2, 'image_id': 3, 'bbox': [1, 2, 3, 4]}
  found = parsed(annotations=[{**BOX, **changes}, good])
  assert {name: len(each) for name, each in found.faults.items()} == {kind: 1}
  expected = [[1, 2, 4, 6], *([left] if left else [])]
  np.testing.assert_array_equal(found.boxes, expected)
  assert not found.crowd.any()
  found.check_faults('here', 1)
  with pytest.raises(UserError, match=rf'max_faulty=0 allows: 1 x {re.escape(kind)} \(') as refusal:
    found.check_faults('here', 0)
  assert '\n' not in str(refusal.value) and len(str(refusal.value)) < 500


@pytest.mark.parametrize('crowd', [0, 1, False, True, None, 1.0])
def test_a_crowd_is_one_by_its_number(crowd):
  found = parsed(annotations=[{**BOX, 'iscrowd': crowd}])
  assert not found.faults and found.crowd.tolist() == [bool(crowd)]


def test_a_box_that_does_not_say_so_is_no_crowd():
  found = parsed(annotations=[{name: BOX[name] for name in BOX if name != 'iscrowd'}])
  assert not found.faults and not found.crowd.any()


def test_rounding_at_the_border_is_no_fault():
  found = parsed(annotations=[{**BOX, 'bbox': [-0.4, 0, 60.6, 40.3]}])
  assert not found.faults
  np.testing.assert_allclose(found.boxes, [[-0.4, 0, 60.2, 40.3]])


@pytest.mark.parametrize(
  ('kind', 'parts', 'images'),
  [
    (lib.TWICE, {'annotations': [BOX, BOX]}, 2),
    (lib.TWICE, {'images': [*IMAGES, {**IMAGES[0], 'file_name': 'c.jpg'}]}, 2),
    (lib.TWICE, {'categories': [*CATEGORIES, CATEGORIES[0]]}, 2),
    (lib.RECORD, {'images': [*IMAGES, 5]}, 2),
    (lib.RECORD, {'images': [IMAGES[0], {**IMAGES[1], 'height': 0}]}, 1),
    (lib.RECORD, {'images': [IMAGES[0], {**IMAGES[1], 'width': '20'}]}, 1),
    (lib.RECORD, {'images': [IMAGES[0], {**IMAGES[1], 'file_name': '../a.jpg'}]}, 1),
    (lib.RECORD, {'images': [IMAGES[0], {**IMAGES[1], 'file_name': '/etc/passwd'}]}, 1),
    (lib.RECORD, {'images': [IMAGES[0], {**IMAGES[1], 'file_name': ''}]}, 1),
    (lib.RECORD, {'categories': [*CATEGORIES, {'id': 9}]}, 2),
    (lib.RECORD, {'categories': [*CATEGORIES, {'id': 9, 'name': 'cup'}]}, 2),
  ],
)
def test_malformed_records(kind, parts, images):
  found = parsed(**parts)
  assert {name: len(each) for name, each in found.faults.items()} == {kind: 1}
  assert len(found) == images and found.ids.tolist() == [1]


def test_boxes_of_an_image_that_is_left_out_go_with_it():
  found = parsed(images=[{**IMAGES[0], 'width': None}, IMAGES[1]])
  assert list(found.faults) == [lib.RECORD] and not len(found.boxes)


def test_missing_photos(tmp_path):
  (tmp_path / 'instances.json').write_text(
    json.dumps({'images': IMAGES, 'annotations': [BOX], 'categories': CATEGORIES})
  )
  (tmp_path / 'a.jpg').touch()
  os.mkfifo(tmp_path / 'b.jpg')
  found = lib.read_instances(tmp_path / 'instances.json', tmp_path)
  assert found.faults == {lib.MISSING: ('image 7: b.jpg',)} and found.file_names == ('a.jpg',)


def test_faults_are_listed_in_a_file(tmp_path):
  bad = parsed(
    annotations=[{**BOX, 'category_id': 6}, {**BOX, 'id': 2, 'bbox': [1, 1, 0, '\ud800']}]
  )
  lib.write_faults(tmp_path / 'faults.json', {'train': bad, 'eval': parsed()})
  found = json.loads((tmp_path / 'faults.json').read_text())
  assert list(found) == ['train'] and list(found['train']) == [lib.CATEGORY, lib.NO_BOX]
  assert found['train'][lib.CATEGORY] == [
    'annotation 1 of image 7: category 6, bbox [10, 20, 30, 10]'
  ]
  lib.write_faults(tmp_path / 'none.json', {'train': parsed()})
  assert not (tmp_path / 'none.json').exists()


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'is no JSON, or damaged'),
    ('{"images": [', 'is no JSON, or damaged'),
    ('[' * 10**5, 'is no JSON, or damaged'),
    ('\ud800'.encode('utf-8', 'surrogatepass'), 'is no JSON, or damaged'),
    ('5', "has no list 'images'"),
    ('{}', "has no list 'images'"),
    ('{"images": [], "annotations": {}}', "has no list 'annotations'"),
    ('{"images": [], "annotations": [], "categories": []}', 'has no categories'),
  ],
)
def test_a_file_that_is_none(tmp_path, text, message):
  path = tmp_path / 'instances.json'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(UserError, match=message) as refusal:
    lib.read_instances(path)
  assert '\n' not in str(refusal.value) and len(str(refusal.value)) < 500


def test_a_part_has_its_boxes_and_another_checksum(coco64):
  whole = lib.read_instances(coco64 / 'annotations' / 'instances_train2017_64.json')
  part = whole.select(slice(10, 30))
  assert len(part) == 20 and part.file_names == whole.file_names[10:30]
  for i in range(20):
    np.testing.assert_array_equal(part.boxes[part.of(i)], whole.boxes[whole.of(10 + i)])
    np.testing.assert_array_equal(part.ids[part.of(i)], whole.ids[whole.of(10 + i)])
  assert whole.select(slice(None)).checksum() == whole.checksum() != part.checksum()
