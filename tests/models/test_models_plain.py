"""VGG, MobileNet and ShuffleNet: what they cost, their options, the same numbers as in torch."""

import collections
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import BatchNormConfig, SEConfig, excitations
from senet_jax.models import create_model, list_models, model_info
from senet_jax.models.shufflenet import channel_shuffle
from senet_jax.models.vgg import _adaptive_mean
from tests.helpers.models import count, some_images, tree_of, variables_of
from tests.helpers.torch_parity import SE, F, near, nn, randomized, to_flax, torch
from tests.helpers.torch_zoo import import_timm

# Counted with hooks in independent torch definitions: network, overrides, SE options; without SE
# parameters, BN statistics and MACs; with SE parameters without and with its biases, multiply-adds
# of its fully connected layers, elements squeezed.
ROWS = [
  ('vgg16_bn', {}, {}, 138_365_992, 8_448, 15_470_264_320,
   138_592_296, 138_596_784, 226_304, 13_547_520),
  ('vgg16_bn', {'conv_bias': False}, {}, 138_361_768, 8_448, 15_470_264_320,
   138_588_072, 138_592_560, 226_304, 13_547_520),
  ('mobilenet_v1', {}, {}, 4_231_976, 21_888, 568_740_352,
   4_711_720, 4_718_044, 479_744, 2_709_504),
  ('mobilenet_v1', {}, {'position': 'conv3x3'}, 4_231_976, 21_888, 568_740_352,
   4_580_776, 4_586_046, 348_800, 1_931_776),
  ('shufflenet_v1_g3', {}, {}, 1_865_728, 24_480, 137_460_672,
   2_476_144, 2_484_533, 610_416, 1_604_064),
  ('shufflenet_v1_g3', {}, {'position': 'post'}, 1_865_728, 24_480, 137_460_672,
   2_585_728, 2_594_908, 720_000, 1_693_440),
  ('shufflenet_v1_g3', {'bottleneck_of': 'branch'}, {}, 1_814_734, 23_736, 127_061_304,
   2_425_150, 2_433_539, 610_416, 1_604_064),
  ('shufflenet_v1_g3', {'bottleneck_of': 'branch'}, {'position': 'post'}, 1_814_734, 23_736,
   127_061_304, 2_534_734, 2_543_914, 720_000, 1_693_440),
]  # fmt: skip
NAMES = ('vgg16_bn', 'mobilenet_v1', 'shufflenet_v1_g3')
SE_NAMES = tuple(f'se_{name}' for name in NAMES)


def _row_id(row):
  return '-'.join((row[0], *row[1], *map(str, row[1].values()), *row[2].values()))


@pytest.mark.parametrize('kind', ['plain', 'no_bias', 'bias'])
@pytest.mark.parametrize('row', ROWS, ids=_row_id)
def test_networks_cost_what_independent_definitions_cost(row, kind):
  name, overrides, options, params, stats, macs, no_bias, bias, se_macs, squeezed = row
  if kind == 'plain':
    cost = complexity(create_model(name, **overrides), 224)
    assert (cost.params, cost.batch_stats, cost.macs) == (params, stats, macs)
    return
  se = SEConfig(use_bias=kind == 'bias', **options)
  cost = complexity(create_model(f'se_{name}', se=se, **overrides), 224)
  total = bias if se.use_bias else no_bias
  assert (cost.params, cost.batch_stats, cost.macs) == (total, stats, macs + se_macs)
  assert (cost.se_params, cost.se_macs) == (total - params, se_macs)
  assert (cost.se_weights, cost.squeezed_elements) == (no_bias - params, squeezed)
  # 216 channels over 16 is no integer; everywhere else equation 5 is exact.
  first = 2 * 216 * (216 / 16 - 216 // 16) if name.startswith('shuffle') else 0
  assert cost.equation_5 == se_macs + (first if options.get('position') != 'post' else 0)


@pytest.mark.parametrize(
  ('name', 'params'),
  [
    ('vgg16_bn', 138_365_992 - 990 * 4097),
    ('se_mobilenet_v1', 4_718_044 - 990 * 1025),
    ('se_shufflenet_v1_g3', 2_484_533 - 990 * 961),
  ],
)
def test_classes(name, params):
  assert count(tree_of(create_model(name, 10))['params']) == params


# The published width multipliers; parameters of timm's definitions (its `channel_multiplier`).
@pytest.mark.parametrize(
  ('width', 'params'), [(8, 470_072), (16, 1_331_592), (24, 2_585_560)], ids=['1/4', '1/2', '3/4']
)
def test_width_of_mobilenet(width, params):
  assert count(tree_of(create_model('mobilenet_v1', width=width))['params']) == params


# Channels and groups of table 1 of the ShuffleNet paper, with its complexity in millions.
@pytest.mark.parametrize(
  ('groups', 'width', 'macs'), [(1, 144, 143), (2, 200, 140), (4, 272, 133), (8, 384, 137)]
)
def test_groups_of_shufflenet(groups, width, macs):
  model = create_model('shufflenet_v1_g3', groups=groups, width=width)
  assert complexity(model, 224).macs / 1e6 == pytest.approx(macs, abs=1.5)


def test_pooling_to_the_classifier_of_vgg_has_no_macs():
  small, large = (complexity(create_model('vgg16_bn', width=8), size) for size in (224, 448))
  assert large.stages['head'] == small.stages['head']


@pytest.mark.parametrize(
  ('name', 'family', 'published', 'se_published'),
  [
    ('vgg16_bn', 'vgg', ('table_2', 27.02, 8.81, 15.47), ('table_2', 25.22, 7.70, 15.48)),
    (
      'mobilenet_v1',
      'mobilenet',
      ('table_3', 28.4, 9.4, 0.569, 4.2e6),
      ('table_3', 25.3, 7.7, 0.572, 4.7e6),
    ),
    (
      'shufflenet_v1_g3',
      'shufflenet',
      ('table_3', 32.6, 12.5, 0.140, 1.8e6),
      ('table_3', 31.0, 11.1, 0.142, 2.4e6),
    ),
  ],
)
def test_model_info(name, family, published, se_published):
  for full, (table, top1, top5, gflops, *params) in (
    (name, published),
    (f'se_{name}', se_published),
  ):
    info = model_info(full)
    assert (info.family, info.se) == (family, full != name)
    assert (info.image_size, info.num_classes, info.bn_epsilon) == (224, 1000, 1e-5)
    assert info.preprocessing.mean == (123.0, 117.0, 104.0)
    assert (info.preprocessing.std, info.preprocessing.resize) == ((1.0, 1.0, 1.0), 256)
    assert info.paper.startswith(table.replace('_', ' '))
    assert info.published[table] == {'top1_error': top1, 'top5_error': top5}
    assert (info.published['gflops'], [info.published.get('params')]) == (gflops, params or [None])


@pytest.mark.parametrize('name', SE_NAMES)
def test_variable_tree_does_not_depend_on(name):
  expected = tree_of(create_model(name))
  for options in (
    {'dtype': jnp.bfloat16},
    {'bn': BatchNormConfig(scope='ghost', ghost_size=32)},
    {'se': SEConfig(fused=False, squeeze='max', excitation='tanh')},
  ):
    assert tree_of(create_model(name, **options)) == expected
  model = create_model(name)
  images = jax.ShapeDtypeStruct((2, 75, 49, 3), jnp.uint8)
  init = functools.partial(model.init, train=True)
  assert jax.eval_shape(init, jax.random.key(0), images) == expected


GATES = {
  'se_vgg16_bn': {1: [64] * 2, 2: [128] * 2, 3: [256] * 3, 4: [512] * 3, 5: [512] * 3},
  'se_mobilenet_v1': {1: [64], 2: [128] * 2, 3: [256] * 2, 4: [512] * 6, 5: [1024] * 2},
  'se_shufflenet_v1_g3': {2: [216] + [240] * 3, 3: [240] + [480] * 7, 4: [480] + [960] * 3},
}


@pytest.mark.parametrize('stages', ['all', (2,), (3, 4)], ids=str)
@pytest.mark.parametrize('name', SE_NAMES)
def test_gates_go_by_stage_and_unit(name, stages):
  model = create_model(name, se=SEConfig(stages=stages))
  apply = functools.partial(model.apply, train=False, mutable=['intermediates'])
  _, new = jax.eval_shape(apply, tree_of(model), jnp.zeros((2, 32, 32, 3)))
  assert {k: v.shape for k, v in excitations(new['intermediates']).items()} == {
    f'SE_{stage}_{unit}': (2, channels)
    for stage, widths in GATES[name].items()
    for unit, channels in enumerate(widths, start=1)
    if stages == 'all' or stage in stages
  }


@pytest.mark.parametrize(
  ('position', 'channels'),
  [
    ('standard', [216, 240]),
    ('pre', [24, 240]),
    ('post', [240, 240]),
    ('identity', [24, 240]),
    ('conv3x3', [60, 60]),
  ],
)
def test_positions_of_shufflenet(position, channels):
  tree = tree_of(create_model('se_shufflenet_v1_g3', se=SEConfig(position=position)))
  units = [tree['params'][f'stage2_block{i}'] for i in (1, 2)]
  assert [unit['se']['fc2']['bias'].size for unit in units] == channels


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('se_vgg16_bn', {'se': SEConfig(position='pre')}, r"se\.position='pre' .*\(allowed: standard"),
    ('se_vgg16_bn', {'dropout': 1.0}, r'model\.dropout=1\.0 must be at least 0 and below 1'),
    ('se_vgg16_bn', {'conv_bais': True}, "did you mean 'conv_bias'"),
    ('se_mobilenet_v1', {'se': SEConfig(position='post')}, r"position='post' .*standard, conv3x3"),
    ('vgg16_bn', {'head': 'slide'}, r"model\.head='slide' is unknown; did you mean 'sliding'"),
    ('mobilenet_v1', {'activation': 'relu7'}, r"model\.activation='relu7' .*relu, relu6"),
    ('se_shufflenet_v1_g3', {'se': SEConfig(stages=(4, 5))}, r'se\.stages=5 .*allowed: 2, 3, 4\)'),
    ('shufflenet_v1_g3', {'groups': 7}, r'model\.groups=7 must divide .*\(240, 216, 60\)'),
    ('shufflenet_v1_g3', {'groups': 0}, r'model\.groups=0 must divide'),
    ('shufflenet_v1_g3', {'width': 24}, r'\(24, 0, 6\) in the first unit'),
    ('shufflenet_v1_g3', {'bottleneck_of': 'output'}, r"bottleneck_of='output' .*unit, branch"),
    ('shufflenet_v1_g3', {'pool_align': 'tf'}, r"model\.pool_align='tf'"),
  ],
)
def test_mistakes_are_named(name, options, message):
  with pytest.raises(UserError, match=message) as caught:
    create_model(name, **options)
  assert '\n' not in str(caught.value)


def test_images_that_are_too_small_for_vgg():
  images = jax.ShapeDtypeStruct((1, 64, 31, 3), jnp.float32)
  init = functools.partial(create_model('vgg16_bn').init, train=False)
  with pytest.raises(UserError, match=r'images of 64x31 pixels .*at least 32x32'):
    jax.eval_shape(init, jax.random.key(0), images)


# Forward and backward passes of small versions.

SMALL = {
  'se_vgg16_bn': {'width': 8, 'depths': (1,) * 5, 'fc_width': 16, 'conv_bias': False},
  'se_mobilenet_v1': {'width': 8, 'depths': (1,) * 5},
  'se_shufflenet_v1_g3': {'width': 24, 'stem_width': 12, 'depths': (2, 1, 1)},
}


def small(name, **options):
  return create_model(name, **{'num_classes': 5, 'se': SEConfig(ratio=2), **SMALL[name], **options})


def training_step(model, images, variables):
  """Gradients, logits and new statistics."""

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def step(params):
    logits, new = model.apply(
      {**variables, 'params': params},
      images,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(2)},
    )
    return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[:, 0]), (logits, new['batch_stats'])

  gradients, (logits, stats) = step(variables['params'])
  return gradients, logits, stats


@pytest.mark.parametrize('name', SE_NAMES)
def test_every_variable_takes_part_in_training(name):
  model, images = small(name), some_images(2, 64)
  variables = variables_of(model, images)
  gradients, logits, stats = training_step(model, images, variables)
  assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
  for path, gradient in jax.tree.leaves_with_path(gradients):
    assert np.isfinite(gradient).all(), path
    assert np.any(gradient), f'{path} does not take part'
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), stats, variables['batch_stats'])
  for path, value in jax.tree.leaves_with_path(moved):
    assert value, f'{path} is not updated'


@pytest.mark.parametrize('name', SE_NAMES)
def test_batch_of_one(name):
  model, images = small(name), some_images(2, 32)
  variables = variables_of(model, images)
  apply = jax.jit(functools.partial(model.apply, train=False))
  both = apply(variables, images)
  # Images do not see each other in evaluation, and one image has statistics to train on.
  spread = np.abs(both[0] - both[1]).max()
  assert np.abs(apply(variables, images[1:]) - both[1:]).max() < 1e-3 * spread
  gradients, logits, _ = training_step(model, images[:1], variables)
  assert logits.shape == (1, 5)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, logits)))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', [*NAMES, *SE_NAMES])
def test_dtypes_and_sizes(name, dtype):
  model = create_model(name, dtype=dtype)
  variables = tree_of(model)
  logits, new = jax.eval_shape(
    functools.partial(
      model.apply,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      rngs={'dropout': jax.random.key(0)},
      capture_intermediates=lambda module, _: 'block' in (module.name or ''),
    ),
    variables,
    jax.ShapeDtypeStruct((2, 224, 224, 3), dtype),
  )
  assert logits == jax.ShapeDtypeStruct((2, 1000), jnp.float32)
  kept = jax.tree.leaves(variables) + jax.tree.leaves(new['batch_stats'])
  assert {leaf.dtype for leaf in kept} == {jnp.dtype('float32')}
  outputs = {
    int(key[5]): value['__call__'][0]
    for key, value in new['intermediates'].items()
    if key.endswith('block1')
  }
  assert {output.dtype for output in outputs.values()} == {jnp.dtype(dtype)}
  stem = {'vgg': 2, 'mobilenet': 1, 'shufflenet': 1}[model_info(name).family]
  assert {s: x.shape[1:3] for s, x in outputs.items()} == {
    s: (224 * stem // 2**s // (2 if 'shuffle' in name else 1),) * 2 for s in outputs
  }


@pytest.mark.parametrize('name', SE_NAMES)
def test_bfloat16_logits(name):
  images = some_images(2, 32)
  full, half = small(name), small(name, dtype='bfloat16')
  variables = variables_of(full, images)
  expected, logits = (jax.jit(functools.partial(m.apply, train=False))(variables, images)
                      for m in (full, half))  # fmt: skip
  assert logits.dtype == jnp.float32
  assert 0 < np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()


def test_initialisation_keeps_the_scale_of_activations():
  model = create_model('mobilenet_v1', width=16)
  images = some_images(2, 64)
  variables = variables_of(model, images)
  kernel = variables['params']['stage5_block2']['depthwise_conv']['kernel']
  np.testing.assert_allclose(kernel.std(), math.sqrt(2 / 9), rtol=0.05)
  _, new = jax.jit(
    functools.partial(model.apply, train=False, capture_intermediates=True, mutable='intermediates')
  )(variables, images)
  # Thirteen variances for as many outputs as there are channels would leave 1e-25.
  assert np.square(new['intermediates']['stage5_block2']['__call__'][0]).mean() > 1e-5


def test_dropout_of_vgg():
  model, images = small('se_vgg16_bn', fc_width=512), some_images(2, 32)
  variables = variables_of(model, images)

  @functools.partial(jax.jit, static_argnames='train')
  def outputs(seed, train):
    _, new = model.apply(
      variables,
      images,
      train=train,
      mutable=['batch_stats', 'intermediates'],
      rngs={'dropout': jax.random.key(seed)},
      capture_intermediates=lambda module, _: (module.name or '').startswith('fc'),
    )
    return {name: value['__call__'][0].reshape(2, -1) for name, value
            in new['intermediates'].items() if name.startswith('fc')}  # fmt: skip

  for name in ('fc6', 'fc7'):
    for train in (True, False):
      found = outputs(0, train)
      active, dropped = jax.nn.relu(found[name]), found[f'{name}_dropout']
      share = np.mean((dropped == 0)[active > 0])
      assert abs(share - 0.5 * train) < 0.1
      np.testing.assert_allclose(dropped, np.where(dropped == 0, 0, active * (1 + train)))
  assert np.any(outputs(0, True)['fc'] != outputs(1, True)['fc'])
  assert np.array_equal(outputs(0, False)['fc'], outputs(1, False)['fc'])


def test_no_dropout_needs_no_random_numbers():
  model, images = small('se_vgg16_bn', dropout=0.0), some_images(2, 32)
  apply = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  logits, _ = jax.eval_shape(apply, tree_of(model), images)
  assert logits.shape == (2, 5)


def test_channel_shuffle():
  x = jnp.arange(12.0).reshape(1, 1, 2, 6)
  expected = [[0, 2, 4, 1, 3, 5], [6, 8, 10, 7, 9, 11]]  # From groups 01 23 45.
  np.testing.assert_array_equal(channel_shuffle(x, 3)[0, 0], expected)
  shuffled = nn.ChannelShuffle(3)(torch.from_numpy(np.array(x).transpose(0, 3, 1, 2)))
  np.testing.assert_array_equal(channel_shuffle(x, 3), shuffled.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize('size', [1, 2, 5, 7, 9, 14, 16])
def test_adaptive_mean(size):
  x = np.random.default_rng(0).standard_normal((2, size, 3, 4)).astype('f4')
  expected = nn.AdaptiveAvgPool2d((7, 3))(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
  actual = _adaptive_mean(jnp.asarray(x), axis=1, bins=7)
  np.testing.assert_allclose(actual, expected.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


# The same weights in torch.


def torchvision_vgg(width=8, fc_width=24, classes=6, ratio=0, dropout=0.0):
  """torchvision's VGG-16 with BN, with fewer channels and SE modules behind its ReLUs."""
  _, torchvision = import_timm()
  vgg = torchvision.models.vgg
  layout = [x if x == 'M' else x * width // 64 for x in vgg.cfgs['D']]
  # Its own layers for 512 channels would be 120 million weights.
  network = vgg.VGG(nn.Sequential(), init_weights=False)
  network.features = vgg.make_layers(layout, batch_norm=True)
  relu, drop = nn.ReLU(), nn.Dropout(dropout)
  first, second = nn.Linear(49 * layout[-2], fc_width), nn.Linear(fc_width, fc_width)
  head = nn.Linear(fc_width, classes)
  network.classifier = nn.Sequential(first, relu, drop, second, relu, drop, head)
  for i, layer in enumerate(network.features if ratio else ()):
    if isinstance(layer, nn.ReLU):
      channels = network.features[i - 1].num_features
      network.features[i] = named(relu=layer, se=SE(channels, ratio))
  return network


def named(**modules):
  return nn.Sequential(collections.OrderedDict(modules))


def vgg_names(network):
  """Where torchvision's layers are here, and the torch module at the end of each stage."""
  renames, ends, stage, block = {}, {}, 1, 1
  for i, layer in enumerate(network.features):
    if isinstance(layer, nn.MaxPool2d):
      ends[f'stage{stage}_block{block - 1}'] = network.features[i - 1]
      stage, block = stage + 1, 1
    elif isinstance(layer, nn.Conv2d):
      unit = f'stage{stage}_block{block}'
      renames |= {f'features.{i}': f'{unit}.conv', f'features.{i + 1}': f'{unit}.bn'}
      renames[f'features.{i + 2}.se'] = f'{unit}.se'
      block += 1
  torchvisions = {'classifier.0': 'fc6', 'classifier.3': 'fc7', 'classifier.6': 'fc'}
  timms = {'pre_logits.fc1': 'fc6', 'pre_logits.fc2': 'fc7', 'head.fc': 'fc'}
  return renames | torchvisions | timms, ends


def timm_vgg(width=8, classes=6):
  """timm's VGG-16 with BN, with fewer channels; its hidden layers have 4096 units always."""
  timm, _ = import_timm()
  vgg = timm.models.vgg
  layout = [x if x == 'M' else x * width // 64 for x in vgg.cfgs['vgg16']]
  return vgg.VGG(layout, classes, norm_layer=nn.BatchNorm2d)


def timm_mobilenet(depths=(1, 2, 2, 6, 2), ratio=0, position='standard', **options):
  """timm's MobileNet v1, with SE modules behind the pointwise or the depthwise convolutions."""
  timm, _ = import_timm()
  network = timm.create_model('mobilenetv1_100', num_classes=6, **options)
  for i, depth in enumerate(depths):
    network.blocks[i] = network.blocks[i][:depth]
  for stage in network.blocks if ratio else ():
    for unit in stage:
      if position == 'standard':
        unit.bn2 = named(bn=unit.bn2, se=SE(unit.conv_pw.out_channels, ratio))
      else:
        unit.se = SE(unit.conv_dw.out_channels, ratio)
  return network


def mobilenet_names(network):
  renames = {'conv_stem': 'stem_conv', 'bn1': 'stem_bn', 'classifier': 'fc'}
  ends = {}
  for i, stage in enumerate(network.blocks):
    for j, unit in enumerate(stage):
      name, old = f'stage{i + 1}_block{j + 1}', f'blocks.{i}.{j}'
      renames |= {
        f'{old}.conv_dw': f'{name}.depthwise_conv',
        f'{old}.bn1': f'{name}.depthwise_bn',
        f'{old}.conv_pw': f'{name}.pointwise_conv',
        f'{old}.bn2': f'{name}.pointwise_bn',
        f'{old}.bn2.bn': f'{name}.pointwise_bn',
        f'{old}.bn2.se': f'{name}.se',
        f'{old}.se': f'{name}.se',
      }
      ends[name] = unit
  return renames, ends


class TorchShuffleUnit(nn.Module):
  """Figure 2 (b) and (c) of the ShuffleNet paper."""

  def __init__(self, inputs, outputs, groups, first, quarter, ratio, position):
    super().__init__()
    self.strided = inputs != outputs
    branch = outputs - inputs if self.strided else outputs
    middle = (outputs if quarter == 'unit' else branch) // 4
    self.conv1 = nn.Conv2d(inputs, middle, 1, groups=1 if first else groups, bias=False)
    self.conv2 = nn.Conv2d(
      middle, middle, 3, 2 if self.strided else 1, 1, groups=middle, bias=False
    )
    self.conv3 = nn.Conv2d(middle, branch, 1, groups=groups, bias=False)
    self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(c) for c in (middle, middle, branch))
    self.shuffle = nn.ChannelShuffle(groups)
    if ratio:
      channels = {'standard': branch, 'post': outputs, 'conv3x3': middle}
      self.se = SE(channels.get(position, inputs), ratio)
    self.position = position if ratio else None

  def gate(self, position, x):
    return self.se(x) if position == self.position else x

  def forward(self, x):
    y = self.shuffle(F.relu(self.bn1(self.conv1(self.gate('pre', x)))))
    y = self.gate('conv3x3', self.bn2(self.conv2(y)))
    y = self.gate('standard', self.bn3(self.conv3(y)))
    if self.strided:
      x = self.gate('identity', F.avg_pool2d(x, 3, 2, 1))
      return self.gate('post', torch.cat([x, F.relu(y)], 1))
    return self.gate('post', F.relu(self.gate('identity', x) + y))


class TorchShuffleNet(nn.Module):
  """Table 1 of the ShuffleNet paper, for three groups."""

  def __init__(self, width, depths=(4, 8, 4), quarter='unit', ratio=0, position='standard'):
    super().__init__()
    groups, stem = 3, 24
    self.stem_conv, self.stem_bn = nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem)
    self.units = nn.ModuleDict()
    inputs = stem
    for stage, depth in enumerate(depths, start=2):
      for block in range(1, depth + 1):
        outputs, first = width * 2 ** (stage - 2), (stage, block) == (2, 1)
        unit = TorchShuffleUnit(inputs, outputs, groups, first, quarter, ratio, position)
        self.units[f'stage{stage}_block{block}'] = unit
        inputs = outputs
    self.fc = nn.Linear(inputs, 6)

  def forward(self, x):
    x = F.max_pool2d(F.relu(self.stem_bn(self.stem_conv(x))), 3, 2, 1)
    for unit in self.units.values():
      x = unit(x)
    return self.fc(x.mean((2, 3)))


def shufflenet_names(network):
  return {f'units.{name}': name for name in network.units}, dict(network.units)


def renamed(tensors, renames):
  """`tensors` by the longest prefix of their names in `renames`."""
  result = {}
  for name, tensor in tensors.items():
    parts = name.split('.')
    prefixes = ['.'.join(parts[:n]) for n in range(len(parts), 0, -1)]
    old = next((prefix for prefix in prefixes if prefix in renames), None)
    result[renames[old] + name[len(old) :] if old else name] = tensor
  return result


def with_random_weights(network, images):
  """Random weights, and statistics that are random around those of `images`.

  Under any others deep networks would see hardly a difference between images.
  """
  randomized(network)
  norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
  generator = torch.Generator().manual_seed(2)
  with torch.no_grad():
    for norm in norms:
      norm.weight.uniform_(0.5, 1.5, generator=generator)
      norm.momentum = 1.0
    network.train()(images)
    for norm in norms:
      deviation = norm.running_var.sqrt()
      norm.running_mean += 0.3 * deviation * torch.randn(len(deviation), generator=generator)
      norm.running_var *= torch.empty_like(deviation).uniform_(0.5, 1.5, generator=generator)
      for tensor in (norm.weight, norm.running_mean, norm.running_var):
        tensor.copy_(tensor.float())
  return network


def torch_images(images):
  return torch.from_numpy(images.transpose(0, 3, 1, 2)).double()


def variables_from(tensors, renames):
  """Torch's `{name: tensor}` as Flax variables."""
  tensors = renamed(tensors, renames)
  fc6, fc7 = 'fc6.weight', 'fc7.weight'
  if fc6 in tensors:  # It reads maps of 7x7, channels first in torch; timm has convolutions.
    maps = tensors[fc6].reshape(len(tensors[fc6]), -1, 7, 7)
    tensors[fc6] = maps.permute(0, 2, 3, 1).flatten(1)
    tensors[fc7] = tensors[fc7].flatten(1)
  return to_flax(tensors)


def photos(n, height, width, seed=1):
  """Random images of different brightness, contrast and colour, smooth and rough."""
  rng = np.random.default_rng(seed)
  coarse = rng.standard_normal((n, -(-height // 8), -(-width // 8), 3))
  coarse = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
  fine = rng.standard_normal((n, height, width, 3))
  contrast, colour = rng.uniform(0.3, 1.5, (n, 1, 1, 1)), rng.standard_normal((n, 1, 1, 3))
  return (contrast * (coarse + 0.3 * fine) + colour).astype('f4')


def same(actual, expected, what, tolerance=1e-4):
  """Equal to `tolerance` of what different images differ by."""
  assert actual.shape == expected.shape, what
  spread = np.abs(expected[1:] - expected[:1]).max()
  assert spread > 0.1 * np.abs(expected).max(), what
  error = np.abs(np.asarray(actual) - expected).max() / spread
  assert error < tolerance, f'{what}: {error:.1e}'


def compare(model, network, names, size, tolerance=1e-4):
  """Compares logits and activations, of every stage or unit, of an evaluation."""
  images = photos(3, *size)
  renames, ends = names(with_random_weights(network, torch_images(images)).eval())
  variables = variables_from(network.state_dict(), renames)
  expected = {}
  for name, module in ends.items():
    module.register_forward_hook(
      lambda _, inputs, output, name=name: expected.update({name: output})
    )
  with torch.no_grad():
    logits = network(torch_images(images)).numpy()
  shapes = jax.tree.map(lambda leaf: leaf.shape, tree_of(model))
  assert shapes == jax.tree.map(np.shape, variables)

  @jax.jit
  def run(variables, images):
    logits, new = model.apply(
      variables,
      images,
      train=False,
      capture_intermediates=lambda module, _: module.name in ends,
      mutable=['intermediates'],
    )
    return logits, {name: new['intermediates'][name]['__call__'][0] for name in ends}

  actual_logits, actual = run(variables, images)
  assert len(expected) == len(ends) > 2
  for name, output in expected.items():
    same(actual[name], output.numpy().transpose(0, 2, 3, 1), name, tolerance)
  same(actual_logits, logits, 'logits', tolerance)


@pytest.mark.parametrize('size', [(224, 224), (64, 64), (75, 49), (288, 261)], ids=str)
def test_vgg_is_torchvisions(size):
  model = create_model('vgg16_bn', 6, width=8, fc_width=24)
  compare(model, torchvision_vgg(), vgg_names, size)


@pytest.mark.parametrize('size', [(256, 256), (160, 160), (300, 161)], ids=str)
def test_vgg_with_a_sliding_head_is_timms(size):
  model = create_model('vgg16_bn', 6, width=8, head='sliding')
  compare(model, timm_vgg(), vgg_names, size)


def test_se_vgg_is_torchvisions_with_se_behind_each_relu():
  model = create_model('se_vgg16_bn', 6, width=8, fc_width=24, se=SEConfig(ratio=4))
  compare(model, torchvision_vgg(ratio=4), vgg_names, (64, 96))


def test_variables_of_vgg_are_torchvisions():
  _, torchvision = import_timm()
  with torch.device('meta'):
    network = torchvision.models.vgg16_bn(init_weights=False)
  renames, _ = vgg_names(network)
  tensors = {k: v for k, v in network.state_dict().items() if not k.endswith('tracked')}
  counts = {k: v.numel() for k, v in renamed(tensors, renames).items()}
  tree = tree_of(create_model('vgg16_bn'))
  kinds = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
  ours = {}
  for path, leaf in jax.tree.leaves_with_path(tree):
    _, *module, kind = (key.key for key in path)
    ours['.'.join((*module, kinds.get(kind, kind)))] = leaf.size
  assert ours == counts


@pytest.mark.parametrize(('activation', 'size'), [('relu', (75, 49)), ('relu6', (64, 64))], ids=str)
def test_mobilenet_is_timms(activation, size):
  model = create_model('mobilenet_v1', 6, activation=activation)
  compare(model, timm_mobilenet(act_layer=activation), mobilenet_names, size)


@pytest.mark.parametrize('position', ['standard', 'conv3x3'])
def test_se_mobilenet_is_timms_with_se(position):
  model = create_model('se_mobilenet_v1', 6, activation='relu6', se=SEConfig(position=position))
  # Gates inside the units, one upon the other, leave 1.6e-4 of float32's rounding.
  tolerance = 3e-4 if position == 'conv3x3' else 1e-4
  network = timm_mobilenet(ratio=16, position=position)
  compare(model, network, mobilenet_names, (64, 64), tolerance)


@pytest.mark.parametrize(
  ('quarter', 'size'), [('unit', (75, 49)), ('unit', (64, 64)), ('branch', (64, 64))], ids=str
)
def test_shufflenet_is_an_independent_one(quarter, size):
  model = create_model('shufflenet_v1_g3', 6, width=60, bottleneck_of=quarter)
  compare(model, TorchShuffleNet(60, quarter=quarter), shufflenet_names, size)


@pytest.mark.parametrize('position', ['standard', 'pre', 'post', 'identity', 'conv3x3'])
def test_se_shufflenet_is_an_independent_one(position):
  # Gate upon gate on the unit's output makes deeper networks sensitive to rounding, torch's too.
  depths, se = (2, 3, 1), SEConfig(ratio=4, position=position)
  model = create_model('se_shufflenet_v1_g3', 6, width=60, depths=depths, se=se)
  network = TorchShuffleNet(60, depths, ratio=4, position=position)
  compare(model, network, shufflenet_names, (64, 64))


GRADIENTS = {
  'se_vgg16_bn': (torchvision_vgg, vgg_names, {'width': 8, 'fc_width': 24, 'dropout': 0.0}),
  'se_mobilenet_v1': (
    functools.partial(timm_mobilenet, (1,) * 5),
    mobilenet_names,
    {'depths': (1,) * 5, 'activation': 'relu6'},
  ),
  'se_shufflenet_v1_g3': (
    functools.partial(TorchShuffleNet, 60, (2, 2, 1)),
    shufflenet_names,
    {'width': 60, 'depths': (2, 2, 1)},
  ),
}


@pytest.mark.parametrize('name', GRADIENTS)
def test_gradients_of_training(name):
  make, names, options = GRADIENTS[name]
  model = create_model(name, 6, se=SEConfig(ratio=8), **options)
  images, labels = photos(4, 64, 64), np.array([0, 3, 5, 1])
  network = with_random_weights(make(ratio=8), torch_images(images)).train()
  renames, _ = names(network)
  variables = variables_from(network.state_dict(), renames)
  loss = F.cross_entropy(network(torch_images(images)), torch.from_numpy(labels))
  loss.backward()
  gradients = {key: p.grad for key, p in network.named_parameters()}
  expected = variables_from(gradients, renames)['params']

  @jax.jit
  @jax.value_and_grad
  def loss_and_gradients(params):
    logits, _ = model.apply(
      {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
    )
    return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(4), labels])

  actual_loss, actual = loss_and_gradients(variables['params'])
  np.testing.assert_allclose(actual_loss, loss.item(), rtol=1e-4)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))

  def check(path, a, b):
    where = jax.tree_util.keystr(path, simple=True, separator='/')
    if np.abs(b).max() < 1e-9 * largest:  # A bias that the next BN takes out again.
      assert where.endswith('bias') and np.abs(a).max() < 1e-4 * largest, where
    else:
      near(a, b, 1e-3, where)

  jax.tree.map_with_path(check, actual, expected)


def test_list():
  assert {*NAMES, *SE_NAMES} <= set(list_models())
