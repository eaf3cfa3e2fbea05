"""Gates by class: statistics, figures and the command."""

import csv
import functools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax import config as config_lib, runtime
from senet_jax.data import class_names, datasets, feeds
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError
from senet_jax.excitation import activations, figures as activation_figures
from senet_jax.layers import SEConfig, excitations
from senet_jax.models import create_model
from senet_jax.reporting import look
from senet_jax.tools import activations as tool
from senet_jax.training.loop import train
from senet_jax.workdir import saved
from tests.helpers.commands import complaint
from tests.helpers.small_run import configured

RUN = {
  'model.name': 'se_resnet20_cifar',
  'model.width': 4,
  'model.depths': (1, 1, 2),
  'model.se.ratio': 2,
  'data.name': 'digits',
  'data.pad': 1,
  'data.flip': False,
  'batch_size': 64,
  'steps': 12,
  'schedule.name': 'constant',
  'optimizer.learning_rate': 0.1,
  'log.tensorboard': False,
}
WNIDS = tuple(wnid for wnid, _ in class_names.imagenet_classes())
RESNET50 = [f'SE_{s}_{b}' for s, n in ((2, 3), (3, 4), (4, 6), (5, 3)) for b in range(1, n + 1)]


def configuration(**fields):
  return configured(RUN, **fields)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp('digits')
  assert train(configuration(), path)
  return path


@pytest.fixture(scope='module')
def run(workdir):
  return saved.load(workdir, 'latest', runtime.data_mesh())


@pytest.fixture(scope='module')
def output(workdir, tmp_path_factory):
  """What the command writes."""
  path = tmp_path_factory.mktemp('out') / 'deep' / 'er'
  tool.main([f'--workdir={workdir}', f'--output={path}', '--images_per_class=20'])
  return path


def gates_one_by_one(model, variables, config, images):
  """Each block's gates `[N, …]` of images that run alone."""

  @jax.jit
  def of_image(image):
    inputs = evaluation_transform(config).to_input(image[None])
    _, state = model.apply(variables, inputs, train=False, mutable=['intermediates'])
    return excitations(state['intermediates'])

  rows = [jax.device_get(of_image(image)) for image in images]
  return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def made_up(*classes):
  """A block with the given gates `[n, C]` of each class."""
  gates = [np.asarray(gates, np.float32) for gates in classes]
  moments = activations.Moments(len(gates), gates[0].shape[1])
  for label, rows in enumerate(gates):
    moments.add(rows, np.full(len(rows), label))
  return activations.Block(moments.count, moments.mean, moments.squares, 0.25, 0.125)


# --- statistics ----------------------------------------------------------------------------------


def test_ranks():
  assert activations.ranks(np.array([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]
  assert activations.ranks(np.array([], int)).tolist() == []


def test_moments_are_those_of_all_values_together():
  rng = np.random.default_rng(0)
  # The naive difference of squares would lose all digits of this variance.
  values = (1e4 + rng.normal(0, 1e-3, (500, 3))).astype(np.float64)
  labels = rng.integers(0, 4, 500)
  moments = activations.Moments(5, 3)
  for part in np.split(np.arange(500), [1, 7, 100, 100, 333]):
    moments.add(values[part], labels[part])
  assert moments.count.tolist() == [*np.bincount(labels), 0]
  for k in range(4):
    mine = values[labels == k]
    np.testing.assert_allclose(moments.mean[k], mine.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.squares[k] / len(mine), mine.var(0), rtol=1e-6)
  assert not moments.mean[4].any() and not moments.squares[4].any()


def test_command_equals_numpy_on_gates_of_single_images(run, output):
  images, labels = datasets.load('digits', 'test')
  gates = gates_one_by_one(run.model, run.variables, run.config, images)
  found = np.load(output / 'activations.npz')
  first = {k: np.flatnonzero(labels == k)[:20] for k in range(10)}
  assert found['counts'].tolist() == [20] * 10
  assert found['class_names'].tolist() == list('0123456789')
  assert found['blocks'].tolist() == list(gates)
  record = json.loads((output / 'separation.json').read_text())
  assert (record['images'], record['classes'], record['step']) == (200, 10, run.step)
  for name, values in gates.items():
    means = np.stack([values[i].mean(0, dtype=np.float64) for i in first.values()])
    variances = np.stack([values[i].var(0, ddof=1, dtype=np.float64) for i in first.values()])
    np.testing.assert_allclose(found[f'{name}/mean'], means, atol=2e-6)
    np.testing.assert_allclose(found[f'{name}/std'], np.sqrt(variances), atol=2e-6)
    np.testing.assert_allclose(found[f'{name}/all_mean'], means.mean(0), atol=2e-6)
    within = variances.mean(0)
    between = means.var(0, ddof=1) - within / 20
    np.testing.assert_allclose(found[f'{name}/within_variance'], within, rtol=1e-2, atol=1e-9)
    np.testing.assert_allclose(found[f'{name}/between_variance'], between, rtol=1e-2, atol=1e-9)
    block, used = record['blocks'][name], values[np.concatenate(list(first.values()))]
    assert block['low_share'] == pytest.approx((used < 0.05).mean(), abs=1e-4)
    assert block['high_share'] == pytest.approx((used > 0.95).mean(), abs=1e-4)
    correlations = np.corrcoef(means)[np.triu_indices(10, 1)]
    assert block['agreement'] == pytest.approx(correlations.mean(), abs=1e-3)
    assert block['spread'] == pytest.approx(means.mean(0).std(), abs=1e-5)


def test_ends_before_the_data_do(run, monkeypatch):
  config = configuration(eval__batch_size=64)
  mesh = runtime.data_mesh()
  feed = feeds.evaluation_feed(config, 'test', mesh)
  asked = []
  inputs = type(feed).inputs
  monkeypatch.setattr(type(feed), 'inputs', lambda self, s: (asked.append(s), inputs(self, s))[1])
  blocks = activations.measure(run.model, run.variables, feed, mesh, images_per_class=2)
  assert next(iter(blocks.values())).count.tolist() == [2] * 10
  assert len(feed) == 6 and len(asked) < 4


@pytest.mark.parametrize(
  ('se', 'saturated'),
  [
    (SEConfig(ratio=2, squeeze='none'), (0.45, 0.55)),
    (SEConfig(ratio=2, excitation='tanh'), (-0.1, 0.1)),
  ],
)
def test_gates_of_other_kinds(run, se, saturated):
  config = configuration(eval__batch_size=40, data__eval_split='test[:30]')
  model = create_model('se_resnet20_cifar', num_classes=10, width=4, depths=(1, 1, 2), se=se)
  images, labels = datasets.load('digits', 'test[:30]')
  mesh = runtime.data_mesh()
  feed = feeds.evaluation_feed(config, 'test[:30]', mesh)
  blocks = activations.measure(model, run.variables, feed, mesh, 50, saturated)
  gates = gates_one_by_one(model, run.variables, config, images)
  assert list(blocks) == list(gates)
  for name, block in blocks.items():
    values = gates[name]
    assert block.low == pytest.approx((values < saturated[0]).mean(), abs=2e-3)
    assert block.high == pytest.approx((values > saturated[1]).mean(), abs=2e-3)
    assert values.ndim == (4 if se.squeeze == 'none' else 2)
    values = values.reshape(30, -1, values.shape[-1]).mean(1)
    expected = [values[labels == k].mean(0) for k in range(10)]
    np.testing.assert_allclose(block.mean, expected, atol=1e-5)
  assert any(0.1 < block.low + block.high < 0.9 for block in blocks.values())


def test_stream_leaves_out_what_is_unreadable(run, tmp_path):
  images, labels = datasets.load('digits', 'test')
  for split in ('train', 'val'):
    for i, (image, label) in enumerate(zip(images[:30], labels[:30], strict=True)):
      path = tmp_path / split / f'digit {label % 2}' / f'{i:03}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image[..., 0]).save(path)
  damaged = sorted((tmp_path / 'val' / 'digit 1').iterdir())[1]
  damaged.write_text('no image')
  config = configuration(
    data__name='image_folder',
    data__feed='stream',
    data__dir=str(tmp_path),
    data__image_size=8,
    data__resize=8,
  )
  mesh = runtime.data_mesh()
  feed = feeds.evaluation_feed(config, 'val', mesh)
  blocks = activations.measure(run.model, run.variables, feed, mesh, 50)
  odd = int((labels[:30] % 2).sum())
  assert next(iter(blocks.values())).count.tolist() == [30 - odd, odd - 1]


def test_diverged_network(run):
  mesh = runtime.data_mesh()
  feed = feeds.evaluation_feed(configuration(), 'test[:8]', mesh)
  variables = jax.tree.map(lambda x: x * np.nan, run.variables)
  with pytest.raises(UserError, match='some gates are no numbers; use another checkpoint'):
    activations.measure(run.model, variables, feed, mesh, 50)


# --- separation ----------------------------------------------------------------------------------


def test_separation_by_hand():
  # Means: (0.2, 0.5) and (0.6, 0.5). Squares: 0.02 and 0.08 in channel 0, 0 and 0.18 in channel 1.
  block = made_up([[0.1, 0.5], [0.3, 0.5]], [[0.4, 0.5], [0.6, 0.2], [0.8, 0.8]])
  within = np.array([0.02 + 0.08, 0 + 0.18]) / 3
  between = np.array([0.08, 0]) - within * (1 / 2 + 1 / 3) / 2
  np.testing.assert_allclose(block.within, within, rtol=1e-6)
  np.testing.assert_allclose(block.between, between, rtol=1e-6)
  np.testing.assert_allclose(block.all_mean, [0.4, 0.5], rtol=1e-6)
  np.testing.assert_allclose(block.std, np.sqrt([[0.02, 0], [0.04, 0.09]]), atol=1e-7)
  summary = block.summary()
  assert summary['separation'] == pytest.approx(between.mean() / within.mean(), rel=1e-6)
  assert summary['agreement'] == pytest.approx(-1)  # one rises, the other falls
  assert summary['spread'] == pytest.approx(0.05) and summary['mean'] == pytest.approx(0.45)
  assert summary['saturated_share'] == 0.375 and summary['channels'] == 2


def test_separation_of_classes_that_do_not_differ_is_nothing():
  rng = np.random.default_rng(0)
  alike = made_up(*rng.uniform(0, 1, (40, 10, 200)))
  assert abs(alike.summary()['separation']) < 0.005  # the means' variance alone would give 0.1
  assert abs(alike.agreement) < 0.05
  shift = rng.uniform(0, 1, (40, 1, 1))
  apart = made_up(*(rng.uniform(0, 1, (40, 10, 200)) + shift))
  assert apart.summary()['separation'] == pytest.approx(12 * shift.var(ddof=1), rel=0.1)


def test_one_pattern_on_another_scale_agrees():
  pattern = np.linspace(0.1, 0.4, 7)
  assert made_up([pattern], [2 * pattern]).agreement == pytest.approx(1)


@pytest.mark.filterwarnings('error')
def test_separation_that_is_not_known():
  constant = made_up([[0.5, 0.25]] * 2, [[0.5, 0.25]] * 2, np.zeros((0, 2)))
  assert constant.summary()['within_variance'] == 0
  assert constant.summary()['separation'] is None
  assert constant.agreement == pytest.approx(1)
  np.testing.assert_array_equal(constant.all_mean, [0.5, 0.25])  # the third class has no part
  single = made_up([[0.5, 0.25]], np.zeros((0, 2))).summary()
  for key in ('between_variance', 'within_variance', 'separation', 'agreement'):
    assert single[key] is None
  assert made_up([[0.5, 0.5]] * 2, [[0.25, 0.25]] * 2).summary()['agreement'] is None


# --- what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('given', 'names', 'labels'),
  [
    (activations.PAPER_CLASSES, WNIDS, [1, 254, 726, 972]),
    (['Pug-Dog', 'n01443537', '7', 'pug'], WNIDS, [254, 1, 7]),
    (['7', '3'], '0123456789', [7, 3]),
    (['class 1', '0'], ['class 0', 'class 1'], [1, 0]),
    (['1'], ['2', '1', '0'], [1]),  # a name comes before a number
    ([], 'ab', []),
  ],
)
def test_classes_by_name(given, names, labels):
  assert activations.labels_of(given, names) == labels


@pytest.mark.parametrize(
  ('given', 'names', 'message'),
  [
    ('goldfihs', WNIDS, r"--classes='goldfihs' is unknown; did you mean 'goldfish'"),
    ('crane', WNIDS, r"'crane' means several classes: n02012849, n03126707; give one of these"),
    ('1000', WNIDS, r"'1000' is unknown"),
    ('dgo', ['cat', 'dog'], r"did you mean 'dog'\? \(allowed: cat, dog\)"),
    ('9' * 5000, ['cat', 'dog'], 'is unknown'),
  ],
)
def test_classes_that_are_not_there(given, names, message):
  with pytest.raises(UserError, match=message):
    activations.labels_of([given], names)


def test_classes_without_being_asked():
  assert activations.default_labels('0123456789') == list(range(10))
  assert activations.default_labels(WNIDS) == [1, 254, 726, 972]
  assert activations.default_labels([f'class {i}' for i in range(100)]) == [0, 33, 66, 99]


def test_blocks_of_the_paper():
  paper = ['SE_2_3', 'SE_3_4', 'SE_4_6', 'SE_5_1', 'SE_5_2', 'SE_5_3']
  assert activations.paper_blocks(RESNET50) == paper
  long = [f'SE_{s}_{b}' for s in (2, 3) for b in range(1, 19)]
  assert activations.paper_blocks(long) == ['SE_2_18', 'SE_3_1', 'SE_3_9', 'SE_3_18']
  branches = [f'SE_{s}_{b}_branch{i}' for s in (2, 3) for b in (1, 2) for i in (1, 2)]
  assert activations.paper_blocks(branches) == branches[2:]
  assert activations.paper_blocks(['stem', 'SE_2_1']) == ['stem', 'SE_2_1']


def test_blocks_are_in_network_order_beyond_the_ninth():
  model = create_model('se_resnet20_cifar', num_classes=2, depths=(11, 1, 1))
  image = np.zeros((1, 8, 8, 3), np.float32)
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
  names = list(activations.block_sizes(model, variables, 8))
  assert names == [*(f'SE_2_{i}' for i in range(1, 12)), 'SE_3_1', 'SE_4_1']


@pytest.fixture(scope='module')
def blocks():
  rng = np.random.default_rng(0)
  return {name: made_up(*rng.uniform(0, 1, (9, 3, 120))) for name in RESNET50}


def legend_of(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


def test_figure_of_classes(blocks):
  panels = {name: blocks[name] for name in activations.paper_blocks(RESNET50)}
  labels = {'goldfish': 3, 'pug': 0}
  figure = activation_figures.classes(panels, labels, 50, 'title')
  assert [axes.get_title() for axes in figure.axes] == list(panels)
  assert legend_of(figure) == ['goldfish', 'pug', 'all 9 classes']
  assert figure.get_suptitle() == 'title'
  for axes, block in zip(figure.axes, panels.values(), strict=True):
    goldfish, pug, everything = axes.get_lines()
    chosen = goldfish.get_xdata()
    assert len(chosen) == 50 and chosen[0] == 0 and chosen[-1] == 119
    assert set(np.diff(chosen)) <= {2, 3}
    np.testing.assert_array_equal(goldfish.get_ydata(), block.mean[3, chosen])
    np.testing.assert_array_equal(pug.get_ydata(), block.mean[0, chosen])
    np.testing.assert_array_equal(everything.get_ydata(), block.all_mean[chosen])
    assert everything.get_color() == 'black' and everything.get_linestyle() == '--'
    assert axes.get_xlabel() == 'channel'
    low, high = axes.get_ylim()
    assert -0.1 < low < 0 and 1 < high < 1.1
  rows = [axes.get_ylabel() for axes in figure.axes]
  assert rows == ['activation', '', ''] * 2


def test_lines_of_many_classes_differ(blocks):
  labels = {f'class {i}': i for i in range(9)}
  figure = activation_figures.classes({'SE_2_1': blocks['SE_2_1']}, labels, 50, 'title')
  lines = figure.axes[0].get_lines()
  assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 10


def test_figure_within_classes(blocks):
  panels = {name: blocks[name] for name in RESNET50}
  figure = activation_figures.within_class(panels, {'goldfish': 3, 'plane': 0}, 500, 'title')
  assert [axes.get_title() for axes in figure.axes] == RESNET50
  assert legend_of(figure) == [
    f'{name}, mean ± standard deviation' for name in ('goldfish', 'plane')
  ]
  axes, block = figure.axes[5], blocks[RESNET50[5]]
  assert [len(line.get_xdata()) for line in axes.get_lines()] == [120, 120]  # it has no more
  band = axes.collections[0].get_paths()[0].get_extents()
  np.testing.assert_allclose(band.y1, (block.mean[3] + block.std[3]).max())
  np.testing.assert_allclose(band.y0, (block.mean[3] - block.std[3]).min())


def test_figure_of_the_separation(blocks):
  summaries = {name: block.summary() for name, block in blocks.items()}
  constant = made_up([[0.5, 0.25]] * 2, [[0.5, 0.25]] * 2)
  summaries['SE_5_2'] = constant.summary()
  figure = activation_figures.separation(summaries, 'title')
  ratio, pattern, ends = figure.axes
  line, still = ratio.get_lines()
  assert still.get_xdata() == [RESNET50.index('SE_5_2')]
  expected = [np.nan if s['separation'] is None else s['separation'] for s in summaries.values()]
  np.testing.assert_array_equal(line.get_ydata(), expected)
  agreement, mean = pattern.get_lines()
  assert list(agreement.get_ydata()) == [s['agreement'] for s in summaries.values()]
  assert list(mean.get_ydata()) == [s['mean'] for s in summaries.values()]
  below, above = ends.containers
  assert [bar.get_height() for bar in below] == [25] * 16
  assert [(bar.get_y(), bar.get_height()) for bar in above] == [(25, 12.5)] * 16
  assert [text.get_text() for text in ends.get_xticklabels()] == RESNET50
  assert [t.get_text() for t in ends.get_legend().get_texts()] == ['below 0.05', 'above 0.95']
  relu = activation_figures.separation(summaries, '', activations.SATURATED['relu'])
  assert len(relu.axes[2].containers) == 1


# --- the command ---------------------------------------------------------------------------------


def test_files_are_whole(output):
  written = {path.name for path in output.iterdir()}
  figures = {'classes.png', 'within_class.png', 'separation.png'}
  assert written == {*figures, 'separation.json', 'activations.npz', 'activations.csv'}
  for name in figures:
    with Image.open(output / name) as image:
      image.load()
      assert image.format == 'PNG' and 800 < image.width < 1300


def test_nothing_is_left_of_a_figure_that_fails(blocks, tmp_path, monkeypatch):
  figure = activation_figures.classes({'SE_2_1': blocks['SE_2_1']}, {'a': 0}, 50, '')
  path = tmp_path / 'classes.png'
  look.save(figure, path)
  kept = path.read_bytes()

  def full(partial, **_):
    partial.write_bytes(b'half')
    raise OSError('no space')

  monkeypatch.setattr(figure, 'savefig', full)
  with pytest.raises(OSError, match='no space'):
    look.save(figure, path)
  assert path.read_bytes() == kept and list(tmp_path.iterdir()) == [path]


def test_table_is_that_of_the_arrays(output):
  with (output / 'activations.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  found = np.load(output / 'activations.npz')
  table = {(r['block'], r['class'], int(r['channel'])): (r['mean'], r['std']) for r in rows}
  sizes = {name: found[f'{name}/mean'].shape[1] for name in found['blocks']}
  assert len(table) == len(rows) == 11 * sum(sizes.values())
  for name in ('SE_2_1', 'SE_4_2'):
    for channel in (0, sizes[name] - 1):
      mean, std = map(float, table[name, '7', channel])
      assert mean == found[f'{name}/mean'][7, channel]
      assert std == found[f'{name}/std'][7, channel]
      everything = found[f'{name}/all_mean'][channel]
      assert table[name, 'all classes', channel] == (str(everything), '')


def test_chosen_classes_and_blocks(workdir, tmp_path, capsys, monkeypatch):
  drawn = {}

  def draw(kind, blocks, labels, channels, title, limits):
    drawn[kind] = list(blocks), labels, channels
    return original[kind](blocks, labels, channels, title, limits)

  original = {k: getattr(activation_figures, k) for k in ('classes', 'within_class')}
  for kind in original:
    monkeypatch.setattr(activation_figures, kind, functools.partial(draw, kind))
  arguments = [f'--workdir={workdir}', f'--output={tmp_path}', '--channels=5', '--checkpoint=12']
  chosen = ['--classes=8,1', '--within=3', '--blocks=SE_4_1,SE_2_1', '--split=test[:300]']
  tool.main([*arguments, *chosen])
  assert drawn['classes'] == (['SE_4_1', 'SE_2_1'], {'8': 8, '1': 1}, 5)
  assert drawn['within_class'] == (['SE_4_1', 'SE_2_1'], {'3': 3}, 5)
  found = np.load(tmp_path / 'activations.npz')
  assert found['labels'].tolist() == [8, 1, 3] and found['SE_4_2/mean'].shape == (3, 16)
  out = capsys.readouterr().out
  assert re.match(r'se_resnet20_cifar, step 12, on digits test\[:300\]: 300 images of 10 cl', out)
  assert out.splitlines()[-1] == f'figures and numbers: {tmp_path}'
  assert len(re.findall(r'^SE_\d_\d ', out, re.MULTILINE)) == 4
  tool.main([*arguments, '--blocks=all'])
  every = found['blocks'].tolist()
  assert drawn['classes'] == (every, {'0': 0, '2': 2, '4': 4, '7': 7, '9': 9}, 5)
  assert drawn['within_class'] == (every, {'0': 0, '4': 4}, 5)


def test_names_for_people():
  names = ['n02012849', 'n03126707', 'n01440764', 'rose']
  readable = {'n02012849': 0, 'n03126707': 1, 'tench': 2, 'rose': 3}
  assert class_names.distinct(names, [0, 1, 2, 3]) == readable
  assert class_names.distinct(names, [3, 1]) == {'rose': 3, 'crane': 1}


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--classes=3,x'], r"--classes='x' is unknown \(allowed: 0, 1, .* 9\)"),
    (['--within=11'], r"--within='11' is unknown; did you mean '1'"),
    (['--classes=,'], r"--classes: ',' must be names with commas"),
    (['--blocks=SE_2_9'], r"--blocks='SE_2_9' is unknown; did you mean 'SE_2_1'"),
    (['--images_per_class=1'], '--images_per_class=1 must be at least 2'),
    (['--channels=1'], '--channels=1 must be at least 2'),
    (['--checkpoint=9'], "no checkpoint '9'"),
    (['--split=test[:12]', '--classes=7,8'], r"class '8' has one image in digits test\[:12\]"),
    (['--split=test[:3]', '--classes=1'], r"class '1' has no image in .* choose other --classes"),
    (['--split=tset'], "'tset' is unknown"),
    (['--batch_size=0'], "--batch_size: '0' must be an integer"),
    (['--output=/dev/null/x'], 'a part of the path is a file'),
  ],
)
def test_mistakes(arguments, message, workdir, tmp_path, monkeypatch, capsys):
  given = [f'--workdir={workdir}', f'--output={tmp_path / "out"}', *arguments]
  error = complaint(tool.main, given, monkeypatch, capsys)
  assert re.fullmatch(rf'senet_jax: [^\n]*{message}[^\n]*\n', error)
  assert not list(tmp_path.glob('out/*'))


def test_checkpoint_without_se(tmp_path, monkeypatch, capsys):
  workdir = tmp_path / 'plain'
  config = configuration(model__name='resnet20_cifar', model__depths=(1,), steps=1)
  config.model.se = config_lib.default().model.se
  assert train(config, workdir)
  capsys.readouterr()
  output = tmp_path / 'out'
  error = complaint(tool.main, [f'--workdir={workdir}', f'--output={output}'], monkeypatch, capsys)
  expected = f'--workdir={workdir} is of resnet20_cifar: the network has no SE blocks; use one'
  assert error == f'senet_jax: {expected} that has.\n'
  assert not output.exists()
  shutil.rmtree(workdir)
