"""The picture of a study's errors over the seconds of training."""

from senet_jax.reporting import error_and_time


def row(name: str, mean: float | None, std: float | None, *seconds: float, of=None) -> dict:
  return {'row': name, 'mean': mean, 'std': std, 'train_time_s': list(seconds), 'baseline': of}


ROWS = [
  row('r20_modern_5', 17.0, 0.5, 100.0, 120.0),
  row('se_r20_modern_5', 16.5, 0.4, 115.0, 125.0, of='r20_modern_5'),
  row('r20_modern_15', 11.0, None, 330.0),
  row('se_r20_modern_15', None, None, of='r20_modern_15'),
  row('eca_r20_modern_5', 16.8, 0.1, 111.0, 113.0, of='r20_modern_5'),
  row('se_r20_paper_5', 23.0, 0.1, 112.0, of='r20_paper_5'),
]


def test_a_line_for_each_network_and_recipe(tmp_path):
  axes = error_and_time.figure('Does SE pay?', ROWS).axes[0]
  lines = {bar.get_label(): bar.lines[0] for bar in axes.containers}
  assert list(lines) == ['r20_modern', 'se_r20_modern', 'eca_r20_modern', 'se_r20_paper']
  plain, se, eca, other = lines.values()
  assert list(plain.get_xdata()) == [100.0, 330.0] and list(plain.get_ydata()) == [17.0, 11.0]
  assert list(se.get_xdata()) == [115.0] and list(se.get_ydata()) == [16.5]
  assert plain.get_color() == se.get_color() == eca.get_color() != other.get_color()
  assert plain.get_linestyle() == '--'
  assert {line.get_linestyle() for line in (se, eca, other)} == {'-'}
  assert se.get_marker() != eca.get_marker()
  bars = axes.containers[0].lines[2][0].get_segments()
  assert [tuple(segment[:, 1]) for segment in bars] == [(16.5, 17.5), (11.0, 11.0)]
  error_and_time.draw(tmp_path / 'a.png', 'Does SE pay?', ROWS)
  assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


def test_without_a_finished_run(tmp_path):
  error_and_time.draw(tmp_path / 'a.png', 'none', [row('a', None, None)])
  assert not error_and_time.figure('none', [row('a', None, None)]).axes[0].containers


def test_an_old_record_has_no_time():
  old = row('a', 3.0, None)
  assert not error_and_time.figure('none', [old]).axes[0].containers
  assert error_and_time.figure('one', [row('a', 3.0, None, 2.0)]).axes[0].containers
