"""Every registered network at its depth: sane activations at first, bfloat16, and that it learns.

Most networks are marked slow; of a few each test runs always, and `test_models*.py` has the others.
`pytest -m slow -s tests/models/test_every_model.py` runs the others; it shows all activations.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from senet_jax.data.photos import central_crop, open_rgb
from senet_jax.layers import BatchNormConfig, SEConfig
from senet_jax.models import create_model, list_models, model_info

pytestmark = pytest.mark.thorough

# Smallest sides that leave every part of a network something to look at.
SIDES = {'inception': 107, 'inception_cifar': 107, 'inception_resnet': 107, 'vgg': 64}


# One is looked at with every change; what is special to the others, their own tests see.
QUICK = 'se_resnet20_cifar'
NETWORKS = [
  pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in list_models()
]
RNGS = {'dropout': jax.random.key(1), 'shake': jax.random.key(2)}


def side_of(name: str) -> int:
  info = model_info(name)
  return SIDES.get(info.family, min(info.image_size, 64))


@functools.cache
def built(name: str):
  """The network, its variables and two images, half of whose statistics the variables have.

  With none of them, as in a fresh network, an evaluation of the deepest ones grows to 1e7. With all
  of them, what two images differ by in a map of 2x2 is blown up to a variance of 1. Both spoil
  comparisons by blowing up rounding, too.
  """
  bn = BatchNormConfig(epsilon=model_info(name).bn_epsilon, momentum=0.5)
  options = {'se': SEConfig(ratio=4)} if model_info(name).se else {}
  model = create_model(name, bn=bn, **options)
  images = jax.random.normal(jax.random.key(0), (2, side_of(name), side_of(name), 3))

  @jax.jit
  def init(key):
    variables = model.init(key, images, train=False)
    _, state = model.apply(variables, images, train=True, mutable=['batch_stats'], rngs=RNGS)
    return {**variables, **state}

  return model, init(jax.random.key(0, impl='rbg')), images


@pytest.mark.parametrize('name', NETWORKS)
def test_activations_neither_vanish_nor_explode(name):
  """Standard deviations of the outputs of all convolutions, in training mode, at the start."""
  model, variables, images = built(name)

  @jax.jit
  def deviations(variables, images):
    _, state = model.apply(
      variables,
      images,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      capture_intermediates=lambda module, _: type(module).__name__ in ('Conv', 'Dense'),
      rngs=RNGS,
    )
    return jax.tree.map(jnp.std, state['intermediates'])

  found = np.array(
    [
      float(value)
      for path, value in jax.tree.leaves_with_path(deviations(variables, images))
      if '__call__' in jax.tree_util.keystr(path)
    ]
  )
  print(f'{name:28} {len(found):4} layers, deviations {found.min():.3g} to {found.max():.3g}')
  assert np.isfinite(found).all() and found.max() < 100
  assert np.median(found) > 0.05 and found.min() > 1e-3


@pytest.mark.parametrize('name', NETWORKS)
def test_bfloat16_is_near_float32(name):
  model, variables, images = built(name)
  run = jax.jit(lambda v, x, m: m.apply(v, x, train=False), static_argnums=2)
  exact = np.asarray(run(variables, images, model))
  rough = np.asarray(run(variables, images, model.clone(dtype=jnp.bfloat16)))
  assert rough.dtype == np.float32
  # Of two random images the logits differ little: their size is the measure here.
  assert np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


@pytest.fixture(scope='module')
def photos(imagenette):
  """64 photos of ten classes as files, and their labels."""
  folders = sorted((imagenette / 'train').iterdir())
  paths = [sorted(folder.iterdir())[i] for i in range(7) for folder in folders][:64]
  return paths, np.array([folders.index(path.parent) for path in paths])


@pytest.mark.parametrize('name', NETWORKS)
def test_loss_falls_on_real_images(name, photos):
  paths, labels = photos
  side = side_of(name)
  images = np.stack([central_crop(open_rgb(p.read_bytes()), side, side) for p in paths])
  images = (images.astype(np.float32) - 120) / 60
  # VGG's wide hidden layers take smaller steps still, and half of their units would be dropped.
  vgg = model_info(name).family == 'vgg'
  # Behind its last map are 123 of its 138 million parameters, of which Adam would have 2 GB.
  options = {'dropout': 0.0, 'fc_width': 256} if vgg else {}
  model = create_model(name, num_classes=10, **options)
  optimizer = optax.adam(1e-4 if vgg else 5e-4)
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0, impl='rbg'), images[:1])

  @jax.jit
  def step(params, batch_stats, opt_state, key):
    def loss_of(params):
      inputs = {'params': params, 'batch_stats': batch_stats}
      rngs = {kind: jax.random.fold_in(key, i) for i, kind in enumerate(RNGS)}
      logits, state = model.apply(inputs, images, train=True, mutable=['batch_stats'], rngs=rngs)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean(), state['batch_stats']

    (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), stats, opt_state, loss

  params, stats = variables['params'], variables['batch_stats']
  opt_state, losses = optimizer.init(params), []
  for key in jax.random.split(jax.random.key(1), 8):
    params, stats, opt_state, loss = step(params, stats, opt_state, key)
    losses.append(float(loss))
  print(f'{name:28} loss {losses[0]:.3f} to {losses[-1]:.3f}')
  assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]
