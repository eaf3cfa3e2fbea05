"""Compares the parameters and multiply-adds that the paper prints with those counted here.

Tables 2 and 3 are in `model_info(name).published`; those of section 6 and 7 (tables 10, 13, 15 and
16), which are of options and not of networks, are here.
"""

import dataclasses
import functools
from typing import Any

from senet_jax.complexity import counts as complexity_lib
from senet_jax.layers import SEConfig
from senet_jax.models import create_model, list_models, model_info

# The networks of tables 2 and 3 without SE, in the paper's order; each is followed by its twin.
_NETWORKS = {
  2: ('resnet50', 'resnet101', 'resnet152', 'resnext50_32x4d', 'resnext101_32x4d', 'vgg16_bn',
      'bn_inception', 'inception_resnet_v2'),
  3: ('mobilenet_v1', 'shufflenet_v1_g3'),
}  # fmt: skip

_MILLION, _BILLION = 10**6, 10**9
# What the last digit of the printed parameters is worth.
_PARAMS_DIGIT = _MILLION // 10
_DEFAULT = vars(SEConfig())
# The paper prints several times the multiply-adds of SE's layers for these: it counts the squeeze.
# No choice of elementwise operations (addition, squeeze, scale) fits all residual networks.
_WITH_SQUEEZE = ('se_vgg16_bn', 'se_mobilenet_v1')
# Relative; what the paper counts besides convolutions and fully connected layers is less.
_NEAR = 0.005

_UNEXPLAINED_MACS = {
  'inception_resnet_v2': 'MACs unexplained: no known definition has as many',
  'shufflenet_v1_g3': 'MACs nominal: its own paper counts 137 M, without SE',
}


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of one of the paper's tables.

  Attributes:
    table: its number.
    label: of the row.
    model: the network.
    se: its SE blocks, or None.
    params: as printed, or None.
    macs: as printed, or None.
    remark: why `params` differs, where it is particular to the row.
  """

  table: int
  label: str
  model: str
  se: SEConfig | None
  params: int | None
  macs: int | None
  remark: str = ''

  @property
  def in_millions(self) -> bool:
    """True if the table has multiply-adds in millions, without decimals."""
    return self.table == 3

  @property
  def se_options(self) -> dict[str, Any]:
    """Options of the SE blocks that are not the default ones."""
    return {} if self.se is None else {k: v for k, v in vars(self.se).items() if v != _DEFAULT[k]}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A row, and what our network has.

  Attributes:
    row: the paper's.
    image_size: that the multiply-adds are for, in pixels.
    cost: counted.
    reasons: why the counted figures do not round to the printed ones, as far as it is known.
  """

  row: Row
  image_size: int
  cost: complexity_lib.Complexity
  reasons: tuple[str, ...]

  @property
  def params_deviation_percent(self) -> float | None:
    """The deviation of the parameters counted from those printed."""
    return _deviation(self.cost.params, self.row.params)

  @property
  def macs_deviation_percent(self) -> float | None:
    """The deviation of the multiply-adds counted from those printed."""
    return _deviation(self.cost.macs, self.row.macs)

  @property
  def equation_5_reason(self) -> str:
    """The reason why the SE blocks do not have the weights of equation 5; empty where they do."""
    ratio = self.row.se.ratio if self.row.se else 1
    cut = {
      layer.output[-1]: None
      for layer in self.cost.layers
      if layer.output and layer.se and layer.path.endswith('fc2') and layer.output[-1] % ratio
    }
    return '; '.join(
      f'{channels} channels have {channels // ratio} hidden units for {channels / ratio:g}'
      for channels in cut
    )


def rows() -> list[Row]:
  """Returns the rows of tables 2, 3, 10, 13, 15 and 16 whose networks are registered."""
  networks = [
    _network_row(table, name)
    for table, plain in _NETWORKS.items()
    for base in plain
    for name in (base, f'se_{base}')
    if name in list_models()
  ]
  return [*networks, *_ablation_rows()]


def compare(row: Row) -> Comparison:
  """Counts what the network of `row` has, in seconds."""
  model = create_model(row.model, se=row.se)
  image_size = model_info(row.model).image_size
  cost = _complexity(model, image_size)
  reasons = [_params_reason(row, cost), _macs_reason(row, cost)]
  return Comparison(row, image_size, cost, tuple(filter(None, reasons)))


# Networks are equal if they are built alike.
_complexity = functools.cache(complexity_lib.complexity)


def _network_row(table: int, name: str) -> Row:
  info = model_info(name)
  params, gflops = info.published.get('params'), info.published['gflops']
  return Row(
    table=table,
    label=name,
    model=name,
    se=SEConfig() if info.se else None,
    params=None if params is None else round(params),
    macs=round(gflops * _BILLION),
  )


def _ablation_rows() -> list[Row]:
  """Returns the rows of the ablations of ResNet-50, whose SE blocks have no biases (section 6)."""
  mixed = 'parameters with BN statistics and SE biases (but r = 2 without: it would be 45.8 M)'
  table = [
    (10, 'r = 2', {'ratio': 2}, 45.7, None, ''),
    (10, 'r = 4', {'ratio': 4}, 35.7, None, ''),
    (10, 'r = 8', {'ratio': 8}, 30.7, None, mixed),
    (10, 'r = 16', {}, 28.1, None, ''),
    (10, 'r = 32', {'ratio': 32}, 26.9, None, ''),
    (10, 'original', None, 25.6, None, ''),
    (13, 'ResNet-50', None, 25.6, 3.86, ''),
    (13, 'SE_Stage_2', {'stages': 2}, 25.6, 3.86, ''),
    (13, 'SE_Stage_3', {'stages': 3}, 25.7, 3.86, ''),
    (13, 'SE_Stage_4', {'stages': 4}, 26.4, 3.86, ''),
    (13, 'SE_All', {}, 28.1, 3.87, ''),
    (15, 'SE', {}, 28.1, 3.87, ''),
    (15, 'SE_3x3', {'position': 'conv3x3'}, 25.8, 3.86, ''),
    (16, 'ResNet-50', None, 25.6, 3.86, ''),
    (16, 'NoSqueeze', {'squeeze': 'none'}, 28.1, 4.27, ''),
    (16, 'SE', {}, 28.1, 3.87, ''),
  ]
  return [
    Row(
      table=number,
      label=label,
      model='resnet50' if options is None else 'se_resnet50',
      se=None if options is None else SEConfig(use_bias=False, **options),
      params=round(millions * _MILLION),
      macs=None if gflops is None else round(gflops * _BILLION),
      remark=remark,
    )
    for number, label, options, millions, gflops, remark in table
  ]


def _params_reason(row: Row, cost: complexity_lib.Complexity) -> str:
  if row.params is None or _rounded(cost.params, _PARAMS_DIGIT) == row.params:
    return ''
  if _rounded(cost.params + cost.batch_stats, _PARAMS_DIGIT) == row.params:
    return 'parameters with BN statistics'
  if cost.params // _PARAMS_DIGIT * _PARAMS_DIGIT == row.params:
    return 'parameters cut off, not rounded'
  return row.remark or 'parameters unexplained'


def _macs_reason(row: Row, cost: complexity_lib.Complexity) -> str:
  digit = _MILLION if row.in_millions else _BILLION // 100
  if row.macs is None or _rounded(cost.macs, digit) == row.macs:
    return ''
  squeezed = _rounded(cost.macs + cost.squeezed_elements, digit) == row.macs
  if row.model in _WITH_SQUEEZE and squeezed:
    return 'MACs with the squeeze'
  if abs(cost.macs / row.macs - 1) < _NEAR:
    return "within 0.5 %; the paper's convention is not determinable"
  return _UNEXPLAINED_MACS.get(row.model.removeprefix('se_'), 'MACs unexplained')


def _rounded(count: int, digit: int) -> int:
  return round(count / digit) * digit


def _deviation(count: int, printed: int | None) -> float | None:
  return None if printed is None else 100 * (count / printed - 1)
