"""COCO as tfds prepares it."""

import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from senet_jax import config as config_lib, runtime
from senet_jax.detection import feeds, sources
from senet_jax.errors import UserError


def configured(name, folder):
  config = config_lib.default()
  config.model.name, config.batch_size = 'faster_rcnn_r50_fpn', 4
  config.data.name, config.data.dir = name, str(folder)
  config.data.shorter_side, config.data.longer_side = 64, 96
  return config


@pytest.fixture(scope='module')
def prepared(coco64, tmp_path_factory):
  """The 64 photos as `coco/2017` of tfds, by its own builder, as both of its splits."""
  raw, data_dir = tmp_path_factory.mktemp('raw'), tmp_path_factory.mktemp('tfds')
  (raw / 'annotations').mkdir()
  for split in ('train2017', 'val2017'):
    (raw / split).symlink_to(coco64 / 'train2017')
    source = coco64 / 'annotations' / 'instances_train2017_64.json'
    shutil.copy(source, raw / f'annotations/instances_{split}.json')
  info = json.loads((raw / 'annotations/instances_val2017.json').read_text())
  info = {'images': info['images'][:1], 'categories': info['categories']}
  (raw / 'annotations/image_info_test2017.json').write_text(json.dumps(info))
  (raw / 'test2017').symlink_to(coco64 / 'train2017')
  with pytest.MonkeyPatch.context() as patch:
    manager = tfds.download.DownloadManager
    everywhere = lambda self, urls: dict.fromkeys(urls, str(raw))  # noqa: E731
    patch.setattr(manager, 'download_and_extract', everywhere)
    tfds.builder('coco/2017', data_dir=data_dir).download_and_prepare()
  return data_dir


def test_records_are_the_files(coco64, prepared):
  ours = sources.open_source(configured('coco/2017', prepared), 'train')
  files = sources.open_source(configured('coco', coco64), 'train')
  found, expected = ours.annotations, files.annotations
  for name in ('image_ids', 'sizes', 'first', 'classes', 'crowd', 'ids'):
    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
  for name in ('file_names', 'class_names', 'category_ids'):
    assert getattr(found, name) == getattr(expected, name)
  np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
  np.testing.assert_array_equal(found.areas, np.floor(expected.areas))  # tfds has integers
  places = np.array([5, 40])
  assert ours.read(places)[0] == files.read(places)[0]
  assert ours.name(3).startswith('record ') and '.tfrecord-' in ours.name(3)
  # What was found is kept, and a part is another one.
  kept = list(prepared.glob('coco/2017/*/*.boxes.npz'))
  assert len(kept) == 1
  again = sources.open_source(configured('coco/2017', prepared), 'train')
  assert again.checksum == ours.checksum
  assert sources.open_source(configured('coco/2017', prepared), 'train[:8]').num_examples == 8
  # A damaged one is made anew.
  kept[0].write_bytes(kept[0].read_bytes()[:-50])
  assert sources.open_source(configured('coco/2017', prepared), 'train').checksum == ours.checksum


def test_batches_are_those_of_the_files(coco64, prepared):
  mesh = runtime.data_mesh(1)
  ours, files = (
    feeds.DetectionFeed.create(configured(name, folder), mesh).inputs(0, 1)[0]
    for name, folder in (('coco/2017', prepared), ('coco', coco64))
  )
  for name in files:
    np.testing.assert_allclose(ours[name], files[name], atol=1e-3, err_msg=name)


def test_a_data_set_without_boxes_of_this_kind(prepared, tmp_path):
  with pytest.raises(UserError, match='coco/2014 is not prepared'):
    sources.open_source(configured('coco/2014', tmp_path), 'train')
  with pytest.raises(UserError, match='has no photos'):
    sources.open_source(configured('coco/2017', prepared), 'test[:0]')
  with pytest.raises(UserError, match="coco/2017: the split 'val' is unknown"):
    sources.open_source(configured('coco/2017', prepared), 'val')
