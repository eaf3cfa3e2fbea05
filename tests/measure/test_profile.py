"""Targets, the reader of HLO, and the profile of programs that are compiled here."""

import json
import math
import textwrap

import jax
import pytest

from senet_jax.config import reading
from senet_jax.errors import UserError
from senet_jax.measure import compiled, hlo, profiles, targets
from senet_jax.tools import profile

# A kernel, a loop of three turns, a library call with a workspace, an asynchronous all-reduce, and
# arrays in the memory of a TPU's chip (S(1)).
SCOPE = (
  'jit(step)/shard_map/transpose(jvp(ResNet))/stage2_block1/stage2_block1._post_branch/bn3/cond/'
  'branch_0_fun'
)
MODULE = textwrap.dedent("""\
  HloModule jit_step, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

  %add (x: f32[], y: f32[]) -> f32[] {
    %x = f32[] parameter(0)
    %y = f32[] parameter(1)
    ROOT %sum = f32[] add(%x, %y)
  }

  %fused (p: f32[8,4]) -> bf16[8,4] {
    %p = f32[8,4]{1,0} parameter(0)
    ROOT %c = bf16[8,4]{1,0} convert(%p)
  }

  %body (t: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
    %t = (s32[], f32[8,4]{1,0}) parameter(0)
    %i = s32[] get-tuple-element(%t), index=0
    %v = f32[8,4]{1,0} get-tuple-element(%t), index=1
    %w = f32[8,4]{1,0} negate(%v)
    ROOT %r = (s32[], f32[8,4]{1,0}) tuple(%i, %w)
  }

  %cond (t: (s32[], f32[8,4])) -> pred[] {
    %t = (s32[], f32[8,4]{1,0}) parameter(0)
    ROOT %p = pred[] constant(true)
  }

  ENTRY %main (a: f32[8,4]) -> f32[8,4] {
    %a = f32[8,4]{1,0} parameter(0)
    %f = bf16[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused, metadata={op_name="@SCOPE/convert"}
    %s = bf16[8,4]{1,0:T(8,128)S(1)} copy(%f)
    %z = s32[] constant(0)
    %t = (s32[], f32[8,4]{1,0}) tuple(%z, %a)
    %l = (s32[], f32[8,4]) while(%t), condition=%cond, body=%body, x={"known_trip_count":{"n":"3"}}
    %v = f32[8,4]{1,0} get-tuple-element(%l), index=1
    %cc = (f32[8,4]{1,0}, u8[1024]{0}) custom-call(%v, %s), custom_call_target="conv"
    %o = f32[8,4]{1,0} get-tuple-element(%cc), index=0
    %rs = f32[8,4]{1,0} all-reduce-start(%o), to_apply=%add
    ROOT %rd = f32[8,4]{1,0} all-reduce-done(%rs)
  }
""").replace('@SCOPE', SCOPE)


def test_bytes_by_hand():
  module = hlo.Module(MODULE)
  moved = {item.instruction.name: item.bytes for item in module.traffic}
  full, half = 8 * 4 * 4, 8 * 4 * 2
  assert moved == {
    'f': full + half,
    's': half,  # its result stays on the chip
    'w': 3 * 2 * full,
    'cc': full + full,  # neither the workspace nor what is on the chip
    'rs': full,
  }
  assert module.bytes == sum(moved.values()) and module.loops
  assert module.collectives() == {'all-reduce': {'count': 1, 'bytes': full}}


def test_layer_names():
  (first, *_) = hlo.Module(MODULE).traffic
  assert hlo.layer_of(first.instruction.op_name) == 'stage2_block1/bn3 backward'
  assert hlo.layer_of('jit(step)/shard_map/mul') == ''
  assert hlo.layer_of('jit(step)/jvp(ResNet)/ResNet._stem/stem_conv/conv') == 'stem_conv'


def test_text_without_entry():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.Module('HloModule nothing')


def test_targets():
  target = targets.Target.parse('tpu:v5e:2x2')
  assert (target.platform, target.chip.name, target.topology) == ('tpu', 'v5e', '2x2')
  target = targets.Target.parse('gpu:h100:1x4x8')
  assert target.topology == '1x4x8' and 'H100' in target.config
  assert targets.Target.parse('gpu:h200').topology == '1x1x1'
  assert targets.Target.parse('here').platform == 'here'


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('tpu:v5e:3x3', r'v5e has no topology .3x3.; it has 1x1, 2x2, 2x4'),
    ('tpu:v5:2x2', r"'v5' is unknown; did you mean .*allowed: v4, v5e, v5p, v6e"),
    ('gpu:b300', r'allowed: .*h100.*h200|allowed: .*h200'),
    ('gpu:h200:8', r"'8' must be slices x hosts x GPUs of a host, such as 1x1x8"),
    ('tpu', r"'tpu' is unknown; .*Examples: tpu:v4:2x2x2"),
  ],
)
def test_unknown_targets(text, message):
  with pytest.raises(UserError, match=message):
    targets.Target.parse(text)


@pytest.mark.parametrize(('text', 'extra'), [('tpu:v5e:2x2', 'tpu'), ('gpu:h200', 'cuda')])
def test_missing_compiler_names_the_extra(text, extra, monkeypatch):
  monkeypatch.setattr(targets.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=rf"pip install 'senet_jax\[{extra}\]'"):
    targets.Target.parse(text).prepare()


def test_known_devices():
  assert targets.here('NVIDIA H200').name == 'h200'
  assert targets.here('TPU v5 lite').name == 'v5e'
  assert targets.here('TPU v5').name == 'v5p'
  assert targets.here('cpu') is None


def tiny(**fields):
  overrides = {'data.fake': True, 'model.se.ratio': 4, 'model.width': 4, 'batch_size': 16, **fields}
  return reading.load(
    'configs/digits_se_r20.py', [f'--config.{name}={value}' for name, value in overrides.items()]
  )


@pytest.fixture(scope='module')
def training():
  config = tiny()
  return config, compiled.compile_program(config, jax.devices(), 'train')


def test_training_program(training):
  _, program = training
  report = compiled.report(program, targets.CHIPS['v5e'])
  params = sum(math.prod(p.shape) for p in jax.tree.leaves(program.compiled.args_info[0][0].params))
  assert report['devices'] == 8 and report['batch_per_device'] == 2
  assert report['collectives']['all-reduce']['count'] == 1
  assert report['collectives']['all-reduce']['bytes'] >= 4 * params
  # A training step has the network's products three times, but for the gradient of the images.
  network = compiled.compile_program(tiny(), jax.devices(), 'inference').flops
  assert 2.5 * network < report['flops'] < 3.2 * network
  roofline = report['roofline']
  assert roofline['step_s'] == max(roofline['compute_s'], roofline['memory_s'])
  assert report['memory']['fits'] and report['memory']['peak'] > 4 * params
  assert any(layer.startswith('stage') for layer in report['layers'])


def test_measured_steps(training):
  config, program = training
  found = compiled.measure(program, config, targets.CHIPS['v5e'], 2, None)
  assert found['images_per_second'] == pytest.approx(16 / found['step_s'])
  assert 0 < found['mfu'] < 1


def test_command(tmp_path, capsys):
  arguments = ['--config=configs/digits_se_r20.py', '--config.data.fake=True']
  arguments += [
    '--config.model.width=4',
    '--config.model.se.ratio=4',
    '--per_device=2',
    '--mode=inference',
  ]
  profile.main([*arguments, '--compare=model.se.ratio=2', f'--output={tmp_path / "p.json"}'])
  printed = capsys.readouterr().out
  assert '  read and written  ' in printed and 'ratio' in printed
  assert 'of se_resnet20_cifar model.se.ratio=2 (' in printed
  row = json.loads((tmp_path / 'p.json').read_text())
  first, second = row['profiles']
  assert first['flops'] < second['flops']
  assert row['ratios']['flops'] == first['flops'] / second['flops']
  _, columns, *_ = profiles.lines([first, second, second])
  assert columns.split()[-1] == 'model.se.ratio=2' and columns.count('se_resnet20_cifar') == 3
  with pytest.raises(UserError, match='--steps and --trace run the program'):
    profile.main([*arguments, '--target=gpu:h200', '--steps=3'])


def test_what_does_not_fit():
  message = 'RESOURCE_EXHAUSTED: … Used 20.00G of 15.75G hbm. Exceeded hbm capacity by 4.25G.'
  text = compiled.too_large(1024, 4, message)
  assert text == (
    'config.batch_size=1024 does not fit the memory of 4 such devices, 4.25 GiB too much on each; '
    'about 804 would, so use at most that.'
  )
