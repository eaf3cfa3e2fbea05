"""Efficient channel attention: equal to timm's, in every position of every residual network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from senet_jax import config as config_lib
from senet_jax.complexity.counts import complexity
from senet_jax.diagrams import dataflow
from senet_jax.errors import UserError
from senet_jax.layers import DeferredAffine, SEConfig, excitations
from senet_jax.layers.attention import BlockAttention
from senet_jax.layers.efficient_channel_attention import EfficientChannelAttention, kernel_size
from senet_jax.layers.squeeze_excite import POSITIONS
from senet_jax.models import create_model
from senet_jax.models.resnet import ResidualBlock
from senet_jax.workdir import network
from tests.helpers.parity import twin

IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
SMALL = {'width': 32, 'depths': (2,), 'num_classes': 5}


# Equations 9 and 12 of the paper by hand.
@pytest.mark.parametrize(
  ('channels', 'size'),
  [(1, 3), (16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7), (96, 3)],
)
def test_equals_timm(golden, channels, size):
  rng = np.random.default_rng(channels)
  x = rng.normal(1, 2, (2, 5, 6, channels))
  assert kernel_size(channels) == size
  weight = rng.normal(size=(size,))
  variables = {'params': {'conv': {'kernel': weight[:, None, None].astype(np.float32)}}}
  shapes = EfficientChannelAttention().init(jax.random.key(0), jnp.asarray(x, jnp.float32))
  assert jax.tree.map(jnp.shape, shapes['params']) == {'conv': {'kernel': (size, 1, 1)}}
  y, sown = EfficientChannelAttention().apply(
    variables, jnp.asarray(x, jnp.float32), mutable=['intermediates']
  )
  theirs = golden(twin('layers.efficient_channel_attention', x, weight))
  theirs['y'].check(y, 1e-5)
  # In float64 by the definition: a sum over neighbours, zeros beyond the ends.
  means = np.pad(x.mean((1, 2)), [(0, 0), (size // 2, size // 2)])
  summed = sum(weight[i] * means[:, i : i + channels] for i in range(size))
  gate = 1 / (1 + np.exp(-summed))
  theirs['y'].check(x * gate[:, None, None], 1e-7)
  np.testing.assert_allclose(sown['intermediates']['excitation'][0], gate, rtol=1e-5, atol=1e-6)


def test_bfloat16_input_has_a_float32_gate():
  x = jnp.asarray(IMAGES, jnp.bfloat16)
  block = EfficientChannelAttention()
  y, state = block.init_with_output(jax.random.key(0), x, mutable=['params', 'intermediates'])
  (gate,) = state['intermediates']['excitation']
  assert y.dtype == jnp.bfloat16 and gate.dtype == jnp.float32 and gate.shape == (2, 3)


@pytest.mark.parametrize('position', POSITIONS)
def test_replaces_se_in_every_position(position):
  """The same variables but for the gates', fused or not the same numbers."""
  results = []
  for fused in (True, False):
    se = SEConfig(position=position, fused=fused)
    model = create_model('se_resnet50', se=se, attention='eca', **SMALL)
    variables = jax.jit(lambda x, m=model: m.init(jax.random.key(0), x, train=False))(IMAGES)

    @jax.jit
    def run(variables, model=model):
      def loss(params):
        logits, state = model.apply(
          {**variables, 'params': params},
          IMAGES,
          train=True,
          mutable=['batch_stats', 'intermediates'],
        )
        gates = excitations(state.pop('intermediates'))
        return jax.nn.logsumexp(logits, -1).sum(), (logits, state, gates)

      return jax.grad(loss, has_aux=True)(variables['params'])

    results.append(run(variables))
  gradients, (_, _, gates) = results[0]
  assert list(gates) == ['SE_2_1', 'SE_2_2']
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *results)
  plain = create_model('resnet50', **SMALL)
  expected = jax.eval_shape(lambda: plain.init(jax.random.key(0), IMAGES, train=False))
  for block in ('stage2_block1', 'stage2_block2'):
    assert np.any(gradients[block].pop('eca')['conv']['kernel'])
  assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, expected['params'])


@pytest.mark.parametrize('fused', [True, False])
def test_takes_its_squeeze_from_batch_norm(fused):
  """A fused block gets and returns a deferred map, with the means of its images."""
  seen = []

  def look(call, args, kwargs, context):
    output = call(*args, **kwargs)
    if isinstance(context.module, EfficientChannelAttention) and context.method_name == '__call__':
      has_means = [
        isinstance(x, DeferredAffine) and x.image_mean is not None for x in (*args, output)
      ]
      seen.append(has_means)
    return output

  model = create_model('se_resnet18', attention='eca', se=SEConfig(fused=fused), **SMALL)
  with nn.intercept_methods(look):
    jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))
  assert seen == [[fused, fused]] * 2


@pytest.mark.parametrize('name', ['se_resnet110_cifar', 'se_wrn16_8', 'se_resnext50_32x4d',
                                  'senet154', 'se_resnet46', 'se_shake_shake26_2x96d'])  # fmt: skip
def test_other_residual_networks(name):
  depths = {'depths': (1, 1, 1)} if name in ('se_resnet46', 'se_shake_shake26_2x96d') else SMALL
  model = create_model(name, attention='eca', **depths)
  state = jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x, train=False)[1], IMAGES
  )
  names = {path for path, _ in jax.tree.leaves_with_path(state['params'])}
  kinds = {key.key for path in names for key in path}
  assert 'eca' in kinds and 'se' not in kinds


def test_mix_of_branches():
  model = create_model(
    'se_shake_even29_2x4x64d', attention='eca', se_at='mix', width=8, depths=(1,)
  )
  params = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))['params']
  assert set(params['stage2_block1']) >= {'branch1', 'branch2', 'eca'}


def test_stages_and_blocks_left_out():
  se = SEConfig(stages=(2,), without=('SE_2_2',))
  model = create_model('se_resnet18', attention='eca', se=se, **SMALL)
  params = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))['params']
  assert [name for name, unit in params.items() if 'eca' in unit] == ['stage2_block1']


def test_costs():
  """One kernel a unit; SE has two matrices."""
  eca = complexity(create_model('se_resnet50', attention='eca'), 224)
  plain, se = (complexity(create_model(name), 224) for name in ('resnet50', 'se_resnet50'))
  widths = [(3, 256), (4, 512), (6, 1024), (3, 2048)]
  assert eca.se_params == eca.se_weights == sum(n * kernel_size(c) for n, c in widths) == 86
  assert eca.se_macs == sum(n * c * kernel_size(c) for n, c in widths)
  assert eca.params == plain.params + 86 and eca.macs == plain.macs + eca.se_macs
  assert eca.squeezed_elements == se.squeezed_elements and eca.equation_5 == 0


@pytest.mark.parametrize('position', POSITIONS)
def test_a_unit_says_where_its_gates_are(position):
  attention = BlockAttention(SEConfig(position=position, fused=False), 'eca')
  block = ResidualBlock(64, bottleneck=16, attention=attention)
  assert block.gates() == {position: 'eca'}
  assert ResidualBlock(64, bottleneck=16).gates() == {}
  graph = dataflow.graph_of(block, jax.ShapeDtypeStruct((1, 8, 8, 64), jnp.float32))
  assert 'eca/conv' in dataflow.formula(graph)


def test_from_a_configuration():
  config = config_lib.default()
  config.model.name, config.model.attention = 'se_resnet20_cifar', 'eca'
  assert network.build_model(config).attention == 'eca'
  config.model.se.ratio = 8
  with pytest.raises(UserError, match=r"ratio=8 has no effect with model\.attention='eca'"):
    network.build_model(config)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('se_resnet18', {'attention': 'ecca'}, r"model\.attention='ecca' is unknown; .*'eca'"),
    ('resnet18', {'attention': 'eca'}, r"attention='eca' has no effect on a network without"),
    ('se_vgg16_bn', {'attention': 'eca'}, r'attention has no effect on se_vgg16_bn: only residual'),
    ('se_resnet18', {'attention': 'eca', 'se': SEConfig(squeeze='max')}, r"squeeze='max' has no"),
    (
      'se_resnet20_cifar',
      {'attention': 'eca', 'kept_channels': ('SE_2_1:0fff',)},
      r"attention='eca' has no pruned form",
    ),
  ],
)
def test_what_does_not_fit(name, options, message):
  with pytest.raises(UserError, match=message) as caught:
    create_model(name, **options)
  assert '\n' not in str(caught.value)


def test_se_is_the_default():
  assert create_model('se_vgg16_bn', attention='se') == create_model('se_vgg16_bn')
  assert create_model('se_resnet18', attention='se') == create_model('se_resnet18')
