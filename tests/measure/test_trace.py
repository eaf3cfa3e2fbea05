"""Traces are reduced to where the time goes: real ones of a CPU, made-up ones of GPU and TPU."""

import json
import re
import textwrap

import jax
import pytest
from jax.profiler import ProfileData

from senet_jax.errors import UserError
from senet_jax.measure import hlo, trace
from senet_jax.tools import profile

# A cuDNN call, a fused BN, copies without a name, a product of SE, … and a loop; `!NAME` stands for
# the metadata.
TEXT = textwrap.dedent("""\
  HloModule jit_step, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

  %moves (p: f32[8,4]) -> bf16[4,8] {
    %p = f32[8,4]{1,0} parameter(0)
    %t = f32[4,8]{1,0} transpose(%p), !@NET/conv1/transpose
    ROOT %c = bf16[4,8]{1,0} convert(%t)
  }

  %normal (q: f32[8,4]) -> f32[8,4] {
    %q = f32[8,4]{1,0} parameter(0)
    ROOT %m = f32[8,4]{1,0} multiply(%q, %q)
  }

  %body (r: f32[8,4]) -> f32[8,4] {
    %r = f32[8,4]{1,0} parameter(0)
    ROOT %update = f32[8,4]{1,0} add(%r, %r), !jit(step)/optimizer/while/body/add
  }

  %condition (s: f32[8,4]) -> pred[] {
    %s = f32[8,4]{1,0} parameter(0)
    ROOT %b = pred[] constant(false)
  }

  ENTRY %main (a: f32[8,4]) -> f32[8,4] {
    %a = f32[8,4]{1,0} parameter(0)
    %cudnn-conv.1 = (f32[8,4]{1,0}, u8[16]{0}) custom-call(%a), @CONV, !@NET/conv1/convolution
    %o = f32[8,4]{1,0} get-tuple-element(%cudnn-conv.1), index=0
    %fusion.2 = f32[8,4]{1,0} fusion(%o), kind=kLoop, calls=%normal, !@NET/bn1/mul
    %fusion.3 = bf16[4,8]{1,0} fusion(%fusion.2), kind=kLoop, calls=%moves
    %dot.4 = f32[8,4]{1,0} dot(%fusion.2, %fusion.2), !@BACK/se/fc1/dot_general
    %pool = f32[8,4]{1,0} reduce-window(%dot.4), !jit(step)/jvp(ResNet)/max_pool/reduce_window_max
    %exp = f32[8,4]{1,0} exponential(%pool), !jit(step)/jvp(loss)/exp
    %ar = f32[8,4]{1,0} all-reduce-start(%exp), to_apply=%normal
    %ard = f32[8,4]{1,0} all-reduce-done(%ar)
    ROOT %while.5 = f32[8,4]{1,0} while(%ard), condition=%condition, body=%body
  }
""")
TEXT = (
  re.sub(r'!(\S+)', r'metadata={op_name="\1"}', TEXT)
  .replace('@CONV', 'custom_call_target="__cudnn$convForward"')
  .replace('@NET', 'jit(step)/shard_map/jvp(ResNet)/stage2_block1')
  .replace('@BACK', 'jit(step)/shard_map/transpose(jvp(ResNet))/stage2_block1')
)
MODULE = hlo.Module(TEXT)
# What each is; `while.5` only starts `update`.
KINDS = {
  'cudnn-conv.1': trace.PRODUCTS,
  'fusion.2': trace.BN_SE,
  'fusion.3': trace.COPIES,
  'dot.4': trace.BN_SE,
  'pool': trace.POOLING,
  'exp': trace.LOSS,
  'ar': trace.COLLECTIVES,
  'ard': trace.COLLECTIVES,
  'update': trace.OPTIMIZER,
  'while.5': trace.OTHER,
}


def write(directory, planes: dict):
  """Writes a trace: `{plane: {line: [(event, start, nanoseconds, statistics), …]}}`."""
  text = ''
  for plane, lines in planes.items():
    names, stats = {}, {}
    text += f'planes {{ name: "{plane}"\n'
    for i, (line, events) in enumerate(lines.items()):
      # Events are counted from the time of their line.
      text += f'lines {{ id: {i} name: "{line}" timestamp_ns: {i}\n'
      for event, start, length, given in events:
        text += f'events {{ metadata_id: {names.setdefault(event, len(names) + 1)} '
        text += f'offset_ps: {1000 * (start - i)} duration_ps: {1000 * length}'
        for key, value in given.items():
          field = 'str_value' if isinstance(value, str) else 'int64_value'
          number = stats.setdefault(key, len(stats) + 1)
          text += f' stats {{ metadata_id: {number} {field}: {json.dumps(value)} }}'
        text += ' }\n'
      text += '}\n'
    for field, known in (('event_metadata', names), ('stat_metadata', stats)):
      for key, number in known.items():
        text += f'{field} {{ key: {number} value {{ id: {number} name: {json.dumps(key)} }} }}\n'
    text += '}\n'
  path = directory / 'plugins' / 'profile' / 'now' / 'host.xplane.pb'
  path.parent.mkdir(parents=True)
  path.write_bytes(ProfileData.text_proto_to_serialized_xspace(text))


def steps(n: int) -> dict:
  return {'python': [('step', 10 * i, 1, {'step_num': i}) for i in range(n)]}


def hlo_op(name: str, module: str = 'jit_step') -> dict:
  return {'hlo_op': name, 'hlo_module': module, 'program_id': 7}


def covered(*spans: tuple[int, int]) -> int:
  """How many nanoseconds lie in at least one span from start to end, counted one by one."""
  return len({t for start, end in spans for t in range(start, end)})


def nanoseconds(reduced: trace.Reduced) -> dict:
  """Of all devices and steps, by name and kind."""
  runs = reduced.devices * reduced.steps
  return {(k.name, k.kind): pytest.approx(k.seconds * 1e9 * runs) for k in reduced.kernels}


def check_sums(reduced: trace.Reduced):
  for field in ('kind', 'layer'):
    assert sum(reduced.by(field).values()) == pytest.approx(reduced.seconds)
  assert 0 <= reduced.idle_share <= 1
  report = reduced.report(3)
  assert len(report['kernels']) <= 3 and json.loads(json.dumps(report)) == report
  assert all(isinstance(line, str) for line in trace.table(report))


def test_gpu(tmp_path):
  """Streams overlap; derived lines, counters, held memory and other programs are not this one's."""
  write(
    tmp_path,
    {
      '/device:GPU:0': {
        'Stream #13(Compute)': [
          ('cudnn::conv', 100, 40, hlo_op('cudnn-conv.1')),
          ('cudnn::conv_finish', 140, 10, hlo_op('command_buffer::cudnn-conv.1')),
          ('loop_fusion_2', 150, 20, hlo_op('fusion.2')),
          ('loop_fusion_2', 200, 25, hlo_op('fusion.2', 'jit_other')),
          ('void mystery<float>(int)', 225, 5, {}),
          ('Residency', 0, 9000, {'MemoryResidency_details': 'kind:device'}),
        ],
        'Stream #14(MemcpyH2D,Compute)': [
          # Of a CUDA graph, where equal kernels have the name of one.
          ('fusion_2', 310, 7, hlo_op('command_buffer_1')),
          ('fusion_2', 320, 6, hlo_op('command_buffer_1')),
          ('nvjet_tst_64x8', 330, 4, hlo_op('command_buffer_1')),
          ('ncclDevKernel_AllReduce', 160, 30, {'correlation_id': 3}),
          ('loop_fusion_3', 190, 15, hlo_op('fusion.3')),
          ('MemcpyH2D', 300, 10, {'memcpy_details': 'size:4'}),
        ],
        'XLA Ops': [('jit_step/fusion.2', 100, 70, {})],
        '_counters_': [('power', 0, 5000, {})],
      },
      '/device:GPU:1': {'Stream #13(Compute)': [('conv', 50, 70, hlo_op('cudnn-conv.1'))]},
      '/host:CPU': steps(2),
    },
  )
  reduced = trace.reduce(tmp_path, MODULE)
  check_sums(reduced)
  assert (reduced.devices, reduced.steps) == (2, 2)
  assert reduced.file == 'plugins/profile/now/host.xplane.pb'
  assert nanoseconds(reduced) == {
    ('cudnn-conv.1', trace.PRODUCTS): 40 + 10 + 70,
    ('fusion.2', trace.BN_SE): 20 + 7 + 6,
    ('command_buffer_1', trace.UNATTRIBUTED): 4,
    ('fusion.2', trace.UNATTRIBUTED): 25,
    ('void mystery<float>(int)', trace.UNATTRIBUTED): 5,
    ('ncclDevKernel_AllReduce', trace.COLLECTIVES): 30,
    ('fusion.3', trace.COPIES): 15,
    ('MemcpyH2D', trace.COPIES): 10,
  }
  busy = covered((100, 170), (200, 230), (160, 205), (300, 317), (320, 326), (330, 334)), 70
  assert reduced.busy_s * 4e9 == pytest.approx(sum(busy))
  assert reduced.wall_s * 4e9 == pytest.approx((334 - 100) + 70)
  assert trace.utilisation(tmp_path) == pytest.approx((busy[0] / 234 + 1) / 2)
  conv = reduced.kernels[0]
  assert conv.layer == 'stage2_block1/conv1' and conv.times == 3 / 4
  assert conv.bytes == 2 * 8 * 4 * 4  # a and the result, not the workspace
  assert conv.bandwidth == pytest.approx(conv.bytes / (120e-9 / 4))


def test_tpu(tmp_path):
  """An event has the instruction's text for its name, and a loop's event holds those inside."""
  ops = [
    ('%cudnn-conv.1 = (f32[8,4]{1,0:T(8,128)}) custom-call(f32[8,4] %a)', 10, 30, {}),
    ('%fusion.2 = f32[8,4]{1,0} fusion(f32[8,4] %o), kind=kLoop', 40, 10, {}),
    ('%ard = f32[8,4]{1,0} all-reduce-done(f32[8,4] %ar)', 55, 5, {}),
    ('%while.5 = f32[8,4]{1,0} while(f32[8,4] %ard)', 60, 20, {}),
    ('%update = f32[8,4]{1,0} add(f32[8,4] %r, f32[8,4] %r)', 61, 8, {}),
    ('%update = f32[8,4]{1,0} add(f32[8,4] %r, f32[8,4] %r)', 70, 9, {}),
    ('%gone.9 = f32[] add(f32[] %x, f32[] %y)', 90, 4, {}),
  ]
  asynchronous = [('ar', 5, 50, hlo_op('ar'))]
  modules = [('jit_step(7)', 10, 84, {})]
  write(
    tmp_path,
    {
      '/device:TPU:0': {
        'Steps': [('0', 10, 84, {})],
        'XLA Modules': modules,
        'XLA Ops': ops,
        'Async XLA Ops': asynchronous,
      },
      '/device:TPU:0 SparseCore 0': {'XLA Ops': [('%a = f32[] add()', 0, 500, {})]},
      '/host:CPU': steps(1),
    },
  )
  reduced = trace.reduce(tmp_path, MODULE)
  check_sums(reduced)
  assert nanoseconds(reduced) == {
    ('cudnn-conv.1', trace.PRODUCTS): 30,
    ('fusion.2', trace.BN_SE): 10,
    ('ard', trace.COLLECTIVES): 5,
    ('update', trace.OPTIMIZER): 17,
    ('while.5', trace.OTHER): 20 - 17,
    ('gone.9', trace.UNATTRIBUTED): 4,
  }
  assert reduced.seconds == pytest.approx(reduced.busy_s) == pytest.approx(69e-9)
  assert trace.utilisation(tmp_path) == pytest.approx(69 / 84)


def test_cpu_work_that_goes_on_after_the_return(tmp_path):
  """A convolution is done when another thread says so; a loop is not its work once more."""

  def started(name, producer):
    return {**hlo_op(name), '_p': producer, 'device_ordinal': producer % 2}

  write(
    tmp_path,
    {
      '/host:CPU': {
        'tf_XLAEigen/1': [
          ('cudnn-conv.1', 10, 2, started('cudnn-conv.1', 2)),
          ('fusion.2', 12, 10, started('fusion.2', 4)),
          ('while.5', 40, 3, started('while.5', 6)),
        ],
        'tf_XLAEigen/2': [
          ('end: cudnn-conv.1', 29, 1, {'_c': 2}),
          ('end: while.5', 80, 1, {'_c': 6}),
          ('ThunkExecutor::Execute', 0, 1000, {}),
          ('fusion.2', 5, 5, started('fusion.2', 7)),
        ],
      }
    },
  )
  reduced = trace.reduce(tmp_path, MODULE)
  check_sums(reduced)
  assert (reduced.devices, reduced.steps) == (2, 1)
  assert nanoseconds(reduced) == {
    ('cudnn-conv.1', trace.PRODUCTS): 20,
    ('fusion.2', trace.BN_SE): 15,
    ('while.5', trace.OTHER): 3,
  }
  assert reduced.busy_s * 2e9 == pytest.approx(covered((10, 30), (12, 22), (40, 81)) + 5)


def test_kinds(tmp_path):
  """Each instruction is of the kind that its work, its layer or its part of the step says."""
  events = [(name, 10 * i, 10, hlo_op(name)) for i, name in enumerate(KINDS)]
  write(tmp_path, {'/device:GPU:0': {'Stream #1': events}})
  reduced = trace.reduce(tmp_path, MODULE)
  assert {kernel.name: kernel.kind for kernel in reduced.kernels} == KINDS
  layers = {kernel.name: kernel.layer for kernel in reduced.kernels}
  assert layers['dot.4'] == 'stage2_block1/se/fc1 backward'
  assert layers['fusion.3'] == 'stage2_block1/conv1'  # of what is fused in it
  assert reduced.idle_share == 0


def test_real_trace(tmp_path, capsys):
  """A small SE-ResNet on the eight devices of the tests, through the command."""
  arguments = ['--config=configs/digits_se_r20.py', '--config.data.fake=True', '--per_device=2']
  arguments += ['--config.model.width=4', '--config.model.se.ratio=4', '--top=5']
  arguments += [f'--trace={tmp_path / "trace"}', f'--output={tmp_path / "profile.json"}']
  profile.main(arguments)
  assert 'where the time goes' in capsys.readouterr().out
  (report,) = json.loads((tmp_path / 'profile.json').read_text())['profiles']
  found = report['trace']
  assert (found['devices'], found['steps'], len(found['kernels'])) == (len(jax.devices()), 3, 5)
  for sums in (found['kinds'], found['layers']):
    assert sum(sums.values()) == pytest.approx(found['operations_s'])
  assert 0 <= found['idle_share'] < 1 and found['busy_s'] <= found['wall_s']
  # The devices share the cores, and wait for each other, so that no share is sure.
  assert found['kinds'][trace.PRODUCTS] > 0.02 * found['operations_s']
  assert {trace.BN_SE, trace.OPTIMIZER, trace.COLLECTIVES} <= found['kinds'].keys()
  assert found['kinds'].get(trace.UNATTRIBUTED, 0) < 0.01 * found['operations_s']
  assert {'stem_conv', 'stage4_block3/bn2', 'stage2_block1/conv1 backward'} <= found[
    'layers'
  ].keys()
  assert 0 < trace.utilisation(tmp_path / 'trace') <= 1


def test_inference_trace(tmp_path, capsys):
  arguments = ['--config=configs/digits_se_r20.py', '--config.data.fake=True', '--per_device=1']
  arguments += ['--config.model.width=4', '--config.model.se.ratio=4', '--mode=inference']
  profile.main([*arguments, f'--trace={tmp_path}'])
  table = capsys.readouterr().out.partition('where the time goes')[2]
  assert '3 steps' in table and trace.PRODUCTS in table and trace.OPTIMIZER not in table


def test_bad_input(tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r'has no trace \(\*\.xplane\.pb\); give the directory'):
    trace.reduce(tmp_path, MODULE)
  with pytest.raises(UserError, match='has no trace'):
    trace.utilisation(tmp_path / 'missing')
  write(tmp_path, {'/host:CPU': steps(1)})
  assert trace.utilisation(tmp_path) is None
  with pytest.raises(UserError, match='no operation of a device; trace steps'):
    trace.reduce(tmp_path, MODULE)
  (tmp_path / 'newer.xplane.pb').write_bytes(b'not a protocol buffer')
  for damaged in (trace.utilisation, lambda directory: trace.reduce(directory, MODULE)):
    with pytest.raises(UserError, match=r'newer\.xplane\.pb cannot be read .*trace again'):
      damaged(tmp_path)
  monkeypatch.delattr(jax.profiler, 'ProfileData')
  with pytest.raises(UserError, match=r'has no jax\.profiler\.ProfileData; install'):
    trace.utilisation(tmp_path)
