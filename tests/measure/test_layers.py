"""Kernels to which the compiler gives no layer are named by what they are made of, or take."""

from senet_jax.measure import hlo

TEXT = """HloModule jit_step

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %a = f32[8]{0} negate(%p), metadata={op_name="jit(step)/ResNet/stage2_block1/conv1/add"}
  ROOT %b = f32[8]{0} negate(%a), metadata={op_name="jit(step)/ResNet/stage2_block1/conv1/mul"}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %alone = f32[8]{0} copy(%x)
  %named = f32[8]{0} negate(%x), metadata={op_name="jit(step)/ResNet/stem_bn/sub"}
  %moved = f32[8]{0} copy(%named)
  %again = f32[8]{0} copy(%moved)
  ROOT %fusion = f32[8]{0} fusion(%again), kind=kLoop, calls=%fused
}
"""


def test_what_has_no_layer_is_near_one():
  found = {item.instruction.name: (item.layer, item.near) for item in hlo.Module(TEXT).traffic}
  stem, conv = hlo.layer_of('jit(step)/ResNet/stem_bn/sub'), 'stage2_block1/conv1'
  assert stem and found['named'] == (stem, '') and found['alone'] == ('', '')
  assert found['moved'] == found['again'] == ('', stem)
  layer, near = found['fusion']
  assert layer == '' and near.endswith(conv)
