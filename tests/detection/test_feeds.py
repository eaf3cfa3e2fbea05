"""Batches of a detector: photos of COCO with their boxes."""

import io
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax import config as config_lib, runtime
from senet_jax.detection import average_precision, buckets, coordinates, detections, feeds, sources
from senet_jax.detection.annotations import read_instances
from senet_jax.errors import UserError

SHORTER, LONGER = 96, 160


def configured(folder, **fields):
  """COCO at some 96 pixels, in batches of eight."""
  config = config_lib.default()
  config.model.name, config.batch_size = 'faster_rcnn_r50_fpn', 8
  config.data.name, config.data.dir = 'coco', str(folder)
  config.data.shorter_side, config.data.longer_side = SHORTER, LONGER
  for name, value in fields.items():
    section, leaf = config_lib.checks.owner(config, name.replace('__', '.'))
    section[leaf] = value
  config_lib.check(config)
  return config


def training(config, devices=1) -> feeds.DetectionFeed:
  return feeds.DetectionFeed.create(config, runtime.data_mesh(devices))


def evaluation(config, split='train', devices=1) -> feeds.DetectionEvalFeed:
  return feeds.DetectionEvalFeed.create(config, split, runtime.data_mesh(devices))


@pytest.fixture
def folder(tmp_path):
  """Six photos of one colour each, two shapes; photo 5 has no box."""
  sizes = [(30, 40), (30, 40), (40, 30), (30, 40), (40, 30), (30, 40)]
  (tmp_path / 'train2017').mkdir()
  for i, (height, width) in enumerate(sizes):
    Image.new('RGB', (width, height), (40 * i, 100, 200)).save(tmp_path / f'train2017/{i}.png')
  write(tmp_path, {
    'images': [
      {'id': i, 'file_name': f'{i}.png', 'height': h, 'width': w} for i, (h, w) in enumerate(sizes)
    ],
    'annotations': [
      {'id': i, 'image_id': i, 'category_id': 1, 'bbox': [2, 3, 10, 20]} for i in range(5)
    ],
    'categories': [{'id': 1, 'name': 'cup'}],
  })  # fmt: skip
  return tmp_path


def write(folder, instances):
  (folder / 'annotations').mkdir(exist_ok=True)
  (folder / 'annotations/instances_train2017.json').write_text(json.dumps(instances))


def changed(folder, change):
  path = folder / 'annotations/instances_train2017.json'
  instances = json.loads(path.read_text())
  change(instances)
  write(folder, instances)


@pytest.mark.parametrize(('settings', 'convention'), [('torchvision', 0), ('detectron', 1)])
def test_boxes_follow_their_photo(coco64, settings, convention):
  feed = training(configured(coco64, model__settings=settings))
  known, folder = feed.split.annotations, coco64 / 'train2017'
  mean = np.array([122.7717, 115.9465, 102.9801])
  flipped = 0
  for step, whole in zip(range(5), feed.stream.batches(0), strict=False):
    batch = jax.tree.map(np.asarray, feed.batch(feed.inputs(step, 1)[0], 0))
    for place, index in enumerate(whole['index']):
      height, width = known.sizes[index]
      h, w = buckets.resized(known.sizes[[index]], SHORTER, LONGER)[0]
      np.testing.assert_array_equal(batch['sizes'][place], [h, w])
      image = Image.open(folder / known.file_names[index]).convert('RGB')
      plain = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR)) - mean
      found = batch['images'][place]
      inside, scale = found[:h, :w], np.array([w / width, h / height] * 2)
      flip = np.abs(inside - plain).max() > 1
      flipped += flip
      np.testing.assert_allclose(inside, plain[:, ::-1] if flip else plain, atol=1e-4)
      assert not found[h:].any() and not found[:, w:].any()
      x1, y1, x2, y2 = np.clip(known.boxes[known.of(index)], 0, [width, height] * 2).T
      if flip:  # in pixels of both ends, as Detectron has it, or in real numbers
        x1, x2 = width - x2, width - x1
      expected = np.stack([x1, y1, x2 - convention, y2 - convention], 1) * scale
      targets = {name: values[place] for name, values in batch['targets'].items()}
      count = len(expected)
      np.testing.assert_allclose(targets['boxes'][:count], expected, atol=1e-3)
      np.testing.assert_array_equal(targets['classes'][:count], known.classes[known.of(index)])
      np.testing.assert_array_equal(targets['crowd'][:count], known.crowd[known.of(index)])
      assert targets['valid'][:count].all() and not targets['valid'][count:].any()
  assert 8 < flipped < 32


def test_shapes_are_those_of_the_inputs(coco64):
  feed = training(configured(coco64), 8)
  expected = [jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), s) for s in feed.shapes()]
  found = [
    jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), feed.inputs(step, 1)[0])
    for step in range(12)
  ]
  assert all(one in expected for one in found) and len(expected) == 4
  assert len({one['images'][0] for one in found}) > 2
  # One compiled program takes the batches of a shape.
  compiled = jax.jit(feed.batch).lower(feed.shapes()[0], 0).compile()
  step = next(i for i, one in enumerate(found) if one == expected[0])
  assert compiled(feed.inputs(step, 1)[0], 0)['images'].shape == (
    8,
    *feed.stream.order.shapes[0],
    3,
  )
  ours = evaluation(configured(coco64), devices=8)
  shapes = [jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), s) for s in ours.shapes()]
  assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), ours.inputs(0)) in shapes


def test_a_run_goes_on_at_any_step_on_any_devices(folder):
  config = configured(folder, batch_size=2)
  first = training(config)
  whole = [jax.tree.map(np.asarray, first.inputs(step, 1)[0]) for step in range(9)]
  later = training(config, 2)
  for step in (7, 8, 3):
    jax.tree.map(np.testing.assert_array_equal, later.inputs(step, 1)[0], whole[step])


@pytest.mark.parametrize('batch', [1, 5, 64])
def test_perfect_detections_are_perfect_whatever_the_batch(coco64, batch):
  config = configured(coco64, eval__batch_size=batch)
  feed = evaluation(config)
  known, rows, seen = feed.split.annotations, [], []
  resized = buckets.resized(known.sizes, SHORTER, LONGER)
  for step in range(len(feed)):
    found = {name: np.asarray(value) for name, value in feed.batch(feed.inputs(step)).items()}
    n, most = len(found['index']), 60
    network = {
      'boxes': np.zeros((n, most, 4), np.float32), 'scores': np.zeros((n, most), np.float32),
      'classes': np.zeros((n, most), np.int32), 'valid': np.zeros((n, most), bool),
    }  # fmt: skip
    for place, index in enumerate(found['index']):
      own = known.of(index)
      boxes = coordinates.to_network(known.boxes[own], known.sizes[index], resized[index], offset=1)
      network['boxes'][place, : len(boxes)] = boxes
      network['scores'][place, : len(boxes)] = np.linspace(1, 0.5, len(boxes))
      network['classes'][place, : len(boxes)] = known.classes[own]
      network['valid'][place, : len(boxes)] = ~known.crowd[own]
    seen += found['index'][found['mask'] > 0].tolist()
    rows += detections.rows(known, found, network, 1)
  assert sorted(seen) == list(range(64))
  assert average_precision.average_precision(known, rows)['ap'] == pytest.approx(100)
  assert len(rows) == (~known.crowd).sum()


def test_there_is_nothing_behind_a_photo(folder):
  config = configured(folder, batch_size=1, data__mean=(1.0, 2.0, 3.0), data__std=(2.0, 2.0, 4.0))
  feed = evaluation(config)
  batch = feed.batch(feed.inputs(0))
  np.testing.assert_array_equal(batch['sizes'], [[96, 128]])
  (image,), color = np.asarray(batch['images']), [(0 - 1) / 2, (100 - 2) / 2, (200 - 3) / 4]
  assert image.shape == (96, 128, 3) and (image == np.float32(color)).all()
  wide = evaluation(configured(folder, batch_size=1, data__longer_side=140, data__shorter_side=90))
  (image,) = np.asarray(wide.batch(wide.inputs(0))['images'])
  assert image.shape == (96, 128, 3) and image[:90, :120].all() and not image[90:].any()
  assert not image[:, 120:].any()


def test_a_photo_without_boxes_is_trained_on(folder):
  feed = training(configured(folder, batch_size=1))
  boxes = {
    int(batch['index'][0]): int(batch['valid'].sum())
    for _, batch in zip(range(8), feed.stream.batches(0), strict=False)
  }
  assert boxes == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 0}


def test_an_unreadable_photo_is_named_and_replaced_by_one_of_its_shape(folder, caplog):
  (folder / 'train2017/2.png').write_bytes(b'none')
  config = configured(folder, batch_size=2)
  feed = training(config)
  for step in range(6):
    feed.inputs(step, 1)
  assert feed.damaged == {2: str(folder / 'train2017/2.png')}
  assert 'unreadable image 1 of at most 10' in caplog.text
  ours = evaluation(config)
  seen = []
  for step in range(len(ours)):
    batch = ours.inputs(step)
    seen += np.asarray(batch['index'])[np.asarray(batch['mask']) > 0].tolist()
  assert sorted(seen) == [0, 1, 3, 4, 5] and list(ours.damaged) == [2]
  with pytest.raises(UserError, match=r'max_damaged=0 allows.*2\.png'):
    evaluation(configured(folder, data__max_damaged=0)).inputs(1)


@pytest.mark.parametrize('others', [False, True])
def test_the_only_photo_of_a_shape_leaves_an_empty_example_if_it_is_unreadable(folder, others):
  def without_4(instances):
    del instances['images'][4], instances['annotations'][4]

  changed(folder, without_4)
  for i in (2, 0, 1, 3, 5) if others else (2,):
    (folder / f'train2017/{i}.png').write_bytes(b'none')
  feed = training(configured(folder, batch_size=2))
  if others:
    with pytest.raises(UserError, match=r'no image of .* can be decoded'):
      for step in range(5):
        feed.inputs(step, 1)
    return
  seen = set()
  for step in range(10):
    inputs = jax.device_get(feed.inputs(step, 1)[0])
    height, width = inputs['images'].shape[1:3]
    empty = height > width
    seen.add(empty)
    assert inputs['valid'].any() != empty and inputs['images'].any() != empty
    np.testing.assert_array_equal(inputs['sizes'], [[height, width]] * 2)
  assert len(seen) == 2 and list(feed.damaged) == [2]


def test_a_photo_of_another_size_than_its_boxes_is_unreadable(folder, caplog):
  Image.new('RGB', (30, 40)).save(folder / 'train2017/0.png')
  feed = evaluation(configured(folder, batch_size=4))
  for step in range(len(feed)):
    feed.inputs(step)
  assert list(feed.damaged) == [0]
  reason = r'0\.png \(it has 30 x 40 pixels, and its annotations are for 40 x 30\)'
  assert re.search(reason, caplog.text)
  with pytest.raises(UserError, match=rf'the last of them .*{reason}; remove'):
    evaluation(configured(folder, data__max_damaged=0)).inputs(0)


def test_made_up_photos(tmp_path):
  config = configured(tmp_path, data__fake=True, data__train_split='train[:16]')
  feed = training(config)
  assert feed.split.num_examples == 16 and feed.split.num_classes == 80
  inputs = feed.inputs(0, 1)[0]
  assert np.asarray(inputs['valid']).sum() == 8 * 7 and np.asarray(inputs['images']).std() > 20
  assert evaluation(config, 'validation').split.num_examples == 256
  config.model.num_classes = 3
  assert sources.open_source(config, 'train').num_classes == 3


def test_a_part_of_a_split(coco64):
  part = sources.open_source(configured(coco64), 'train[16:48]')
  whole = sources.open_source(configured(coco64), 'train')
  assert part.num_examples == 32 and part.checksum != whole.checksum
  assert part.name(0) == whole.name(16)
  (here,), (there,) = (one.read(np.array([i]))[0] for one, i in ((part, 3), (whole, 19)))
  assert here == there
  assert Image.open(io.BytesIO(here)).format == 'JPEG'


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'data__dir': None}, r'config\.data\.dir must be the folder of COCO; expected are'),
    ({'data__dir': 'gs://photos/coco'}, r'dir=gs://photos/coco: the folder of COCO must be local'),
    ({'data__dir': '/nowhere'}, '/nowhere is no directory'),
    ({'data__name': 'cifar10'}, r'data\.name=.cifar10. is unknown'),
    ({'data__train_split': 'validation'}, r"'validation' is unknown.*\(allowed: train\)"),
    ({'data__train_split': 'train[6:]'}, 'has no photos'),
    ({'data__max_boxes': 1}, r'4\.png has 2 boxes.*max_boxes=1; raise it'),
    ({'model__num_classes': 1}, r'num_classes=1 is less than the 2 classes'),
  ],
)
def test_what_cannot_be_is_said_in_one_line(folder, fields, message):
  def change(instances):
    instances['annotations'].append({**instances['annotations'][4], 'id': 99})
    instances['categories'].append({'id': 2, 'name': 'cat'})

  changed(folder, change)
  with pytest.raises(UserError, match=message) as refusal:
    training(configured(folder, **fields))
  assert '\n' not in str(refusal.value)


def test_faults_are_said_and_too_many_are_refused(folder, caplog):
  def change(instances):
    instances['annotations'][0]['bbox'] = [2, 3, 0, 20]
    instances['annotations'][1]['category_id'] = 77

  changed(folder, change)
  (folder / 'train2017/2.png').unlink()
  feed = training(configured(folder, data__max_faulty=3, batch_size=1))
  assert feed.split.num_examples == 5
  assert '1 x missing photo, 1 x empty box, 1 x unknown category' in caplog.text
  with pytest.raises(UserError, match=r'has 3 faults, more than config\.data\.max_faulty=2'):
    training(configured(folder, data__max_faulty=2, batch_size=1))


def test_which_file_has_the_annotations(folder):
  annotations = folder / 'annotations'
  path = annotations / 'instances_train2017.json'
  shutil.copy(path, annotations / 'instances_train2017_few.json')
  config = configured(folder)
  assert sources.open_source(config, 'train').num_examples == 6  # that of the exact name
  path.rename(annotations / 'instances_train2017_all.json')
  with pytest.raises(UserError, match='could both be of train; keep one'):
    sources.open_source(config, 'train')
  (annotations / 'instances_train2017_all.json').unlink()
  assert sources.open_source(config, 'train').num_examples == 6
  assert len(read_instances(annotations / 'instances_train2017_few.json')) == 6
