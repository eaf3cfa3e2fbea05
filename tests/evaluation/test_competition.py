"""Evaluation as in the competition: crops, scales, ensembles, lists of images, figures by class.

The references are plain NumPy and Pillow: each crop by itself through each network by itself.
"""

import csv
import functools
import io
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import senet_jax
from senet_jax import config as config_lib, runtime
from senet_jax.data import datasets, feeds, prepare, sources
from senet_jax.data.crops import Crops
from senet_jax.data.preprocessing import Transform
from senet_jax.errors import UserError
from senet_jax.evaluation import competition, exclusion, outcomes
from senet_jax.evaluation.ensemble import Ensemble
from senet_jax.evaluation.evaluate import eval_program, evaluate, evaluate_each
from senet_jax.evaluation.outcomes import Outcomes
from senet_jax.storage import files
from senet_jax.tools import evaluate as tool
from senet_jax.training import setup
from senet_jax.training.loop import train
from senet_jax.training.optimizer import make_optimizer
from senet_jax.workdir import network, saved
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.run_progress import RunProgress
from tests.helpers.commands import complaint
from tests.helpers.small_run import configured

# A few steps tell some of the classes apart.
TINY = {
  'model.name': 'se_resnet20_cifar',
  'model.width': 4,
  'model.depths': (1, 1, 1),
  'model.se.ratio': 4,
  'data.pad': 0,
  'batch_size': 32,
  'steps': 20,
  'schedule.name': 'constant',
  'optimizer.learning_rate': 0.05,
  'eval.every_epochs': 100.0,
  'checkpoint.every_steps': 10,
  'log.tensorboard': False,
}
DIGITS = {**TINY, 'data.name': 'digits', 'data.flip': False}
PHOTOS = {
  **TINY,
  'data.name': 'image_folder',
  'data.feed': 'stream',
  'data.eval_split': 'val',
  'data.image_size': 32,
  'data.resize': 40,
  'data.crop_area': (0.5, 1.0),
}


def changed_run(workdir, to, classes=None, **data):
  """A copy of a run whose files say something else about its data."""
  shutil.copytree(workdir, to)
  config = json.loads((to / 'config.json').read_text())
  config['data'].update(data)
  (to / 'config.json').write_text(json.dumps(config))
  if classes:
    (to / 'classes.json').write_text(json.dumps(classes))
  return to


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
  """The workdirs of two runs on digits, one of them stopped earlier."""
  root = tmp_path_factory.mktemp('digits')
  assert train(configured(DIGITS), root / 'whole')
  shutil.rmtree(changed_run(root / 'whole', root / 'half') / 'checkpoints' / '20')
  return [root / 'whole', root / 'half']


@pytest.fixture(scope='module')
def folder(imagenet_sample, tmp_path_factory):
  """Real photos of many shapes, in three classes that mean nothing: 3 and 24."""
  root = tmp_path_factory.mktemp('folder')
  for i, path in enumerate(sorted(imagenet_sample.glob('*.JPEG'))[:27]):
    place = root / ('val' if i < 24 else 'train') / 'abc'[i % 3]
    place.mkdir(parents=True, exist_ok=True)
    image = Image.open(path)
    image.draft('RGB', (150, 150))  # reduced, so that decoding takes no time
    # Names come twice, in different classes.
    image.convert('RGB').save(place / f'{i // 3:02}{"ab"[i % 3 == 2]}.png')
  return root


@pytest.fixture(scope='module')
def photos(folder, tmp_path_factory):
  """The workdirs of two networks for those photos, not trained, which subtract different means."""
  root = tmp_path_factory.mktemp('photos')
  for seed, mean in ((0, (120.0, 110.0, 100.0)), (1, (60.0, 128.0, 90.0))):
    config = configured(PHOTOS, seed=seed, data__dir=str(folder), data__mean=mean)
    optimizer, mesh = make_optimizer(config, lambda step: 0.0), runtime.data_mesh(1)
    model = network.build_model(config, 3)
    state = setup.init_state(config, model, optimizer, None, mesh)
    workdir = root / f'seed{seed}'
    files.write_json(workdir / 'config.json', config.to_dict())
    saved.write_classes(workdir, 3, tuple('abc'))
    with Checkpoints(workdir) as checkpoints:
      checkpoints.save(state, RunProgress({}), None)
  return [root / 'seed0', root / 'seed1']


def run_tool(tmp_path, workdirs, *arguments):
  """What the command writes as JSON."""
  output = tmp_path / 'figures.json'
  tool.main([*(f'--workdir={w}' for w in workdirs), f'--output={output}', *arguments])
  return json.loads(output.read_text())


def pillow_crops(image: Image.Image, size: int, scales, ten: bool) -> np.ndarray:
  """The crops of a photo, from the whole resized image, in the order of `Crops.inputs`."""
  crops = []
  for scale in scales:
    shorter = min(image.size)
    width, height = (round(side * scale / shorter) for side in image.size)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    y, x = height - size, width - size
    places = [(0, 0), (0, x), (y, 0), (y, x)] if ten else []
    for top, left in [*places, (y // 2, x // 2)]:
      crops.append(resized[top : top + size, left : left + size])
  return np.stack([*crops, *(np.fliplr(crop) for crop in crops)] if ten else crops)


def softmax(logits: np.ndarray) -> np.ndarray:
  e = np.exp(np.float64(logits) - np.max(logits, -1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def crop_by_crop(runs, images: list[np.ndarray]) -> np.ndarray:
  """Probabilities for each image, network and crop, `[N, M, V, K]`; images are `[V, S, S, 3]`."""
  rows = []
  for run in runs:
    apply = jax.jit(functools.partial(run.model.apply, run.variables, train=False))
    mean, std = transform_of(run)
    logits = [
      [np.asarray(apply((np.float32(crop) - mean)[None] / std))[0] for crop in crops]
      for crops in images
    ]
    rows.append(softmax(np.array(logits)))
  return np.stack(rows, axis=1)


def transform_of(run) -> tuple[np.ndarray, np.ndarray]:
  data, info = run.config.data, datasets.streamed_info(run.config.data.name)
  return np.float32(data.mean or info.mean), np.float32(data.std or info.std)


def figures(probabilities: np.ndarray, labels: np.ndarray, top_k=(1, 3, 5)) -> dict[str, float]:
  order = np.argsort(-probabilities, axis=-1, kind='stable')
  loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
  errors = {f'top{k}_error': 100 * (order[:, :k] != labels[:, None]).all(-1).mean() for k in top_k}
  return {'loss': loss, **errors}


def folder_split(folder, split='val'):
  """Its photos and labels, in the order of the feed."""
  paths = sorted((folder / split).glob('*/*.png'))
  return paths, np.array(['abc'.index(p.parent.name) for p in paths])


def load(workdirs, devices=1):
  mesh = runtime.data_mesh(devices)
  return [saved.load(w, 'latest', mesh) for w in workdirs], mesh


def one_by_one(workdir, devices=8):
  """The evaluation of a run as training makes it."""
  (run,), mesh = load([workdir], devices)
  config = run.config
  feed = feeds.evaluation_feed(config, config.data.eval_split, mesh)
  return evaluate(eval_program(run.model, feed, mesh), run.variables, feed)


# --- crops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(('size', 'scales', 'ten'), [(64, (64, 80), True), (96, (110,), False)])
def test_crops_of_photos_against_pillow(imagenet_sample, size, scales, ten):
  crops = Crops(size, scales, ten)
  plain = Transform((size, size, 3), size, size, mean=(0.0,) * 3, std=(1.0,) * 3)
  for path in sorted(imagenet_sample.glob('*.JPEG'))[::20]:
    stored = crops.of_photo(path.read_bytes())
    assert stored.shape == crops.photo_shape and stored.dtype == np.uint8
    found = np.asarray(crops.inputs(stored[None], plain))[0]
    expected = pillow_crops(Image.open(path).convert('RGB'), size, scales, ten)
    assert len(found) == len(expected) == len(crops)
    assert np.abs(found - expected).max() <= 1, path


def test_crops_of_arrays_against_pillow():
  images, _ = datasets.load('digits', 'test[:5]')
  plain = Transform((8, 8, 1), 8, 8, mean=(10.0,), std=(4.0,))
  crops = Crops(8, (8, 10, 13), ten=True)
  found = np.asarray(crops.inputs(images, plain))
  assert found.shape == (5, 30, 8, 8, 3)
  for image, several in zip(images, found, strict=True):
    grey = Image.fromarray((np.float32(image[..., 0]) - 10) / 4)
    expected = pillow_crops(grey, 8, crops.scales, ten=True)
    np.testing.assert_allclose(several, np.repeat(expected[..., None], 3, -1), atol=1e-4)


def test_which_crops():
  config = config_lib.default()
  config.update_from_flattened_dict(
    {'model.name': 'se_resnet50', 'data.name': 'imagenet2012', 'data.feed': 'stream'}
  )

  def chosen(*args, **fields):
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in fields.items()})
    return competition.choose_crops([config], *args).crops

  assert chosen() == Crops(224, (256,))
  assert chosen(320) == Crops(320, (366,))  # 256 / 224 of it, as for the smaller crop
  assert chosen(320, (320,)) == Crops(320, (320,))
  assert chosen(None, (224, 256, 320), True) == Crops(224, (224, 256, 320), True)
  assert len(chosen(None, (224, 256, 320), True)) == 30
  # What a run sets for its own size does not hold for another.
  assert chosen(data__resize=240) == Crops(224, (240,))
  assert chosen(320, data__resize=240) == Crops(320, (366,))
  config.model.name = 'se_inception_resnet_v2'
  assert chosen(data__resize=None) == Crops(299, (352,))


# --- fusion --------------------------------------------------------------------------------------


@pytest.mark.parametrize(('members', 'scales', 'ten'), [(1, (36, 40), False), (2, (32, 40), True)])
def test_photos_against_numpy(photos, folder, members, scales, ten):
  runs, mesh = load(photos[:members], devices=8)
  transform = competition.choose_crops([run.config for run in runs], None, scales, ten)
  feed, _ = competition.open_feed(runs[0].config, 'val', mesh, transform)
  ensemble = Ensemble(tuple(run.model for run in runs))
  variables = tuple(run.variables for run in runs)
  results, found = evaluate_each(ensemble, variables, feed, mesh)
  paths, labels = folder_split(folder)
  np.testing.assert_array_equal(found.labels, labels)
  alone, _ = load(photos[:members])
  crops = [pillow_crops(Image.open(p), 32, scales, ten) for p in paths]
  every = crop_by_crop(alone, crops)
  assert every.shape == (24, members, len(transform.crops), 3)
  average = every.mean((1, 2))
  expected = figures(average, labels)
  # Pixels differ by one level at most.
  assert results == pytest.approx(expected, rel=1e-4)
  if members > 1:  # another kind of average is another number
    others = figures(softmax(np.log(every).mean((1, 2))), labels)
    assert others['loss'] != pytest.approx(expected['loss'], rel=1e-3)
  np.testing.assert_array_equal(found.predictions, average.argmax(-1))
  ranks = (average > average[np.arange(24), labels][:, None]).sum(-1)
  np.testing.assert_array_equal(found.ranks, ranks)


def test_arrays_against_numpy(digits, tmp_path):
  """Two networks, two scales, ten crops each, of images on the devices, by the command."""
  row = run_tool(
    tmp_path, digits, '--crops=10', '--scales=9,11', '--split=test[:7]', '--top_k=1,2,7'
  )
  images, labels = datasets.load('digits', 'test[:7]')
  runs, _ = load(digits)
  greys = map(Image.fromarray, np.float32(images[..., 0]))
  crops = [np.repeat(pillow_crops(x, 8, (9, 11), ten=True)[..., None], 3, -1) for x in greys]
  average = crop_by_crop(runs, crops).mean((1, 2))
  expected = figures(average, labels, (1, 2, 7))
  assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4)
  assert [m['workdir'] for m in row['members']] == [str(w) for w in digits]
  assert (row['size'], row['scales'], row['crops'], row['examples']) == (8, [9, 11], 10, 7)


@pytest.mark.parametrize('data', ['digits', 'photos'])
def test_one_network_and_one_crop_is_the_plain_evaluation(data, request, tmp_path):
  workdirs = request.getfixturevalue(data)
  for workdir in workdirs:
    row = run_tool(tmp_path, [workdir], '--checkpoint=latest')
    plain = one_by_one(workdir)
    # To the last bit; what can only be 0, with so few classes, is left out.
    assert {name: row.get(name, 0.0) for name in plain} == plain
    if (workdir / 'summary.json').exists() and row['step'] == 20:  # as it was in training
      final = json.loads((workdir / 'summary.json').read_text())['final']
      assert plain == {name: final[name] for name in plain}
  size = {'digits': 8, 'photos': 32}[data]
  same = run_tool(tmp_path, workdirs[1:], f'--size={size}', f'--resize={row["scales"][0]}')
  assert same == row


def test_ensemble_of_the_same(digits, tmp_path):
  """A network twice changes nothing but roundings."""
  alone = run_tool(tmp_path, digits[:1])
  twice = run_tool(tmp_path, [digits[0], digits[0]], '--checkpoint=latest', '--checkpoint=20')
  assert twice['loss'] == pytest.approx(alone['loss'], rel=1e-5)
  assert twice['top1_error'] == alone['top1_error']
  assert [m['step'] for m in twice['members']] == [20, 20]


def test_any_number_of_devices_and_any_batch(digits):
  seen = []
  for devices, batch in ((8, 320), (1, 900)):
    runs, mesh = load(digits, devices)
    config = runs[0].config
    config.eval.batch_size = batch
    transform = competition.choose_crops([run.config for run in runs], None, (8, 10), ten=True)
    feed, _ = competition.open_feed(config, 'test[:50]', mesh, transform)
    assert feed.batch_size == batch // 20  # crops
    ensemble = Ensemble(tuple(run.model for run in runs))
    variables = tuple(run.variables for run in runs)
    seen.append(evaluate_each(ensemble, variables, feed, mesh))
  assert seen[0][0] == pytest.approx(seen[1][0], rel=1e-5)
  for name in ('labels', 'predictions', 'ranks'):
    np.testing.assert_array_equal(getattr(seen[0][1], name), getattr(seen[1][1], name))


def test_small_probabilities_are_not_lost():
  """The average of probabilities that float32 cannot hold still has an order."""

  class Fixed:
    def apply(self, logits, images, train):
      return jax.numpy.broadcast_to(logits, (len(images), 3))

  logits = (np.float32([0.0, -200.0, -300.0]), np.float32([0.0, -310.0, -220.0]))
  images = (np.zeros((1, 2, 4, 4, 3), np.float32),) * 2
  found = np.asarray(Ensemble((Fixed(), Fixed())).apply(logits, images))
  np.testing.assert_allclose(found, [[0, -200 - np.log(2), -220 - np.log(2)]], rtol=1e-6)


# --- figures -------------------------------------------------------------------------------------


def test_ranks_with_ties():
  logits = np.float32([[1, 3, 3, 2], [0, 0, 0, 0], [5, 1, 1, 1]])
  labels = np.int32([2, 3, 0])
  batch = outcomes.of_batch(logits, {'labels': labels, 'mask': np.ones(3, np.float32)})
  np.testing.assert_array_equal(batch['rank'], [1, 3, 0])
  np.testing.assert_array_equal(batch['prediction'], [1, 0, 0])
  found = Outcomes.joined([{**batch, 'mask': np.float32([1, 0, 1])}])
  assert len(found) == 2
  assert [found.top_k_error(k) for k in (1, 2, 9)] == [50, 0, 0]


def test_figures_by_class_against_numpy(digits, tmp_path, capsys):
  """Confusion, error by class and top-k of two networks, from their probabilities."""
  table, counts, packed = (tmp_path / n for n in ('classes.csv', 'confusion.csv', 'confusion.npz'))
  row = run_tool(
    tmp_path, digits, f'--per_class={table}', f'--confusion={counts}', '--top_k=1,3,5,10,20'
  )
  assert 'top10_error   0.0000 %' in capsys.readouterr().out
  images, labels = datasets.load('digits', 'test')
  average = np.mean([senet_jax.load(w, 'latest').probabilities(images) for w in digits], 0)
  expected = figures(average, labels, (1, 3, 5, 10, 20))
  assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4)
  assert 0 < row['top3_error'] < row['top1_error'] < 100  # or the test would show little
  confusion = np.zeros((10, 10), int)
  for label, prediction in zip(labels, average.argmax(-1), strict=True):
    confusion[label, prediction] += 1

  header, *rows = csv.reader(io.StringIO(counts.read_text()))
  assert header == ['class', *'0123456789'] and [r[0] for r in rows] == list('0123456789')
  found = np.array([r[1:] for r in rows], int)
  np.testing.assert_array_equal(found, confusion)
  np.testing.assert_array_equal(found.sum(1), np.bincount(labels))
  run_tool(tmp_path, digits, f'--confusion={packed}')
  with np.load(packed, allow_pickle=False) as file:
    np.testing.assert_array_equal(file['confusion'], confusion)
    assert file['class_names'].tolist() == list('0123456789')

  by_class = list(csv.DictReader(io.StringIO(table.read_text())))
  assert list(by_class[0]) == ['class', 'images', 'error']
  for label, line in enumerate(by_class):
    of_class = labels == label
    wrong = (average.argmax(-1)[of_class] != label).mean()
    assert (line['class'], int(line['images'])) == (str(label), of_class.sum())
    assert float(line['error']) == pytest.approx(100 * wrong)


def test_class_without_images(digits, tmp_path):
  run_tool(tmp_path, digits[:1], '--split=test[:1]', f'--per_class={tmp_path / "c.csv"}')
  lines = list(csv.DictReader((tmp_path / 'c.csv').open(newline='')))
  assert sorted(line['images'] for line in lines) == ['0'] * 9 + ['1']
  assert all((line['error'] == '') == (line['images'] == '0') for line in lines)


# --- images that are left out --------------------------------------------------------------------


def test_left_out_of_arrays(digits, tmp_path, capsys):
  skipped = [0, 3, 3, 359, 100]
  (tmp_path / 'list.txt').write_text('\n'.join(map(str, skipped)) + '\n\n')
  table = tmp_path / 'c.csv'
  row = run_tool(tmp_path, digits, f'--exclude={tmp_path / "list.txt"}', f'--per_class={table}')
  assert '356 images, 4 left out' in capsys.readouterr().out
  assert (row['examples'], row['left_out']) == (356, 4)
  images, labels = (np.delete(x, skipped, 0) for x in datasets.load('digits', 'test'))
  average = np.mean([senet_jax.load(w, 'latest').probabilities(images) for w in digits], 0)
  expected = figures(average, labels)
  assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4)
  counts = [int(line['images']) for line in csv.DictReader(table.open(newline=''))]
  np.testing.assert_array_equal(counts, np.bincount(labels))


def test_left_out_of_a_folder_is_not_even_read(photos, folder, tmp_path):
  """The figures are those of a folder without the images, which may be damaged."""
  damaged, smaller = tmp_path / 'damaged', tmp_path / 'smaller'
  paths, _ = folder_split(folder)
  gone = [str(paths[i].relative_to(folder / 'val')) for i in (0, 1, 20)]
  for root in (damaged, smaller):
    shutil.copytree(folder, root)
  for name in gone:
    (damaged / 'val' / name).write_text('no image')
    (smaller / 'val' / name).unlink()
  (tmp_path / 'list.txt').write_text('\n'.join(gone))
  flags = ['--crops=10', '--checkpoint=latest']
  with_list = [f'--data_dir={damaged}', f'--exclude={tmp_path / "list.txt"}']
  found = run_tool(tmp_path, photos[:1], *flags, *with_list)
  expected = run_tool(tmp_path, photos[:1], *flags, f'--data_dir={smaller}')
  assert found.pop('left_out') == 3 and expected.pop('left_out') == 0
  assert found == expected
  # Without the list they are unreadable, counted and not evaluated.
  unreadable = run_tool(tmp_path, photos[:1], *flags, f'--data_dir={damaged}')
  assert (unreadable['left_out'], unreadable['examples']) == (0, 21)
  assert unreadable['loss'] == pytest.approx(expected['loss'])
  with pytest.raises(UserError, match='none of the images to evaluate on could be read'):
    run_tool(tmp_path, photos[:1], f'--data_dir={damaged}', '--split=val[:2]')


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_file_names_of_tfds(folder, tmp_path, file_format):
  prepare.prepare('pets', tmp_path, image_folder=folder, file_format=file_format)
  config = configured(PHOTOS, data__name='pets', data__dir=str(tmp_path))
  source = sources.open_source(config, 'val[4:20]')
  names = exclusion.file_names(source, folder=False)
  assert len(names) == 16 and len(set(names)) == 16
  paths = {str(p.relative_to(folder)): p for p in folder_split(folder)[0]}
  assert set(names) < set(paths)
  indices = exclusion.find(names[3:6], 16, names, 'pets')
  np.testing.assert_array_equal(indices, [3, 4, 5])
  rest = exclusion.without(source, indices)
  assert rest.num_examples == 13
  left = [names[i] for i in range(16) if i not in (3, 4, 5)]
  for index, (encoded, label) in enumerate(zip(*rest.read(np.arange(13)), strict=True)):
    assert encoded == paths[left[index]].read_bytes()
    assert 'abc'[int(label)] == paths[left[index]].parent.name


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    (['4'], 'index 4 of the list is outside 0 to 3, those of pets'),
    (['-1'], "'-1' of the list is no image of pets"),
    (['9' * 5000], 'is no image of pets'),
    (['z.jpg'], r"'z\.jpg' of the list is no image of pets; remove"),
    (['at/1.jpg'], 'is no image'),
    (['1.jpg'], r'may be val/cat/1\.jpg or val/dog/1\.jpg of pets; write the folder'),
    (['0', '1', 'cat/3.jpg', '2'], 'leaves out all 4 images of pets'),
  ],
)
def test_lists_that_name_no_image(lines, message):
  names = ['val/cat/1.jpg', 'val/cat/2.jpg', 'val/dog/1.jpg', 'val/cat/3.jpg']
  with pytest.raises(UserError, match=message):
    exclusion.find(lines, 4, names, 'pets')
  assert exclusion.find(['cat/1.jpg', '3.jpg', '0'], 4, names, 'pets').tolist() == [0, 3]


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--crops=5'], "invalid choice: '?5"),  # Python 3.13 quotes it
    (['--crops=10'], 'all crops of 8 of an image of that size are the image .* such as 9'),
    (['--scales=7,8'], 'shorter side is 7 are smaller than the crop of 8'),
    (['--size=9', '--resize=8'], 'shorter side is 8 are smaller than the crop of 9'),
    (['--scales=a'], "'a' must be whole numbers from 1 on"),
    (['--size=0'], "--size: '0' must be an integer of at least 1"),
    (['--top_k=0,1'], "'0,1' must be whole numbers from 1 on"),
    (['--per_class=x.json'], r'--per_class=x\.json must end in \.csv'),
    (['--confusion=x'], r'--confusion=x must end in \.csv or \.npz'),
    (['--exclude=/nowhere/list'], 'No such file or directory: /nowhere/list'),
    (['--exclude={text}'], "'cat.jpg' of the list is no index, and .* have no names"),
    (['--exclude={empty}'], 'is empty; give one index or file name a line'),
    (['--checkpoint=latest'] * 3 + ['--workdir={other}'], '--workdir is given 2 times and .* 3'),
    (['--checkpoint=7'], "no checkpoint '7'"),
    (['--workdir=/nowhere'], '/nowhere holds no run'),
  ],
)
def test_mistakes(digits, tmp_path, monkeypatch, capsys, arguments, message):
  (tmp_path / 'text').write_text('3\ncat.jpg\n')
  (tmp_path / 'empty').write_text('\n')
  places = {'text': tmp_path / 'text', 'empty': tmp_path / 'empty', 'other': digits[1]}
  given = [f'--workdir={digits[0]}', *(a.format(**places) for a in arguments)]
  assert re.search(message, complaint(tool.main, given, monkeypatch, capsys))


def test_networks_that_do_not_fit_together(digits, photos, tmp_path, monkeypatch, capsys):
  def fails_with(workdir):
    arguments = [f'--workdir={digits[0]}', f'--workdir={workdir}']
    return complaint(tool.main, arguments, monkeypatch, capsys)

  message = fails_with(photos[0])
  assert re.search(r'seed0 has 3 classes, \S+whole has 10; .* need the same classes', message)
  names = {'num_classes': 10, 'names': list('0123456798')}
  message = fails_with(changed_run(digits[1], tmp_path / 'names', names))
  assert re.search(r"class 8 of \S+names is '9', of \S+whole '8'", message)
  names = {'num_classes': 10, 'names': None}
  message = fails_with(changed_run(digits[1], tmp_path / 'data', names, name='cifar10'))
  assert re.search(r'was trained on cifar10, \S+ on digits, and the names', message)
  larger = changed_run(digits[1], tmp_path / 'size', image_size=12)
  message = fails_with(larger)
  assert '8 x 8 of images of 8, and 12 x 12 of images of 12; give --size and --resize' in message
  assert run_tool(tmp_path, [digits[0], larger], '--size=12')['size'] == 12


def test_network_that_gives_no_numbers(digits, monkeypatch, capsys):
  load_run = saved.load

  def diverged(*arguments):
    run = load_run(*arguments)
    object.__setattr__(run, 'variables', jax.tree.map(lambda x: x * np.nan, run.variables))
    return run

  monkeypatch.setattr(saved, 'load', diverged)
  message = complaint(tool.main, [f'--workdir={digits[0]}'], monkeypatch, capsys)
  assert re.search('the loss is nan: no numbers come out; use another checkpoint', message)
