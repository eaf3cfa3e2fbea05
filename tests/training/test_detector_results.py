"""Evaluations of a detector that say what went wrong, and lose nothing."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax.detection import average_precision
from senet_jax.errors import UserError
from senet_jax.tools import evaluate
from senet_jax.training import detector_results
from senet_jax.workdir import network, saved
from tests.helpers.small_detection_run import small_detector

NAMES = ('cat', 'dog', 'bird')
SPLIT = 'validation[:8]'


def written(workdir, names=NAMES, count=3, scale=0.1, **fields):
  """A workdir of a network with random weights."""
  config = small_detector(**fields)
  shapes = network.variable_shapes(config, network.build_model(config, count))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: scale * rng.standard_normal(x.shape, np.float32), shapes)
  variables['batch_stats'] = jax.tree.map(np.ones_like, variables['batch_stats'])
  saved.write(workdir, config, variables, count, names, {'converted_from': 'a test'})
  return workdir


@pytest.fixture
def coco(tmp_path):
  """Eight photos with an object each."""
  folder = tmp_path / 'coco'
  (folder / 'val2017').mkdir(parents=True)
  rng = np.random.default_rng(0)
  for i in range(8):
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f'val2017/{i}.png')
  write(folder, [
    {'id': i, 'image_id': i, 'category_id': 1 + i % 3, 'bbox': [2, 3, 30, 40]} for i in range(8)
  ])  # fmt: skip
  return folder


def write(folder, annotations, names=NAMES):
  (folder / 'annotations').mkdir(exist_ok=True)
  images = [{'id': i, 'file_name': f'{i}.png', 'height': 64, 'width': 64} for i in range(8)]
  categories = [{'id': i, 'name': name} for i, name in enumerate(names, start=1)]
  content = {'images': images, 'annotations': annotations, 'categories': categories}
  (folder / 'annotations/instances_val2017.json').write_text(json.dumps(content))


def of_files(folder):
  return {'data.fake': False, 'data.dir': str(folder), 'data.eval_split': 'validation'}


def test_detections_are_there_when_judging_fails(coco, tmp_path, monkeypatch):
  workdir = written(tmp_path / 'run', **of_files(coco))
  whole = detector_results.judge(workdir, write_to=tmp_path / 'whole.json')
  monkeypatch.setattr(average_precision, 'judge', lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    detector_results.judge(workdir, write_to=tmp_path / 'found.json')
  assert json.loads((tmp_path / 'found.json').read_text()) == whole.detections


def test_a_network_without_numbers_is_refused(coco, tmp_path):
  workdir = written(tmp_path / 'run', scale=np.nan, **of_files(coco))
  with pytest.raises(UserError, match=r'run outputs NaN or infinity at step 0; use another'):
    detector_results.judge(workdir)


def test_unreadable_photos_are_counted_and_their_objects_missed(coco, tmp_path):
  workdir = written(tmp_path / 'run', **of_files(coco))
  whole = detector_results.judge(workdir)
  assert whole.row['unreadable'] == 0 and not any('read' in line for line in whole.lines())
  for i in (2, 5):
    (coco / f'val2017/{i}.png').write_text('text')
  found = detector_results.judge(workdir)
  assert found.row['unreadable'] == 2 and found.row['examples'] == 8
  assert '  2 photos could not be read; their objects count as missed' in found.lines()
  rest = [row for row in whole.detections if row['image_id'] not in (2, 5)]
  assert len(found.detections) == len(rest)
  assert found.row['ap'] == pytest.approx(
    average_precision.judge(whole.annotations, rest).results['ap'], abs=0.1
  )


@pytest.mark.parametrize(
  ('names', 'count', 'message'),
  [
    (('cat', 'dog', 'fish'), 3, "class 2 is 'fish' in it and 'bird' there"),
    (('cat', 'dog'), 2, r"class 2 is '\(none\)' in it and 'bird' there"),
    (None, 4, 'it has no names to tell which'),
  ],
)
def test_other_classes_are_told(coco, tmp_path, names, count, message):
  fields = {**of_files(coco), 'model.num_classes': None}
  workdir = written(tmp_path / 'run', names, count, **fields)
  with pytest.raises(UserError, match=rf'the {count} classes of .* are not the 3 of .*{message}'):
    detector_results.judge(workdir)


def test_more_classes_behind_those_of_the_data_and_no_names_at_all(coco, tmp_path):
  fields = {**of_files(coco), 'model.num_classes': None}
  for i, (names, count) in enumerate([((*NAMES, 'fish'), 4), (None, 3)]):
    workdir = written(tmp_path / f'run{i}', names, count, **fields)
    assert detector_results.judge(workdir).row['examples'] == 8


def test_a_file_of_detections_is_judged_without_a_network(coco, tmp_path, capsys):
  """Seven of eight objects, and nothing else: all of two classes, two of three of the third."""
  path, output = tmp_path / 'found.json', tmp_path / 'ap.json'
  rows = [
    {'image_id': i, 'category_id': 1 + i % 3, 'bbox': [2, 3, 30, 40], 'score': 0.5}
    for i in range(7)
  ]
  path.write_text(json.dumps(rows))
  evaluate.main([f'--from_detections={path}', f'--data_dir={coco}', f'--output={output}'])
  row = json.loads(output.read_text())
  third = 100 * 67 / 101  # recall 2 / 3
  assert row['per_class'] == pytest.approx({'cat': 100, 'dog': third, 'bird': 100})
  assert row['ap'] == pytest.approx((200 + third) / 3) and row['examples'] == 8
  assert f'{path}, on coco validation: 8 photos, 7 detections' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], '--from_detections needs --data_dir, or one --workdir'),
    (['--data_dir={coco}', '--checkpoint=1'], '--checkpoint has no effect: --from_detections'),
    (['--data_dir={coco}'], 'cannot be read: No such file'),
    (['--data_dir={coco}', '--split=train'], "'train'"),
  ],
)
def test_mistakes_with_a_file_are_one_line(coco, flags, message):
  with pytest.raises(UserError, match=message) as error:
    evaluate.main(['--from_detections=none.json', *(flag.format(coco=coco) for flag in flags)])
  assert '\n' not in str(error.value)


def test_a_split_without_objects_yields_detections_and_no_judgement(coco, tmp_path):
  workdir = written(tmp_path / 'run', **of_files(coco))
  write(coco, [])
  found = detector_results.judge(workdir, write_to=tmp_path / 'found.json')
  assert json.loads((tmp_path / 'found.json').read_text()) == found.detections
  assert found.lines()[1:] == ['  no object is annotated: there is nothing to judge by']
  with pytest.raises(UserError, match='no object is annotated in validation'):
    found.draw(tmp_path)
  with pytest.raises(UserError, match='there is no object'):
    detector_results.judge(workdir)


def test_photos_that_cocos_server_judges(coco, tmp_path):
  annotations = coco / 'annotations'
  listed = json.loads((annotations / 'instances_val2017.json').read_text())
  (coco / 'val2017').rename(coco / 'test2017')
  for name, first in (('test2017', 0), ('test-dev2017', 2)):
    content = {'images': listed['images'][first:], 'categories': listed['categories']}
    (annotations / f'image_info_{name}.json').write_text(json.dumps(content))
  workdir = written(tmp_path / 'run', **of_files(coco))
  every, some = (
    detector_results.judge(workdir, split=split, write_to=tmp_path / 'found.json')
    for split in ('test', 'test_dev')
  )
  assert (every.row['examples'], some.row['examples']) == (8, 6)
  kept = [row for row in every.detections if row['image_id'] >= 2]
  assert [row['image_id'] for row in some.detections] == [row['image_id'] for row in kept]
  assert [row['score'] for row in some.detections] == pytest.approx([row['score'] for row in kept])
