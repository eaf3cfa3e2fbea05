"""The paper's parameters and multiply-adds, and ours."""

import csv
import functools
import json

import pytest

from senet_jax import errors
from senet_jax.complexity import paper_costs
from senet_jax.models import list_models
from senet_jax.tools import complexity as tool

SQUEEZE = 'MACs with the squeeze'
NEAR = "within 0.5 %; the paper's convention is not determinable"
NONE_KNOWN = 'MACs unexplained: no known definition has as many'
NOMINAL = 'MACs nominal: its own paper counts 137 M, without SE'
STATISTICS, CUT_OFF = 'parameters with BN statistics', 'parameters cut off, not rounded'
MIXED = 'parameters with BN statistics and SE biases (but r = 2 without: it would be 45.8 M)'

# Counted in independent definitions: table, row, parameters, MACs; then what the paper prints, in
# millions and billions, and the reason where that is not the rounded count.
ROWS = [
  (2, 'resnet50', 25_557_032, 3_857_973_248, None, 3.86, []),
  (2, 'se_resnet50', 28_088_024, 3_860_488_192, None, 3.87, [NEAR]),
  (2, 'resnet101', 44_549_160, 7_570_194_432, None, 7.58, [NEAR]),
  (2, 'se_resnet101', 49_326_872, 7_574_937_600, None, 7.60, [NEAR]),
  (2, 'resnet152', 60_192_808, 11_282_415_616, None, 11.30, [NEAR]),
  (2, 'se_resnet152', 66_821_848, 11_288_993_792, None, 11.32, [NEAR]),
  (2, 'resnext50_32x4d', 25_028_904, 4_230_479_872, None, 4.24, [NEAR]),
  (2, 'se_resnext50_32x4d', 27_559_896, 4_232_994_816, None, 4.25, [NEAR]),
  (2, 'resnext101_32x4d', 44_177_704, 7_969_996_800, None, 7.99, [NEAR]),
  (2, 'se_resnext101_32x4d', 48_955_416, 7_974_739_968, None, 8.00, [NEAR]),
  (2, 'vgg16_bn', 138_365_992, 15_470_264_320, None, 15.47, []),
  (2, 'se_vgg16_bn', 138_596_784, 15_470_490_624, None, 15.48, [SQUEEZE]),
  (2, 'bn_inception', 11_285_224, 2_032_600_064, None, 2.03, []),
  (2, 'se_bn_inception', 11_931_622, 2_033_239_424, None, 2.04, [NEAR]),
  (2, 'inception_resnet_v2', 55_843_464, 13_155_794_016, None, 11.75, [NONE_KNOWN]),
  (2, 'se_inception_resnet_v2', 64_387_444, 13_164_289_376, None, 11.76, [NONE_KNOWN]),
  (3, 'mobilenet_v1', 4_231_976, 568_740_352, 4.2, 0.569, []),
  (3, 'se_mobilenet_v1', 4_718_044, 569_220_096, 4.7, 0.572, [SQUEEZE]),
  (3, 'shufflenet_v1_g3', 1_865_728, 137_460_672, 1.8, 0.140, [CUT_OFF, NOMINAL]),
  (3, 'se_shufflenet_v1_g3', 2_484_533, 138_071_088, 2.4, 0.142, [CUT_OFF, NOMINAL]),
  (10, 'r = 2', 45_676_584, 3_878_092_800, 45.7, None, []),
  (10, 'r = 4', 35_616_808, 3_868_033_024, 35.7, None, [STATISTICS]),
  (10, 'r = 8', 30_586_920, 3_863_003_136, 30.7, None, [MIXED]),
  (10, 'r = 16', 28_071_976, 3_860_488_192, 28.1, None, []),
  (10, 'r = 32', 26_814_504, 3_859_230_720, 26.9, None, [STATISTICS]),
  (10, 'original', 25_557_032, 3_857_973_248, 25.6, None, []),
  (13, 'ResNet-50', 25_557_032, 3_857_973_248, 25.6, 3.86, []),
  (13, 'SE_Stage_2', 25_581_608, 3_857_997_824, 25.6, 3.86, []),
  (13, 'SE_Stage_3', 25_688_104, 3_858_104_320, 25.7, 3.86, []),
  (13, 'SE_Stage_4', 26_343_464, 3_858_759_680, 26.4, 3.86, [STATISTICS]),
  (13, 'SE_All', 28_071_976, 3_860_488_192, 28.1, 3.87, [NEAR]),
  (15, 'SE', 28_071_976, 3_860_488_192, 28.1, 3.87, [NEAR]),
  (15, 'SE_3x3', 25_714_216, 3_858_130_432, 25.8, 3.86, [STATISTICS]),
  (16, 'ResNet-50', 25_557_032, 3_857_973_248, 25.6, 3.86, []),
  (16, 'NoSqueeze', 28_071_976, 4_269_015_040, 28.1, 4.27, []),
  (16, 'SE', 28_071_976, 3_860_488_192, 28.1, 3.87, [NEAR]),
]
RESNET50_STATISTICS = 53_120


@functools.cache
def _comparisons():
  return {(c.row.table, c.row.label): c for c in map(paper_costs.compare, paper_costs.rows())}


def test_all_rows_are_there_in_the_order_of_the_paper():
  assert list(_comparisons()) == [row[:2] for row in ROWS]


@pytest.mark.parametrize('row', ROWS, ids=lambda row: f'{row[0]}-{row[1]}')
def test_rows(row):
  table, label, params, macs, millions, billions, reasons = row
  comparison = _comparisons()[table, label]
  assert (comparison.cost.params, comparison.cost.macs) == (params, macs)
  assert list(comparison.reasons) == reasons
  printed = [(millions, 1e6, comparison.row.params), (billions, 1e9, comparison.row.macs)]
  for figure, unit, actual in printed:
    assert actual == (None if figure is None else pytest.approx(figure * unit, abs=0.5))
  deviations = (
    (millions, params / 1e6, comparison.params_deviation_percent),
    (billions, macs / 1e9, comparison.macs_deviation_percent),
  )
  for figure, count, deviation in deviations:
    expected = None if figure is None else pytest.approx(100 * (count / figure - 1), abs=1e-9)
    assert deviation == expected


@pytest.mark.parametrize('row', [r for r in ROWS if r[0] >= 10], ids=lambda r: f'{r[0]}-{r[1]}')
def test_ablations_are_within_a_tenth_of_a_million_and_half_a_percent(row):
  comparison = _comparisons()[row[:2]]
  assert abs(comparison.cost.params / 1e6 - row[4]) < 0.115
  assert comparison.cost.batch_stats == RESNET50_STATISTICS
  assert abs(comparison.macs_deviation_percent or 0) < 0.5
  if comparison.row.se:
    assert comparison.cost.se_params == comparison.cost.se_weights == comparison.cost.equation_5


def test_rows_need_their_networks(monkeypatch):
  names = [name for name in list_models() if 'shuffle' not in name and name != 'vgg16_bn']
  monkeypatch.setattr(paper_costs, 'list_models', lambda: names)
  labels = [row.label for row in paper_costs.rows() if row.table < 10]
  gone = {'vgg16_bn', 'shufflenet_v1_g3', 'se_shufflenet_v1_g3'}
  assert labels == [row[1] for row in ROWS if row[0] < 10 and row[1] not in gone]


# The command.


def _table(text, title):
  """Cells of the Markdown table under `title`, without its two header lines."""
  lines = text.partition(f'## {title}\n\n')[2].partition('\n\n')[0].splitlines()
  return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines][2:]


def test_the_command_prints_markdown(capsys):
  tool.main(['--paper'])
  text = capsys.readouterr().out
  assert [line[3:] for line in text.splitlines() if line.startswith('## ')] == [
    *(f'Table {table}' for table in (2, 3, 10, 13, 15, 16)),
    'Equation 5',
  ]
  for table in (2, 3, 10, 13, 15, 16):
    rows = _table(text, f'Table {table}')
    assert [row[0] for row in rows] == [row[1] for row in ROWS if row[0] == table]
    assert {len(row) for row in rows} == {8}
  assert _table(text, 'Table 2')[10:12] == [
    ['vgg16_bn', '138,365,992', '', '', '15,470,264,320', '15.47 G', '+0.00 %', ''],
    ['se_vgg16_bn', '138,596,784', '', '', '15,470,490,624', '15.48 G', '-0.06 %', SQUEEZE],
  ]
  assert _table(text, 'Table 3')[3] == [
    'se_shufflenet_v1_g3', '2,484,533', '2.4 M', '+3.52 %', '138,071,088', '142 M', '-2.77 %',
    f'{CUT_OFF}; {NOMINAL}',
  ]  # fmt: skip
  assert _table(text, 'Table 10')[1] == [
    'r = 4', '35,616,808', '35.7 M', '-0.23 %', '3,868,033,024', '', '', STATISTICS,
  ]  # fmt: skip
  equation_5 = _table(text, 'Equation 5')
  assert equation_5[0] == [
    'table 2, se_resnet50', '2,530,992', '2,514,944', '2,514,944', '+0.00 %', '',
  ]  # fmt: skip
  assert [
    'table 3, se_shufflenet_v1_g3', '618,805', '610,416', '610,632', '-0.04 %',
    '216 channels have 13 hidden units for 13.5',
  ] in equation_5  # fmt: skip
  labels = [row[0] for row in equation_5]
  # Each network once.
  assert labels.count('table 10, r = 16') == 1
  assert not {'table 13, SE_All', 'table 15, SE', 'table 16, SE'} & set(labels)


def test_the_command_writes_json_and_csv(tmp_path, capsys):
  outputs = [tmp_path / 'costs.json', tmp_path / 'costs.csv']
  for output in outputs:
    tool.main(['--paper', f'--output={output}'])
  capsys.readouterr()
  rows = json.loads(outputs[0].read_text())['rows']
  with outputs[1].open(newline='') as file:
    records = list(csv.DictReader(file))
  assert [(row['table'], row['row'], row['params'], row['macs']) for row in rows] == [
    row[:4] for row in ROWS
  ]
  as_text = [{k: '' if v is None else str(v) for k, v in row.items()} for row in rows]
  assert records == as_text
  by_name = {(row['table'], row['row']): row for row in rows}
  assert by_name[10, 'r = 8']['se'] == 'ratio=8 use_bias=False'
  assert by_name[2, 'se_vgg16_bn']['squeezed_elements'] == 13_547_520
  assert by_name[2, 'resnet50']['se'] == ''


def test_the_command_writes_the_markdown_that_it_prints(tmp_path, capsys, monkeypatch):
  rows = [row for row in paper_costs.rows() if row.table == 3]
  monkeypatch.setattr(paper_costs, 'rows', lambda: rows)
  tool.main(['--paper', f'--output={tmp_path}/paper.md'])
  printed = capsys.readouterr().out
  assert (tmp_path / 'paper.md').read_text() == printed
  assert len(_table(printed, 'Table 3')) == 4 and len(_table(printed, 'Equation 5')) == 2


def test_csv_of_networks(tmp_path, capsys):
  output = tmp_path / 'costs.csv'
  tool.main(['--model=*resnet20_cifar', f'--output={output}'])
  capsys.readouterr()
  with output.open(newline='') as file:
    records = list(csv.DictReader(file))
  assert [record['model'] for record in records] == ['resnet20_cifar', 'se_resnet20_cifar']
  assert records[1]['params'] == '272095'
  assert not {'stages', 'layers', 'overrides'} & set(records[0])


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    (['--paper', '--model=resnet50'], 'leave out all options but --output'),
    (['--paper', '--summary=resnet50'], 'leave out all options but --output'),
    (['--paper', '--summary'], 'leave out all options but --output'),
    (['--paper', '--se.ratio=8'], 'leave out all options but --output'),
    (['--paper', '--se.no-bias'], 'leave out all options but --output'),
    (['--paper', '--image_size=64'], 'leave out all options but --output'),
    (['--paper', '--output=costs.txt'], r'costs\.txt must end in \.json, \.csv, \.md'),
    (['--model=resnet50', '--output=costs'], r'--output=costs must end in'),
  ],
)
def test_the_command_says_what_is_wrong(argv, message):
  with pytest.raises(errors.UserError, match=message):
    tool.main(argv)
