"""Which objects are taken for which, on a hand-made case, and the figures of evaluations."""

import numpy as np
from PIL import Image

from senet_jax.detection import confusion, figures
from senet_jax.detection.annotations import from_records

# Ids with a gap: classes 0, 1 and 2.
CATEGORIES = [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'dog'}, {'id': 8, 'name': 'tree'}]
IMAGES = [{'id': i, 'file_name': f'{i}.jpg', 'height': 400, 'width': 400} for i in (11, 12)]
OBJECTS = [
  {'id': 1, 'image_id': 11, 'category_id': 3, 'bbox': [0, 0, 100, 100]},
  {'id': 2, 'image_id': 11, 'category_id': 7, 'bbox': [200, 0, 100, 100]},
  {'id': 3, 'image_id': 12, 'category_id': 8, 'bbox': [0, 200, 50, 50]},
  {'id': 4, 'image_id': 12, 'category_id': 7, 'bbox': [200, 200, 200, 200], 'iscrowd': 1},
]


def annotations():
  return from_records(IMAGES, OBJECTS, CATEGORIES, where='here')


def found(image, category, bbox, score=0.9):
  return {'image_id': image, 'category_id': category, 'bbox': bbox, 'score': score}


def test_hand_made_case():
  rows = [
    found(11, 7, [0, 0, 100, 90], 0.8),  # a cat taken for a dog
    found(11, 3, [0, 0, 100, 100], 0.7),  # right, but the cat is taken
    found(11, 7, [205, 0, 100, 100]),  # the dog
    found(11, 8, [300, 300, 50, 50], 0.4),  # below the threshold
    found(12, 3, [100, 0, 50, 50]),  # nothing there
    found(12, 7, [250, 250, 50, 50]),  # one of the crowd
    found(12, 8, [0, 230, 50, 50]),  # the tree, but too far off
  ]
  counts = confusion.confusion(annotations(), rows)
  expected = [
    # cat, dog, tree, nothing
    [0, 1, 0, 0],
    [0, 1, 0, 0],
    [0, 0, 0, 1],
    [2, 0, 1, 0],
  ]
  np.testing.assert_array_equal(counts, expected)


def test_without_detections_all_objects_are_missed():
  counts = confusion.confusion(annotations(), [])
  np.testing.assert_array_equal(counts[:, -1], [1, 1, 1, 0])
  assert counts.sum() == 3


def test_most_frequent():
  counts = np.diag([5, 0, 9, 1, 0])
  some, names = confusion.most_frequent(counts, 'abcd', 2)
  np.testing.assert_array_equal(some, np.diag([5, 9, 0]))
  assert names == ['a', 'c', 'nothing']
  assert confusion.most_frequent(counts, 'abcd', 9)[1] == ['a', 'c', 'd', 'nothing']


def test_figures(tmp_path):
  precision = np.linspace(1, 0, 101)[None, :, None] * np.linspace(1, 0.1, 10)[:, None, None]
  precision = np.concatenate([precision, np.full((10, 101, 1), -1.0)], -1)
  figures.plot_precision_recall(precision, tmp_path / 'precision.png', 'title')
  counts = confusion.confusion(annotations(), [])
  figures.plot_confusion(counts, ('cat', 'dog', 'tree'), tmp_path / 'confusion.png')
  for path in tmp_path.iterdir():
    assert np.asarray(Image.open(path)).std() > 5
