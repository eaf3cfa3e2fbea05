"""Predictions: of arrays, images and files, in Python and by the command."""

import csv
import dataclasses
import functools
import json
import re
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import senet_jax
from senet_jax import cli
from senet_jax.data import class_names, datasets, image_folder, photos
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError
from senet_jax.interop import shipped
from senet_jax.tools import evaluate as evaluate_tool, predict
from senet_jax.training.loop import train
from tests.helpers.paths import ROOT
from tests.helpers.small_run import configured

# Long enough to tell most of the digits apart.
RUN = {
  'model.name': 'se_resnet20_cifar',
  'model.width': 8,
  'model.depths': (1, 1, 1),
  'model.se.ratio': 4,
  'data.name': 'digits',
  'data.pad': 1,
  'data.flip': False,
  'batch_size': 64,
  'steps': 200,
  'schedule.name': 'constant',
  'optimizer.learning_rate': 0.1,
  'eval.every_epochs': 100.0,
  'log.tensorboard': False,
}


def configuration(**fields):
  return configured(RUN, **fields)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp('digits')
  assert train(configuration(), path)
  return path


@pytest.fixture(scope='module')
def predictor(workdir):
  return senet_jax.load(workdir)


@pytest.fixture(scope='module')
def test_split():
  return datasets.load('digits', 'test')


@pytest.fixture(scope='module')
def digit_files(test_split, tmp_path_factory):
  """The test images as files, named after their labels."""
  folder = tmp_path_factory.mktemp('files')
  paths = []
  for i, (image, label) in enumerate(zip(*test_split, strict=True)):
    paths.append(folder / str(label) / f'{i:03}.png')
    paths[-1].parent.mkdir(exist_ok=True)
    Image.fromarray(image[..., 0]).save(paths[-1])
  return paths


# --- damaged workdirs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    ('config.json', b'\xff', r'config\.json is not JSON'),
    ('config.json', b'[' * 100_000, r'config\.json is not JSON'),
    ('config.json', b'[]', 'not a configuration of this version: list, not fields'),
    (
      'config.json',
      b'{"x": {"y": 1}}',
      r"this version, which has no field 'x\.y'",
    ),
    # It would take hours to look at.
    ('config.json', b'{"model": {"depths": [999999999]}}', r'depths=\[999999999\] must be a tuple'),
    ('config.json', b'{"seed": null}', 'seed=None must be a whole number from 0'),
    ('classes.json', b'', r'classes\.json is not JSON'),
    ('classes.json', b'{"num_classes": 10}', r'classes\.json does not hold the number of classes'),
    ('classes.json', b'{"num_classes": 10, "names": [1]}', r'does not hold .* their names'),
  ],
)
def test_damaged_files_of_a_workdir(workdir, tmp_path, file, content, message):
  for name in ('config.json', 'classes.json'):
    shutil.copy(workdir / name, tmp_path)
  (tmp_path / file).write_bytes(content)
  with pytest.raises(UserError, match=message):
    senet_jax.load(tmp_path)
  (tmp_path / file).unlink()
  (tmp_path / file).symlink_to(file)
  with pytest.raises(UserError, match=f'{file} cannot be read'):
    senet_jax.load(tmp_path)


def test_checkpoint_of_endless_digits(workdir):
  with pytest.raises(UserError, match=r'no checkpoint .* give best, latest or of'):
    senet_jax.load(workdir, '9' * 5000)


# --- names ---------------------------------------------------------------------------------------


def test_imagenet_classes_are_those_of_tfds():
  import tensorflow_datasets as tfds

  file = tfds.core.tfds_path() / 'datasets' / 'imagenet2012' / 'labels.txt'
  classes = class_names.imagenet_classes()
  assert [wnid for wnid, _ in classes] == file.read_text().split()
  assert classes[0] == ('n01440764', 'tench, Tinca tinca')
  assert all(names and names == names.strip() for _, names in classes)


@pytest.mark.parametrize(
  ('name', 'shown'),
  [('n01440764', 'tench'), ('n99999999', 'n99999999'), ('rose', 'rose'), ('7', '7')],
)
def test_readable(name, shown):
  assert class_names.readable(name) == shown


# --- in Python -----------------------------------------------------------------------------------


def test_same_error_as_evaluate(workdir, predictor, test_split, digit_files, tmp_path):
  images, labels = test_split
  probabilities = predictor.probabilities(images)
  assert probabilities.shape == (360, 10) and probabilities.dtype == np.float32
  np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
  error = 100 * (probabilities.argmax(1) != labels).mean()
  evaluate_tool.main([f'--workdir={workdir}', f'--output={tmp_path / "e.json"}'])
  evaluated = json.loads((tmp_path / 'e.json').read_text())
  assert error == pytest.approx(evaluated['top1_error'])
  assert error < 50
  loss = -np.log(probabilities[np.arange(360), labels]).mean()
  assert loss == pytest.approx(evaluated['loss'], rel=1e-4)
  np.testing.assert_array_equal(predictor.probabilities(digit_files), probabilities)


def test_attributes(predictor, workdir):
  assert predictor.class_names == tuple('0123456789')
  assert predictor.step == 200 and predictor.config.data.name == 'digits'
  assert predictor.preprocessing == evaluation_transform(predictor.config)
  assert senet_jax.load(workdir, 200).step == senet_jax.load(str(workdir), 'latest').step == 200
  assert len(repr(predictor)) < 1000


def test_all_kinds_of_images_at_once(predictor, test_split, digit_files):
  images = test_split[0][:5]
  alone = predictor.probabilities(images)
  mixed = [
    str(digit_files[0]),
    digit_files[1],
    Image.open(digit_files[2]),
    images[3, ..., 0],
    np.repeat(images[4], 3, -1),
  ]
  np.testing.assert_array_equal(predictor.probabilities(mixed), alone)
  rgb = np.repeat(images, 3, -1)
  np.testing.assert_array_equal(predictor.probabilities(rgb), alone)
  np.testing.assert_array_equal(predictor.probabilities(jax.numpy.asarray(images)), alone)
  assert predictor.probabilities([]).shape == (0, 10)


def test_larger_images_are_reduced(predictor, test_split):
  images = test_split[0]
  larger = predictor.probabilities(images.repeat(8, 1).repeat(8, 2))
  same = larger.argmax(1) == predictor.probabilities(images).argmax(1)
  assert same.mean() > 0.8  # the reduction blurs them a little


def test_top_k(predictor, digit_files):
  best = predictor.top_k(digit_files[:3], k=2)
  probabilities = predictor.probabilities(digit_files[:3])
  for row, predictions in zip(probabilities, best, strict=True):
    assert [p.label for p in predictions] == list(np.argsort(-row)[:2])
    assert [p.probability for p in predictions] == sorted(row, reverse=True)[:2]
    assert all(p.name == str(p.label) for p in predictions)
  assert len(predictor.top_k(digit_files[:1], k=99)[0]) == 10
  with pytest.raises(UserError, match='k=0 must be at least 1'):
    predictor.top_k(digit_files[:1], k=0)


def test_one_compilation_and_any_batch_size(workdir, predictor, test_split, caplog):
  images = test_split[0][:50]
  assert predictor.batch_size == 32
  expected = predictor.probabilities(images)
  other = senet_jax.load(workdir, batch_size=9)
  assert other.batch_size == 16  # on eight devices
  with jax.log_compiles():
    for count in (1, 31, 33):
      np.testing.assert_array_equal(predictor.probabilities(images[:count]), expected[:count])
    assert 'Compiling' not in caplog.text
    np.testing.assert_allclose(other.probabilities(images), expected, rtol=1e-3, atol=1e-5)
    assert 'Compiling' in caplog.text
  with pytest.raises(UserError, match='batch_size=0 must be at least 1'):
    senet_jax.load(workdir, batch_size=0)


def test_stream_reads_two_batches_ahead_at_most(predictor, test_split):
  taken = []

  def endless():
    while True:
      taken.append(len(taken))
      yield test_split[0][len(taken) % 360]

  rows = predictor.stream(endless())
  for expected in (64, 96):
    for _ in range(32):
      assert next(rows).shape == (10,)
    assert len(taken) == expected
  rows.close()


def test_unreadable_images(predictor, test_split, digit_files, tmp_path):
  text = tmp_path / 'text.jpg'
  text.write_text('no image')
  mixed = [digit_files[0], text, tmp_path / 'missing.png', digit_files[1]]
  rows = list(predictor.stream(mixed))
  np.testing.assert_array_equal([rows[0], rows[3]], predictor.probabilities(test_split[0][:2]))
  assert all(isinstance(row, photos.UnreadableImage) for row in rows[1:3])
  assert str(rows[2]) == 'No such file or directory'
  with pytest.raises(UserError, match=r'text\.jpg is unreadable: no JPEG, PNG.* leave it out'):
    predictor.probabilities(mixed)


@pytest.mark.parametrize(
  ('images', 'message'),
  [
    ('photo.jpg', r'there is no file photo\.jpg; check the path'),
    (np.zeros((8, 8, 3), np.uint8), r'shape \(8, 8, 3\); give \[N, H, W, 3\]'),
    (np.zeros((1, 8, 8, 3), np.float32), r'is float32 \[8, 8, 3\]; give uint8'),
    ([np.zeros((8, 8, 2), np.uint8)], r'is uint8 \[8, 8, 2\]; give uint8'),
    ([np.zeros((0, 8, 3), np.uint8)], r'is uint8 \[0, 8, 3\]'),
    ([np.zeros(8, np.uint8)], r'is uint8 \[8\]'),
    ([7], 'is int64'),
  ],
)
def test_no_images(predictor, images, message):
  with pytest.raises(UserError, match=message):
    predictor.probabilities(images)


def test_one_image_alone(predictor, digit_files):
  path = digit_files[0]
  expected = predictor.top_k([path], 2)
  for image in (path, str(path), path.read_bytes(), Image.open(path)):
    assert predictor.top_k(image, 2) == expected


def test_diverged_network(predictor, test_split):
  variables = jax.tree.map(lambda x: x * np.nan, predictor.variables)
  diverged = dataclasses.replace(predictor, variables=variables)
  with pytest.raises(
    UserError, match='outputs NaN or infinity at step 200; use another checkpoint'
  ):
    diverged.probabilities(test_split[0][:1])


def test_classes_without_names(workdir, tmp_path):
  shutil.copytree(workdir, tmp_path / 'run')
  kept = tmp_path / 'run' / 'classes.json'
  kept.write_text(json.dumps({'num_classes': 10, 'names': list('abcdefgh')}))
  assert senet_jax.load(tmp_path / 'run').class_names == (*'abcdefgh', 'class 8', 'class 9')
  kept.unlink()
  assert senet_jax.load(tmp_path / 'run').class_names == tuple(f'class {i}' for i in range(10))


def test_a_network_in_the_package_has_the_step_of_its_run():
  for name in senet_jax.list_pretrained():
    record = ROOT / shipped.facts(name)['record'] / 'summary.json'
    assert senet_jax.load(name).step == json.loads(record.read_text())['steps']


def test_no_run(tmp_path, workdir):
  with pytest.raises(UserError, match='holds no run'):
    senet_jax.load(tmp_path)
  with pytest.raises(
    UserError, match=r"mean 'se_resnet20_cifar10'\? Give the workdir of a run, hf:"
  ):
    senet_jax.load('se_resnet20')
  names = re.escape(', '.join(senet_jax.list_pretrained()))
  for name, end in (('flowers', '.'), ('senet154', '; it can be trained, but no .*')):
    what = f'^{name} is neither a directory nor a trained network in the package{end} '
    with pytest.raises(
      UserError, match=f'{what}Give the workdir of a run, hf:OWNER/REPO, or one of .*: {names}\\.$'
    ):
      senet_jax.load(name)
  with pytest.raises(UserError, match=r'^runs/flowers holds no run: there is no such directory'):
    senet_jax.load('runs/flowers')
  with pytest.raises(UserError, match="no checkpoint '7'"):
    senet_jax.load(workdir, 7)


def test_photos_are_resized_cropped_and_normalised(predictor):
  config = configuration(
    data__name='image_folder', data__feed='stream', data__image_size=32, data__resize=40
  )
  transform = evaluation_transform(config)
  names = ('n01440764', *'123456789')
  network = dataclasses.replace(predictor, preprocessing=transform, class_names=names)
  image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
  crop = photos.central_crop(Image.fromarray(image), 40, 32)[None].astype(np.float32)
  inputs = (crop - np.float32(transform.mean)) / np.float32(transform.std)
  logits = jax.jit(functools.partial(network.model.apply, train=False))(network.variables, inputs)
  expected = jax.nn.softmax(logits)
  np.testing.assert_allclose(network.probabilities([image]), expected, rtol=1e-4, atol=1e-6)
  assert {p.name for p in network.top_k([image], 10)[0]} == {'tench', *'123456789'}


# --- the command ---------------------------------------------------------------------------------


def test_finds_images(tmp_path):
  inside = ('b/2.JPG', 'b/1.png', 'b/c/3.webp', 'b/notes.txt', 'b/.hidden.png')
  for name in (*inside, 'x.dat', 'y[1].png'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / 'empty').mkdir()

  def found(*arguments):
    paths = image_folder.find_images([str(tmp_path / a) for a in arguments])
    return [p.removeprefix(f'{tmp_path}/') for p in paths]

  assert found('b') == ['b/1.png', 'b/2.JPG', 'b/c/3.webp']
  assert found('x.dat', 'b/2.JPG', 'b') == ['x.dat', 'b/2.JPG', 'b/1.png', 'b/c/3.webp']
  assert found('b/*.png') == ['b/1.png']
  assert found('**/*.webp') == ['b/c/3.webp']
  assert found('y[1].png') == ['y[1].png']
  assert found('*') == ['b/1.png', 'b/2.JPG', 'b/c/3.webp', 'x.dat', 'y[1].png']
  with pytest.raises(UserError, match=r"no file or folder '\S+z\.png', and it matches none"):
    found('b', 'z.png')
  with pytest.raises(UserError, match=r"no image \(\.jpg .*\) is in '\S+/empty'"):
    found('empty')
  with pytest.raises(UserError, match=r"no image \(\.jpg .*\) is in '\S+/e\*'"):
    found('e*')


def test_command(workdir, digit_files, tmp_path, capsys):
  folder = tmp_path / 'photos'
  folder.mkdir()
  for path in digit_files[:40]:
    shutil.copy(path, folder)
  (folder / '0005.jpg').write_text('text')
  (folder / '0006.png').write_bytes(digit_files[0].read_bytes()[:60])
  arguments = [f'--workdir={workdir}', '--top_k=2', '--batch_size=16', str(folder)]
  output = tmp_path / 'out' / 'all.json'
  assert predict.main([*arguments, f'--output={output}']) == cli.USER_ERROR
  out, err = capsys.readouterr()
  assert re.fullmatch(
    r'senet_jax: \S+/0005\.jpg is unreadable: no JPEG[^\n]+\n'
    r'senet_jax: \S+/0006\.png is unreadable: [^\n]+\n',
    err,
  )
  blocks = re.findall(r'(/\S+\.png)\n( +\d+\.\d\d %  \d)\n( +\d+\.\d\d %  \d)\n', out)
  assert len(blocks) == 40
  results = json.loads(output.read_text())
  assert len(results) == 42
  good = [r for r in results if 'error' not in r]
  paths = sorted(map(str, folder.glob('???.png')))
  assert [r['path'] for r in good] == [b[0] for b in blocks] == paths
  assert [len(r['predictions']) for r in good] == [2] * 40
  assert set(good[0]['predictions'][0]) == {'name', 'label', 'probability'}
  unreadable = [r['path'] for r in results if 'error' in r]
  assert unreadable == [f'{folder}/0005.jpg', f'{folder}/0006.png']
  named = [r['predictions'][0]['name'] for r in good]
  right = [name == path.parent.name for name, path in zip(named, digit_files[:40], strict=True)]
  assert np.mean(right) > 0.5


def test_csv_and_all_classes(workdir, digit_files, tmp_path):
  output = tmp_path / 'all.csv'
  pattern = str(digit_files[0].parents[1] / '3' / '*.png')
  assert predict.main([f'--workdir={workdir}', '--top_k=99', f'--output={output}', pattern]) == 0
  with output.open(newline='') as file:
    rows = list(csv.DictReader(file))
  count = sum(path.parent.name == '3' for path in digit_files)
  assert len(rows) == 10 * count
  assert list(rows[0]) == ['path', 'rank', 'label', 'name', 'probability']
  assert [row['rank'] for row in rows[:10]] == [str(i) for i in range(1, 11)]
  assert sum(float(row['probability']) for row in rows[:10]) == pytest.approx(1, abs=1e-4)


def test_real_photos_through_the_command(workdir, imagenet_sample, capsys):
  assert predict.main([f'--workdir={workdir}', '--top_k=1', str(imagenet_sample)]) == 0
  assert capsys.readouterr().out.count(' %  ') == 100


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--output=x.txt', '{photo}'], r'--output=x\.txt must end in \.json or \.csv'),
    (['--top_k=0', '{photo}'], "--top_k: '0' must be an integer of at least 1"),
    (['--batch_size=0', '{photo}'], "--batch_size: '0' must be an integer of at least 1"),
    (['nothing.png'], "no file or folder 'nothing.png'"),
    ([], 'give a network .*, and then photos'),
    (['--checkpoint=9', '{photo}'], "no checkpoint '9'"),
  ],
)
def test_mistakes(arguments, message, workdir, digit_files, monkeypatch, capsys):
  given = [a.format(photo=digit_files[0]) for a in arguments]
  monkeypatch.setattr(sys, 'argv', ['predict', f'--workdir={workdir}', *given])
  with pytest.raises(SystemExit) as exit_info:
    cli.run(predict.main)
  assert exit_info.value.code == cli.USER_ERROR
  assert re.fullmatch(rf'senet_jax: [^\n]*{message}[^\n]*\n', capsys.readouterr().err)
