"""Parameters and multiply-adds of every network, to the integer, as independent code counts."""

import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.layers import SEConfig
from senet_jax.models import create_model, list_models, model_info
from senet_jax.models.inception import bn_inception_stages

STRIDE_1, STRIDE_3 = {'stride_in': '1x1'}, {'stride_in': '3x3'}
PAD, PROJECTION, POST = {'shortcut': 'pad'}, {'shortcut': 'projection'}, {'preact': False}
CONV3X3, POST_SE = {'position': 'conv3x3'}, {'position': 'post'}
BRANCH, MIX = {'bottleneck_of': 'branch'}, {'se_at': 'mix'}
NARROW, NO_AUX, MIXED = {'stages': bn_inception_stages(96)}, {'aux': False}, {'se_mixed': True}

# Counted with hooks in independent PyTorch definitions, in Caffe files or (the student report's) by
# its notebooks: network, overrides, options of SE; without SE parameters, BN statistics and MACs;
# with SE parameters without and with its biases, multiply-adds of its fully connected layers,
# elements squeezed. None: not counted.
ROWS = [
  ('resnet18', {}, {}, 11_689_512, 9_600, 1_814_073_344,
   11_776_552, 11_778_592, 87_040, 752_640),
  ('resnet34', {}, {}, 21_797_672, 17_024, 3_663_761_408,
   21_954_856, 21_958_868, 157_184, 1_379_840),
  ('resnet50', STRIDE_1, {}, 25_557_032, 53_120, 3_857_973_248,
   28_071_976, 28_088_024, 2_514_944, 5_519_360),
  ('resnet50', STRIDE_3, {}, 25_557_032, 53_120, 4_089_184_256,
   28_071_976, 28_088_024, 2_514_944, 5_519_360),
  ('resnet101', {}, {}, 44_549_160, 105_344, 7_570_194_432,
   49_292_328, 49_326_872, 4_743_168, 8_931_328),
  ('resnet152', {}, {}, 60_192_808, 151_424, 11_282_415_616,
   66_770_984, 66_821_848, 6_578_176, 13_146_112),
  ('resnext50_32x4d', {}, {}, 25_028_904, 68_224, 4_230_479_872,
   27_543_848, 27_559_896, 2_514_944, 5_519_360),
  ('resnext101_32x4d', {}, {}, 44_177_704, 137_856, 7_969_996_800,
   48_920_872, 48_955_416, 4_743_168, 8_931_328),
  ('resnet110_cifar', PAD, {}, 1_727_962, 8_096, 252_887_680,
   1_740_058, 1_742_200, 12_096, 516_096),
  ('resnet110_cifar', PROJECTION, {}, 1_730_522, 8_096, 253_149_824,
   1_742_618, 1_744_760, 12_096, 516_096),
  ('resnet110_cifar', PAD | POST, {}, 1_727_962, 8_096, 252_887_680,
   1_740_058, 1_742_200, 12_096, 516_096),
  ('resnet164_cifar', {}, {}, 1_703_258, 24_224, 244_500_992,
   1_896_794, 1_905_362, 193_536, 2_064_384),
  ('wrn16_8', {}, {}, 10_961_370, 7_200, 1_548_145_664,
   11_047_386, 11_049_290, 86_016, 458_752),
  ('senet154', {}, {}, None, 247_552, 20_681_785_344,
   None, 115_088_984, 6_578_176, 13_146_112),
  ('shake_shake26_2x96d', {}, {}, 26_192_922, 22_880, 3_776_892_672,
   26_386_458, 26_392_170, 193_536, 1_376_256),
  ('shake_shake26_2x96d', MIX, {}, 26_192_922, 22_880, 3_776_892_672,
   26_289_690, 26_292_546, 96_768, 688_128),
  ('shake_even29_2x4x64d', {}, {}, 34_529_700, 68_224, 5_387_358_208,
   35_561_892, 35_573_316, 1_032_192, 2_752_512),
  ('shake_even29_2x4x64d', MIX, {}, 34_529_700, 68_224, 5_387_358_208,
   35_045_796, 35_051_508, 516_096, 1_376_256),
  ('vgg16_bn', {}, {}, 138_365_992, 8_448, 15_470_264_320,
   138_592_296, 138_596_784, 226_304, 13_547_520),
  ('vgg16_bn', {'conv_bias': False}, {}, 138_361_768, 8_448, 15_470_264_320,
   138_588_072, 138_592_560, 226_304, 13_547_520),
  ('mobilenet_v1', {}, {}, 4_231_976, 21_888, 568_740_352,
   4_711_720, 4_718_044, 479_744, 2_709_504),
  ('mobilenet_v1', {}, CONV3X3, 4_231_976, 21_888, 568_740_352,
   4_580_776, 4_586_046, 348_800, 1_931_776),
  ('shufflenet_v1_g3', {}, {}, 1_865_728, 24_480, 137_460_672,
   2_476_144, 2_484_533, 610_416, 1_604_064),
  ('shufflenet_v1_g3', {}, POST_SE, 1_865_728, 24_480, 137_460_672,
   2_585_728, 2_594_908, 720_000, 1_693_440),
  ('shufflenet_v1_g3', BRANCH, {}, 1_814_734, 23_736, 127_061_304,
   2_425_150, 2_433_539, 610_416, 1_604_064),
  ('shufflenet_v1_g3', BRANCH, POST_SE, 1_814_734, 23_736, 127_061_304,
   2_534_734, 2_543_914, 720_000, 1_693_440),
  ('bn_inception', {}, {}, 11_285_224, 20_032, 2_032_600_064,
   11_924_584, 11_931_622, 639_360, 1_180_704),
  ('bn_inception', NARROW, {}, 11_194_984, 19_904, 2_018_851_840, None, None, None, None),
  ('inception_v3', {}, {}, 27_161_264, 36_224, 5_713_216_096,
   None, 28_822_884, 1_650_944, 2_473_024),
  ('inception_v3', NO_AUX, {}, 23_834_568, 34_432, 5_713_216_096,
   25_485_512, 25_496_188, 1_650_944, 2_473_024),
  # The notebooks also count the convolutions of the auxiliary head, which no evaluation runs.
  ('inception_v3_cifar', {}, {}, 24_504_756, 36_224, 2_085_706_336 - 40_894_464,
   None, 26_166_376, 1_650_944, None),
  ('inception_resnet_v2', {}, {}, 55_843_464, 60_544, 13_155_794_016,
   None, 64_387_444, 8_495_360, 11_539_840),
  ('inception_resnet_v2', MIXED, {}, 55_843_464, 60_544, 13_155_794_016,
   None, 65_092_718, 9_196_928, 12_379_392),
  ('resnet18_tiny', {}, {}, 12_697_224, 9_728, 170_168_320, None, 12_786_304, 87_040, None),
  ('resnet34_tiny', {}, {}, 22_809_096, 17_152, 321_163_264, None, 22_970_292, 157_184, None),
  ('resnet50_tiny', {}, {}, 23_944_392, 53_120, 315_179_008, None, 26_475_384, 2_514_944, None),
  ('resnet46', {}, {}, 10_982_346, 31_232, 87_222_272, None, 12_055_050, 1_062_912, None),
  ('resnet46', {}, {'ratio': 1}, 10_982_346, 31_232, 87_222_272,
   None, 28_007_370, 17_006_592, None),
  ('resnet46', {}, {'stages': 4}, 10_982_346, 31_232, 87_222_272,
   None, 12_039_626, 1_048_576, None),
  ('resnext29_8x64d', {}, {}, 34_455_434, 57_472, 337_045_504, None, 34_977_242, 516_096, None),
]  # fmt: skip


def cases():
  for row in ROWS:
    for kind, params in zip(('plain', 'no_bias', 'bias'), (row[3], row[6], row[7]), strict=True):
      if params is not None and not (kind == 'plain' and (row[2] or row[1] in (MIX, MIXED))):
        options = (*row[1].values(), *row[2].values(), kind)
        yield pytest.param(row, kind, id='-'.join((row[0], *map(str, options)))[:60])


@pytest.mark.parametrize(('row', 'kind'), list(cases()))
def test_networks_cost_what_independent_definitions_cost(row, kind):
  name, overrides, options, params, stats, macs, no_bias, bias, se_macs, squeezed = row
  size = model_info(name).image_size
  if kind == 'plain':
    cost = complexity(create_model(name, **overrides), size)
    assert (cost.params, cost.batch_stats, cost.macs) == (params, stats, macs)
    assert (cost.se_params, cost.se_macs, cost.equation_5, cost.squeezed_elements) == (0,) * 4
  else:
    se = SEConfig(use_bias=kind == 'bias', **options)
    cost = complexity(create_model(name, se=se, **overrides), size)
    total = bias if se.use_bias else no_bias
    assert (cost.params, cost.batch_stats, cost.macs) == (total, stats, macs + se_macs)
    assert (cost.se_macs, cost.squeezed_elements) == (se_macs, squeezed or cost.squeezed_elements)
    assert cost.se_params == total - (params or total - cost.se_params)
    # 216 channels over 16 is no integer; everywhere else equation 5 is exact.
    first = 2 * 216 * (216 / 16 - 216 // 16) if name.startswith('shuffle') else 0
    assert cost.equation_5 == cost.se_weights + (first if options != POST_SE else 0)
    assert no_bias is None or cost.se_weights == no_bias - params
  for field in ('params', 'macs', 'se_params', 'se_macs'):
    assert sum(getattr(stage, field) for stage in cost.stages.values()) == getattr(cost, field)
  for field in ('params', 'macs'):
    assert sum(getattr(layer, field) for layer in cost.layers) == getattr(cost, field)


def test_every_network_has_its_row():
  counted = {row[0] for row in ROWS}
  assert counted == {name for name in list_models() if not name.startswith('se_')} - {
    'resnet20_cifar'
  }
