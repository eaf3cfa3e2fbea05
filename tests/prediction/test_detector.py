"""Objects on photos: those of the network alone, in any batch, from Python and by the command."""

import csv
import io
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import senet_jax
from senet_jax import cli
from senet_jax.data.photos import UnreadableImage
from senet_jax.errors import UserError
from senet_jax.export import exported
from senet_jax.prediction import showing
from senet_jax.tools import predict, serve
from tests.helpers import random_detector
from tests.helpers.random_detector import CLASSES

# Width and height of the photos, of either shape; one that is not resized is among them.
SIZES = ((96, 64), (640, 480), (50, 100), (300, 450), (1000, 90))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'detector'
  random_detector.write(path)
  return path


@pytest.fixture(scope='module')
def detector(workdir):
  return senet_jax.load(workdir, task='detection')


@pytest.fixture(scope='module')
def photos():
  rng = np.random.default_rng(0)
  small = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in SIZES]
  return [
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    for pixels, size in zip(small, SIZES, strict=True)
  ]


@pytest.fixture(scope='module')
def found(detector, photos):
  return detector.detect(photos, threshold=0.5)


def encoded(photo):
  content = io.BytesIO()
  photo.save(content, 'PNG')
  return content.getvalue()


def test_the_boxes_are_those_of_the_network(detector, photos, found):
  """A photo of 50 x 100, resized to 48 x 96 and padded to 64 x 96: computed here in NumPy."""
  mean, std = np.array([122.7717, 115.9465, 102.9801]), 1.0
  run = jax.jit(lambda v, x, sizes: detector.model.apply(v, x, False, jnp.array(sizes)))
  resized = photos[2].resize((48, 96), Image.Resampling.BILINEAR)
  images = np.zeros((1, 96, 64, 3), np.float32)
  images[0, :, :48] = (np.asarray(resized) - mean) / std
  expected = jax.tree.map(lambda x: np.asarray(x[0]), run(detector.variables, images, [[96, 48]]))
  keep = expected['valid'] & (expected['scores'] >= 0.5)
  assert len(found[2]) == keep.sum() > 5
  boxes = expected['boxes'][keep] * np.tile([50 / 48, 100 / 96], 2)
  np.testing.assert_allclose(found[2].boxes, boxes, atol=0.05)
  np.testing.assert_allclose(found[2].scores, expected['scores'][keep], atol=1e-4)
  np.testing.assert_array_equal(found[2].labels, expected['classes'][keep])


def test_what_is_found(photos, found):
  assert len(found) == len(photos)
  for of, (width, height) in zip(found, SIZES, strict=True):
    assert of.size == (height, width)
    assert of.names == tuple(CLASSES[label] for label in of.labels)
    assert (np.diff(of.scores) <= 0).all() and of.scores.min(initial=1) >= 0.5
    assert of.boxes.shape == (len(of), 4)
    assert (of.boxes >= 0).all()
    assert (of.boxes[:, [0, 2]] <= width).all() and (of.boxes[:, [1, 3]] <= height).all()


def test_any_order_finds_the_same(detector, photos, found):
  """Photos of both shapes, more than one batch of each, some of them unreadable."""
  order = [0, 2, 'x', 1, 4, 3, 'x', 'x', 0, 2, 'x', *[1, 2] * 12]
  images = (b'no image' if i == 'x' else encoded(photos[i]) for i in order)
  stream = detector.stream(images, threshold=0.5)
  for i, of in zip(order, stream, strict=True):
    if i == 'x':
      assert isinstance(of, UnreadableImage)
      continue
    np.testing.assert_allclose(of.boxes, found[i].boxes, atol=0.05)
    assert of.names == found[i].names


def test_thresholds(detector, photos, found):
  (of,) = detector.detect(photos[0], threshold=0.7)
  assert len(of) == (found[0].scores >= 0.7).sum()
  (nothing,) = detector.detect(np.asarray(photos[0])[None], threshold=1.0)
  assert len(nothing) == 0 and nothing.boxes.shape == (0, 4)
  for threshold in (-0.1, 1.5, float('nan')):
    with pytest.raises(UserError, match=r'threshold=\S+ must be from 0 to 1'):
      detector.detect(photos, threshold)


def test_unreadable_photos_are_named(detector, tmp_path):
  (tmp_path / 'a.jpg').write_text('text')
  with pytest.raises(UserError, match=r'a\.jpg is unreadable: no JPEG'):
    detector.detect([tmp_path / 'a.jpg'])
  with pytest.raises(UserError, match='image 0 is unreadable'):
    detector.detect([b''])


def test_a_network_without_numbers(detector, photos, monkeypatch):
  broken = jax.tree.map(lambda x: x * np.nan, detector.variables['params'])
  monkeypatch.setitem(detector.variables, 'params', broken)
  with pytest.raises(UserError, match='outputs NaN or infinity at step 0'):
    detector.detect(photos[:1])


def test_networks_of_another_task(workdir):
  with pytest.raises(UserError, match='a network for detection, and this is for classification'):
    senet_jax.load(workdir, task='classification')
  with pytest.raises(UserError, match='a network for classification, and this is for detection'):
    senet_jax.load('se_resnet20_cifar10', task='detection')
  with pytest.raises(UserError, match='a network for detection'):
    exported.export(workdir, workdir / 'net.onnx')
  with pytest.raises(UserError, match='a network for detection'):
    serve.main([f'--workdir={workdir}'])


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def folder(photos, tmp_path):
  for i, photo in enumerate((photos[0], photos[1], photos[4])):
    (tmp_path / 'in' / str(i)).mkdir(parents=True)
    photo.save(tmp_path / 'in' / str(i) / 'photo.png')
  (tmp_path / 'in' / 'broken.jpg').write_text('text')
  return tmp_path / 'in'


def test_command(workdir, folder, found, tmp_path, capsys):
  output = tmp_path / 'out'
  arguments = ['--task=detection', f'--workdir={workdir}', '--threshold=0.5', str(folder)]
  assert predict.main([*arguments, f'--output={output}']) == cli.USER_ERROR
  out, err = capsys.readouterr()
  assert re.fullmatch(r'senet_jax: \S+/broken\.jpg is unreadable: no JPEG[^\n]+\n', err)
  found = [found[i] for i in (0, 1, 4)]
  assert out.count(' at ') == sum(map(len, found))
  pictures = {'photo.jpg', 'photo_2.jpg', 'photo_3.jpg'}
  assert {path.name for path in output.iterdir()} == {*pictures, 'detections.json'}
  rows = json.loads((output / 'detections.json').read_text())
  assert [row['path'] for row in rows if 'error' in row] == [f'{folder}/broken.jpg']
  good = [row for row in rows if 'error' not in row]
  assert {row['picture'] for row in good} == pictures
  for row, of in zip(good, found, strict=True):
    assert (row['height'], row['width']) == of.size
    assert [d['name'] for d in row['detections']] == list(of.names)
    boxes = [d['box'] for d in row['detections']]
    np.testing.assert_allclose(boxes, of.boxes, atol=0.05)
    picture = Image.open(output / row['picture'])
    assert min(picture.size) == 480 or max(picture.size) == 2000


def test_a_photo_that_is_gone_when_it_is_drawn(detector, folder, tmp_path, capsys):
  paths = [str(folder / str(i) / 'photo.png') for i in range(3)]

  class Gone:
    """The detector, and somebody who removes a photo that it has read."""

    def stream(self, photos, threshold):
      for i, found in enumerate(detector.stream(photos, threshold)):
        if i == 1:
          (folder / '1' / 'photo.png').unlink()
        yield found

  rows = showing.objects(Gone(), paths, 0.5, showing.Pictures(tmp_path / 'out', paths))
  assert rows[1] == {'path': paths[1], 'error': 'No such file or directory'}
  assert [row.get('picture') for row in rows] == ['photo.jpg', None, 'photo_2.jpg']
  assert f'{paths[1]} is unreadable: No such file' in capsys.readouterr().err


def test_objects_as_csv(found, tmp_path):
  output = tmp_path / 'all.csv'
  rows = [{'path': 'a', 'error': 'why'}, {'path': 'b', **showing.object_row(found[0])}]
  showing.write_objects(rows, output)
  with output.open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0]) == ['path', 'rank', 'label', 'name', 'score', 'x1', 'y1', 'x2', 'y2']
  assert [(row['path'], row['name']) for row in rows] == [('b', name) for name in found[0].names]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--top_k=3', '{photo}'], '--top_k=3 has no effect on a network that detects objects'),
    (['--embeddings=x.npz', '{photo}'], r'--embeddings=x\.npz has no effect'),
    (['--threshold=2', '{photo}'], r'threshold=2\.0 must be from 0 to 1'),
    (['--threshold=nan', '{photo}'], 'threshold=nan must be from 0 to 1'),
    (['--task=classification', '{photo}'], 'a network for detection, and this is for'),
    (['--task=both', '{photo}'], "argument --task: invalid choice: 'both'"),
    (['--output={folder}/0', '{photo}'], r'holds photos that are read'),
    (['--output=x.png', '{photo}'], r'--output=x\.png must end in \.json or \.csv; a folder is'),
    (['--batch_size=0', '{photo}'], "--batch_size: '0' must be an integer of at least 1"),
  ],
)
def test_mistakes(arguments, message, workdir, detector, folder, monkeypatch, capsys):
  if not any(a.startswith(('--task', '--batch_size')) for a in arguments):  # else it is for `load`
    monkeypatch.setattr('senet_jax.prediction.load', lambda *_, **__: detector)
  given = [a.format(photo=folder / '0' / 'photo.png', folder=folder) for a in arguments]
  monkeypatch.setattr(sys, 'argv', ['predict', f'--workdir={workdir}', *given])
  with pytest.raises(SystemExit) as exit_info:
    cli.run(predict.main)
  assert exit_info.value.code == cli.USER_ERROR
  assert re.fullmatch(rf'senet_jax: [^\n]*{message}[^\n]*\n', capsys.readouterr().err)
  assert Image.open(folder / '0' / 'photo.png').size == SIZES[0]


def test_a_threshold_is_not_for_classes(folder):
  with pytest.raises(UserError, match=r'--threshold=0\.5 has no effect on a network that names'):
    predict.main(['se_resnet20_cifar10', str(folder / '0' / 'photo.png'), '--threshold=0.5'])
