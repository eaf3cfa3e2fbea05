"""Weights from and for torch: the same function, the same bits back, and clear refusals.

The reference networks are those of timm and torchvision, with random weights and statistics.
"""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from senet_jax.errors import UserError
from senet_jax.interop import from_torch, mapping, model_overrides, names, to_torch
from senet_jax.interop.names import TORCH, VARIANTS
from senet_jax.layers import SEConfig, SqueezeExcite
from senet_jax.models import create_model, list_models
from tests.helpers.models import tree_of
from tests.helpers.parity import near
from tests.helpers.torch_zoo import import_timm

timm, torchvision = import_timm()
import torch  # noqa: E402

from tests.helpers.torch_networks import CLASSES, network_of, randomized  # noqa: E402

# Detectors have tests of their own, in test_detectors.py.
CLASSIFIERS = [v for v in VARIANTS.values() if v.model in list_models()]


def arrays_of(network):
  """Its state dict as NumPy arrays."""
  return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


@functools.lru_cache(maxsize=1)  # half a gigabyte, of VGG
def weights_of(variant, num_classes=CLASSES):
  """A state dict of random numbers; nothing is computed with it."""
  with torch.device('meta'):
    network = network_of(variant, num_classes)
  rng = np.random.default_rng(0)
  return {
    name: rng.standard_normal(tensor.shape, np.float32)
    for name, tensor in network.state_dict().items()
    if not name.endswith('num_batches_tracked')
  }


def images_of(size):
  return np.random.default_rng(size).standard_normal((3, size, size, 3), np.float32)


def outputs_of(network, points, images):
  """Outputs of the torch modules `points` and, called '', of the network, channels last."""
  seen = {}
  hooks = [
    network.get_submodule(name).register_forward_hook(
      lambda module, inputs, output, name=name: seen.setdefault(name, []).append(output)
    )
    for name in ['', *points]
  ]
  with torch.no_grad():
    for image in images:  # one by one: in double, a convolution unfolds its whole batch
      network(torch.from_numpy(image.transpose(2, 0, 1))[None].double())
  for hook in hooks:
    hook.remove()
  return {name: np.moveaxis(torch.cat(output).numpy(), 1, -1) for name, output in seen.items()}


def compare(variant, sizes, points, tolerance):
  """Compares logits and the activations at `points`, {torch module: our module}."""
  model_name = VARIANTS[variant].model
  channels = [2, 1, 0] if variant == 'cadene:bninception' else [0, 1, 2]  # which takes blue first
  network = randomized(network_of(variant), sizes[-1])
  arrays = arrays_of(network)
  network.double()  # ours computes in float32
  expected = {size: outputs_of(network, points, images_of(size)[..., channels]) for size in sizes}
  del network  # of which VGG has a gigabyte
  variables = from_torch(model_name, arrays, variant, num_classes=CLASSES)
  exported = to_torch(model_name, variables, variant)
  assert set(exported) == {name for name in arrays if not name.endswith('num_batches_tracked')}
  for name, array in exported.items():
    assert np.array_equal(array, arrays[name]), name
  del arrays, exported
  model = create_model(model_name, CLASSES, **model_overrides(model_name, variant))

  @jax.jit
  def run(variables, images):
    return model.apply(
      variables,
      images,
      train=False,
      capture_intermediates=lambda module, method: (
        method == '__call__' and '/'.join(module.path) in points.values()
      ),
      mutable=['intermediates'],
    )

  for size in sizes:
    logits, state = run(variables, images_of(size))
    near(logits, expected[size].pop(''), tolerance, f'logits at {size}')
    assert set(expected[size]) == set(points)
    for theirs, output in expected[size].items():
      node = state['intermediates']
      for part in points[theirs].split('/'):
        node = node[part]
      near(node['__call__'][0], output, tolerance, f'{theirs} at {size}')


def stages(*depths):
  return {f'layer{i}': f'stage{i + 1}_block{n}' for i, n in enumerate(depths, start=1)}


R18, R26, R34 = stages(2, 2, 2, 2), stages(2, 2, 2, 2), stages(3, 4, 6, 3)
R50 = stages(3, 4, 6, 3)
R101, R152 = stages(3, 4, 23, 3), stages(3, 8, 36, 3)
VGG = {'features.5': 'stage1_block2', 'features.42': 'stage5_block3'}
MOBILENET = {f'blocks.{i}': f'stage{i + 1}_block{n}' for i, n in enumerate((1, 2, 2, 6, 2))}

INCEPTION_V3 = {
  'Mixed_5d': 'stage3_block3', 'Mixed_6e': 'stage4_block5', 'Mixed_7c': 'stage5_block3'
}  # fmt: skip
INCEPTION_RESNET = {
  'repeat': 'stage3_block10', 'repeat_1': 'stage4_block20', 'block8': 'stage5_block10'
}  # fmt: skip

BN_INCEPTION = {
  'conv2_3x3_bn': 'stem_3/bn',
  'inception_4e_double_3x3_2_bn': 'stage4_block5/branch2_3/bn',
}

# Variant, points, sizes: the default one and another.
CASES = [
  ('timm:resnet18', R18, (256, 224)),
  ('timm:legacy_seresnet18', R18, (224, 75)),
  ('timm:seresnet18', R18, (224, 75)),
  ('timm:legacy_seresnet50', R50, (64,)),
  ('timm:seresnext50_32x4d', R50, (75,)),
  ('timm:mobilenetv1_100', MOBILENET, (64, 75)),
  ('akamaster:resnet20', stages(3, 3, 3), (32, 36)),
  ('torchvision:inception_v3', INCEPTION_V3, (96,)),
  ('cadene:bninception', BN_INCEPTION, (224, 160)),
]
SLOW_CASES = [
  ('torchvision:resnet34', R34, (224, 75)),
  ('timm:legacy_seresnet34', R34, (224, 75)),
  ('timm:seresnet34', R34, (224, 75)),
  ('torchvision:resnet50', R50, (224, 75)),
  ('cadene:resnet50', R50, (224, 75)),
  ('timm:legacy_seresnet50', R50, (224, 256, 75)),
  ('timm:seresnet50', R50, (224, 75)),
  ('timm:resnet101', R101, (224, 75)),
  ('cadene:se_resnet101', R101, (224, 75)),
  ('timm:seresnet152', R152, (224, 75)),
  ('torchvision:resnext50_32x4d', R50, (224, 75)),
  ('timm:legacy_seresnext50_32x4d', R50, (224, 75)),
  ('timm:legacy_seresnext26_32x4d', R26, (224, 75)),
  ('timm:seresnext101_32x4d', R101, (224, 75)),
  ('timm:legacy_senet154', R152, (224, 75)),
  ('timm:senet154', R152, (224, 75)),
  ('timm:mobilenetv1_100', MOBILENET, (224, 256)),
  ('timm:vgg16_bn', VGG, (256, 224, 75)),
  ('torchvision:vgg16_bn', VGG, (256, 224, 75)),
  ('timm:inception_v3', INCEPTION_V3, (299, 96)),
  ('torchvision:inception_v3', INCEPTION_V3, (299, 128)),
  ('cadene:inceptionv3', INCEPTION_V3, (299, 96)),
  ('timm:inception_resnet_v2', INCEPTION_RESNET, (299, 139)),
  ('cadene:inceptionresnetv2', INCEPTION_RESNET, (299, 96)),
]


def check(variant, points, sizes):
  # Of forty residual blocks the last ones carry the rounding of all.
  compare(variant, sizes, points, 1e-3 if points is INCEPTION_RESNET else 1e-4)


@pytest.mark.parametrize(('variant', 'points', 'sizes'), CASES, ids=str)
def test_same_function(variant, points, sizes):
  check(variant, points, sizes)


def test_layer_behind_the_convolutions_of_vgg():
  """Torch has a map's channels outside, and ours inside; the whole network is in the slow tier."""
  arrays = weights_of('torchvision:vgg16_bn')
  variables = from_torch('vgg16_bn', arrays, 'torchvision:vgg16_bn', num_classes=CLASSES)
  images = np.random.default_rng(0).standard_normal((2, 7, 7, 512), np.float32)
  expected = images.transpose(0, 3, 1, 2).reshape(2, -1) @ arrays['classifier.0.weight'][:8].T
  kernel = np.asarray(variables['params']['fc6']['kernel'][:, :8])
  np.testing.assert_allclose(images.reshape(2, -1) @ kernel, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(('variant', 'points', 'sizes'), SLOW_CASES, ids=str)
def test_same_function_of_other_networks(variant, points, sizes):
  check(variant, points, sizes)


# --- names, variants ------------------------------------------------------------------------------


@pytest.mark.parametrize('variant', [v.name for v in CLASSIFIERS if v.source in TORCH])
def test_names_and_shapes(variant):
  """Those of every network there is are the ones of the other code base."""
  with torch.device('meta'):
    tensors = network_of(variant).state_dict()
  theirs = {k: tuple(v.shape) for k, v in tensors.items() if not k.endswith('num_batches_tracked')}
  assert {e.name: e.shape for e in mapping.entries(variant, CLASSES)} == theirs


@pytest.mark.parametrize('variant', [v.name for v in CLASSIFIERS])
def test_overrides_of_every_variant_make_a_network(variant):
  model_name = VARIANTS[variant].model
  model = create_model(model_name, CLASSES, **model_overrides(model_name, variant))
  variables = traverse_util.flatten_dict(tree_of(model, 299))
  entries = mapping.entries(variant, CLASSES)
  assert {e.path for e in entries} == set(variables)
  assert len({e.name for e in entries}) == len(entries)


@pytest.mark.parametrize(
  ('layout', 'shape', 'theirs'),
  [
    (names.CONV, (3, 5, 2, 7), (7, 2, 3, 5)),
    (names.CONV_OF_BGR, (3, 5, 3, 7), (7, 3, 3, 5)),
    (names.DENSE, (3, 5), (5, 3)),
    (names.DENSE_AS_CONV, (3, 5), (5, 3, 1, 1)),
    (names.MAP_AS_CONV, (147, 5), (5, 3, 7, 7)),
    (names.MAP_BY_CHANNEL, (147, 5), (5, 147)),
  ],
)
def test_layouts(layout, shape, theirs):
  array = np.arange(np.prod(shape)).reshape(shape)
  exported = layout.export(array)
  assert exported.shape == theirs
  np.testing.assert_array_equal(layout.restore(exported), array)


def test_torch_loads_what_goes_out():
  network = randomized(network_of('timm:seresnet18'), 64)
  variables = from_torch('se_resnet18', network.state_dict(), num_classes=CLASSES)
  exported = to_torch('se_resnet18', variables, 'timm:seresnet18')
  loaded = network_of('timm:seresnet18').eval()
  loaded.load_state_dict({name: torch.from_numpy(array) for name, array in exported.items()})
  images = torch.randn(2, 3, 64, 64)
  with torch.no_grad():
    assert torch.equal(loaded(images), network(images))


def test_variables_share_no_memory_with_the_tensors():
  network = network_of('timm:resnet18')
  variables = from_torch('resnet18', network.state_dict(), num_classes=CLASSES)
  before = jax.tree.map(np.copy, variables)
  with torch.no_grad():
    for tensor in network.state_dict().values():
      tensor.add_(1)
  jax.tree.map(np.testing.assert_array_equal, variables, before)


@pytest.mark.parametrize('variant', [v.name for v in CLASSIFIERS if v.source in TORCH])
def test_variant_is_guessed(variant):
  expected = VARIANTS[variant]
  arrays = {
    e.name: np.broadcast_to(np.float32(0), e.shape) for e in mapping.entries(variant, CLASSES)
  }
  for guessed in (
    mapping.choose(arrays, TORCH, expected.model),
    mapping.choose(arrays, TORCH),
  ):
    # Those of Cadene are timm's, and most of torchvision's are.
    assert (guessed.model, guessed.naming, guessed.overrides, guessed.images.mean) == (
      expected.model,
      expected.naming,
      expected.overrides,
      expected.images.mean,
    )


def test_what_training_scripts_save():
  weights = weights_of('timm:resnet18')
  expected = from_torch('resnet18', weights, num_classes=CLASSES)
  tensors = {f'module.{name}': torch.from_numpy(array) for name, array in weights.items()}
  saved = {'epoch': 3, 'arch': 'resnet18', 'optimizer': {'lr': 1}, 'state_dict': tensors}
  actual = from_torch('resnet18', saved, num_classes=CLASSES)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)
  halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
  actual = from_torch('resnet18', halves, num_classes=CLASSES)
  jax.tree.map(lambda x: np.testing.assert_(x.dtype == np.float32), actual)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2), actual, expected)


# --- mistakes -------------------------------------------------------------------------------------


def test_every_mismatch_is_listed():
  weights = dict(weights_of('timm:legacy_seresnet18', 1000))
  for i in range(12):
    weights[f'more.{i}'] = np.zeros(1, np.float32)
  del weights['layer1.0.conv1.weight'], weights['layer2.0.bn1.running_var']
  weights['layer0.conv1.weight'] = weights['layer0.conv1.weight'][:, :1]
  with pytest.raises(UserError) as caught:
    from_torch('se_resnet18', weights)
  message = str(caught.value)
  listed = ', '.join(f'more.{i}' for i in range(12))
  assert 'not the weights of se_resnet18 (timm:legacy_seresnet18): ' in message
  assert '2 missing: layer1.0.conv1.weight, layer2.0.bn1.running_var; ' in message
  assert f'12 extra: {listed}; ' in message
  assert '1 misshaped: layer0.conv1.weight is 64x1x7x7 for 64x3x7x7.' in message
  assert 'look like' not in message


@pytest.mark.parametrize(
  ('given', 'variant', 'asked', 'likely'),
  [
    ('timm:legacy_seresnet34', None, 'se_resnet18', 'timm:legacy_seresnet34'),
    ('timm:resnet18', None, 'se_resnet18', 'timm:resnet18'),
    ('timm:seresnet18', 'timm:legacy_seresnet18', 'se_resnet18', 'timm:seresnet18'),
  ],
)
def test_another_network_is_named(given, variant, asked, likely):
  with pytest.raises(UserError) as caught:
    from_torch(asked, weights_of(given), variant)
  assert str(caught.value).endswith(
    f' They look like those of {likely}, here the network {VARIANTS[likely].model}.'
  )


def test_number_of_classes():
  weights = weights_of('timm:resnet18', 7)
  with pytest.raises(UserError) as caught:
    from_torch('resnet18', weights)
  assert str(caught.value) == (
    'the weights of resnet18 (timm:resnet18) are for 7 classes, not 1000 (fc.bias is 7 for 1000; '
    'fc.weight is 7x512 for 1000x512). Give num_classes=7 to take them as they are. For a new '
    'head, convert them so, and train with --config.init_from and --config.new_head=True.'
  )
  with pytest.raises(UserError, match=r'num_classes=0 must be an integer of'):
    from_torch('resnet18', weights, num_classes=0)
  for kernel in (np.zeros((), np.float32), np.zeros((7, 9), np.float32)):
    with pytest.raises(UserError, match=r'not the weights of .*2 misshaped: fc.bias is 7 '):
      from_torch('resnet18', {**weights, 'fc.weight': kernel})
  assert from_torch('resnet18', weights, num_classes=7)['params']['fc']['bias'].shape == (7,)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('resnet5', {}), 'the state dict is empty'),
    (('resnet5', {'w': np.zeros(1)}), r"model.name='resnet5' is unknown; did you mean 'resnet50'"),
    (('resnet50', None), 'state dict is of type NoneType; give a dict of arrays by name'),
    (('resnet50', {'w': np.zeros(1, int)}), r"'w' in the state dict is int64, not an array of"),
    (('resnet50', {'w': 'text'}), "'w' in the state dict is str, no array"),
    (
      ('resnet50', {'w': np.zeros(1)}, 'timm:x'),
      r"resnet50: the variant 'timm:x' is unknown.*allow",
    ),
    (('resnet50', {'w': np.zeros(1)}, 'caffe:se_resnet50'), 'is unknown'),
    (
      ('resnet164_cifar', {'w': np.zeros(1)}),
      'cadene, akamaster, detectron2 are known for resnet164_cifar; they are for resnet110_cifar,',
    ),
    (
      ('resnet50', {'w': np.zeros(1)}),
      r'267 missing: fc\.bias, fc\.weight, (\S+, ){264}\S+; 1 extra: w\.$',
    ),
  ],
)
def test_mistakes(arguments, message):
  with pytest.raises(UserError, match=message):
    from_torch(*arguments)


@pytest.mark.parametrize(
  ('tensor', 'message'),
  [
    (torch.zeros(2, device='meta'), r"'w' in the state dict is no plain tensor of numbers: "),
    (torch.zeros(2).to_sparse(), r"'w' in the state dict is no plain tensor of numbers: "),
    # A file of a few bytes can hold it: 4 TB as float32.
    (torch.zeros(1).bfloat16().expand(10**12), 'shows the same numbers several times'),
    (torch.zeros(2, dtype=torch.complex64), 'is complex64, not an array of floating-point'),
  ],
)
def test_tensors_that_are_no_weights(tensor, message):
  with pytest.raises(UserError, match=message):
    from_torch('resnet50', {'w': tensor})


def test_mistakes_of_export():
  variables = from_torch('resnet18', weights_of('timm:resnet18'), num_classes=CLASSES)
  message = r'not the weights of se_resnet18 .*32 missing: params/stage2_block1/se/fc1/bias'
  with pytest.raises(UserError, match=message):
    to_torch('se_resnet18', variables, 'timm:seresnet18')
  with pytest.raises(UserError, match='no params/fc/kernel, the last layer'):
    to_torch('resnet18', {'params': {}}, 'timm:resnet18')
  variables['params']['more'] = {'kernel': np.zeros(3)}
  variables['params']['stem_conv']['kernel'] = np.zeros((7, 7))
  message = r'1 extra: params/more/kernel; 1 misshaped: params/stem_conv/kernel is 7x7 for'
  with pytest.raises(UserError, match=message):
    to_torch('resnet18', variables, 'timm:resnet18')


# --- options that other code bases need -----------------------------------------------------------


@pytest.mark.parametrize('divisor', [2, 8])
@pytest.mark.parametrize('channels', [64, 88, 200, 216, 256, 2048])
def test_hidden_units_are_rounded_as_in_timm(channels, divisor):
  se = SqueezeExcite(SEConfig(hidden_divisor=divisor))
  images = jax.ShapeDtypeStruct((1, 2, 2, channels), np.float32)
  params = jax.eval_shape(se.init, jax.random.key(0), images)['params']
  expected = timm.layers.make_divisible(channels / 16, divisor, round_limit=0.0)
  assert params['fc1']['kernel'].shape == (channels, expected)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: SEConfig(hidden_divisor=0), r'model\.se\.hidden_divisor=0 must be an integer of at'),
    (lambda: create_model('resnet20_cifar', branch_relu=True), r'branch_relu=True: the units of a'),
  ],
)
def test_bad_options(make, message):
  with pytest.raises(UserError, match=message):
    make()
