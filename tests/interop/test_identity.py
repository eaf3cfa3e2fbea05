"""What network a file is of: by its own word where it gives one, or else by names and shapes."""

import functools
import json

import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.interop import from_torch, mapping, storage
from senet_jax.interop.names import SOURCES, TORCH, VARIANTS
from senet_jax.workdir import exchange

CLASSES = 7


@functools.cache
def arrays_of(variant, num_classes=CLASSES):
  """Weights that nothing is computed with."""
  return {e.name: np.full(e.shape, 0.1, np.float32) for e in mapping.entries(variant, num_classes)}


def stored(tmp_path, variant='timm:resnet18', metadata=None, config=None, **changes):
  arrays = {**arrays_of(variant), **changes}
  path = tmp_path / 'model.safetensors'
  storage.write_safetensors(path, {k: x for k, x in arrays.items() if x is not None},
                            metadata or {'format': 'pt'})  # fmt: skip
  if config is not None:
    (tmp_path / 'config.json').write_text(config if isinstance(config, str) else json.dumps(config))
  return path


def test_a_contradiction_is_refused(tmp_path):
  """Blurred pooling has no weights, so that names and shapes are those of the plain network."""
  path = stored(tmp_path, config={'architecture': 'resnetblur18'})
  message = r"says that it is 'resnetblur18', and .* names and shapes of timm:resnet18.*--variant="
  with pytest.raises(UserError, match=message):
    exchange.read(path)
  weights = exchange.read(path, variant='timm:resnet18')
  assert 'the file says that it is resnetblur18; taken for timm:resnet18' in weights.notes[0]
  with pytest.raises(UserError, match=r"says that it is 'resnetaa18'"):
    from_torch('resnet18', {'arch': 'resnetaa18', 'state_dict': arrays_of('timm:resnet18')})


@pytest.mark.parametrize(
  ('metadata', 'config'),
  [
    ({'architecture': 'resnet18'}, None),
    (None, {'architecture': 'resnet18', 'num_classes': CLASSES}),
    (None, {'architecture': 'timm/resnet18.a1_in1k'}),
    ({'arch': 'ResNet_18'}, None),
  ],
)
def test_a_word_that_fits(tmp_path, metadata, config):
  weights = exchange.read(stored(tmp_path, metadata=metadata, config=config))
  assert weights.notes[0].startswith('the file says that it is ')


@pytest.mark.parametrize(
  'config',
  [None, {'model': {'name': 'se_resnet50'}}, {'architectures': ['ResNetForImageClassification']},
   'no JSON', '[' * 100_000, [1], {'architecture': 3}],
  ids=lambda config: str(config)[:20],
)  # fmt: skip
def test_without_a_word_only_names_and_shapes_are_checked(tmp_path, config):
  weights = exchange.read(stored(tmp_path, config=config))
  assert weights.notes[0] == (
    'the file does not say what network it is of: only names and shapes were checked; they fit '
    'torchvision:resnet18 too, which differ in options or images'
  )


def test_a_class_is_no_architecture():
  """Of a network without options timm writes the class in lower case."""
  chosen = mapping.choose(arrays_of('timm:resnet18'), TORCH, says='resnet')
  assert chosen.name == 'timm:resnet18'


@pytest.mark.parametrize('says', ['resnet34', 'se_resnet18', 'resnet50.a1_in1k'])
def test_another_network_than_the_file_says(says):
  with pytest.raises(UserError, match='says that it is'):
    mapping.choose(arrays_of('timm:resnet18'), TORCH, says=says)


def test_images_are_those_of_the_published_errors(tmp_path):
  """timm's numbers are 235 bicubic for seresnet50, 341 for inception_v3."""
  rows = {
    'timm:seresnet50': (224, 235, 'bicubic'), 'timm:inception_v3': (299, 341, 'bicubic'),
    'timm:inception_resnet_v2': (299, 333, 'bicubic'),
    'torchvision:resnet50': (224, 256, 'bilinear'),
    'torchvision:inception_v3': (299, 342, 'bilinear'), 'caffe:se_resnet50': (224, 256, 'bilinear'),
  }  # fmt: skip
  for variant, (size, resize, interpolation) in rows.items():
    images = VARIANTS[variant].images
    assert (images.size, images.resize, images.interpolation) == (size, resize, interpolation)
  data = exchange.read(stored(tmp_path)).config.data
  assert (data.image_size, data.resize, data.interpolation) == (224, 235, 'bicubic')
  given = {'input_size': [3, 192, 192], 'crop_pct': 0.8, 'interpolation': 'bilinear',
           'mean': [0.5, 0.5, 0.5], 'std': [0.25, 0.25, 0.25]}  # fmt: skip
  names = [f'kind {i}' for i in range(CLASSES)]
  config = {'architecture': 'resnet18', 'label_names': names, 'pretrained_cfg': given}
  weights = exchange.read(stored(tmp_path, config=config))
  data = weights.config.data
  assert (data.image_size, data.resize, data.interpolation) == (192, 240, 'bilinear')
  assert data.mean == (127.5,) * 3 and data.std == (63.75,) * 3
  assert weights.class_names == tuple(names)
  assert weights.notes[-1].startswith('images: 192 pixels in the middle of 240, bilinear, minus')


def test_weights_without_a_head(tmp_path):
  path = stored(tmp_path, **{'fc.weight': None, 'fc.bias': None})
  weights = exchange.read(path)
  assert not weights.variables['params']['fc']['kernel'].any() and weights.class_names is None
  assert any('have no last layer' in n and '--config.new_head=True' in n for n in weights.notes)
  arrays = {k: x for k, x in arrays_of('timm:resnet18').items() if not k.startswith('fc.')}
  with pytest.raises(
    UserError, match=r'2 missing: fc\.bias, fc\.weight\. All but the last .*new_h'
  ):
    from_torch('resnet18', arrays)


def test_nan_is_named(tmp_path):
  wrong = np.full(64, np.nan, np.float32)
  path = stored(tmp_path, **{'layer1.0.bn2.running_var': wrong})
  with pytest.raises(
    UserError, match=r'1 of the 102 weights .* first is layer1\.0\.bn2\.running_var'
  ):
    exchange.read(path)


def test_depths_of_akamaster_are_told_by_the_keys(tmp_path):
  for depth in (20, 32, 110):
    variant = f'akamaster:resnet{depth}'
    arrays = {f'module.{name}': x for name, x in arrays_of(variant, 10).items()}
    path = tmp_path / f'{depth}.safetensors'
    storage.write_safetensors(path, arrays, {})
    weights = exchange.read(path)
    assert f'({variant})' in weights.origin and weights.class_names[3] == 'cat'
    config = weights.config
    assert (config.data.name, config.data.feed) == ('cifar10', 'device')
    assert config.data.mean == (123.675, 116.28, 103.53)
    assert (config.model.preact, config.model.shortcut) == (False, 'pad_both')
    exchange.write(weights, tmp_path / f'back{depth}.safetensors', variant)
    back, _ = storage.read(tmp_path / f'back{depth}.safetensors')
    assert set(back) == set(arrays_of(variant, 10))
  with pytest.raises(UserError, match=r'They look like those of akamaster:resnet110'):
    exchange.read(path, variant='akamaster:resnet20')


def test_deeply_nested_metadata(tmp_path):
  path = tmp_path / 'ours.safetensors'
  metadata = {'senet_jax': '0', 'config': '[' * 100_000, 'num_classes': '1', 'class_names': 'null'}
  storage.write_safetensors(path, {'x': np.zeros(1, np.float32)}, metadata)
  with pytest.raises(UserError, match=r'ours\.safetensors is damaged: .* nested too deeply'):
    exchange.read(path)


def test_a_glance_finds_every_variant():
  """Without building it: those that remain have the names of the file."""
  for variant in VARIANTS.values():
    if variant.name.endswith((':resnet20', ':resnet18', 'mobilenet_0.5', 'v1_0.5')):
      arrays = arrays_of(variant.name)
      found = mapping.find_candidates(arrays, SOURCES)
      assert variant in found and len(found) < 9, variant.name
