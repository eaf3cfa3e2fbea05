"""Pictures for people, and the curves in a notebook."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from senet_jax.errors import UserError
from senet_jax.reporting import notebook, pictures


def test_a_grid_has_a_title_for_each_image():
  images = [np.zeros((8, 8, 1), np.uint8), np.zeros((4, 6, 3), np.uint8), Image.new('RGB', (5, 5))]
  figure = pictures.grid(images, ['a', 'b', 'c'], columns=2)
  assert [axes.get_title() for axes in figure.axes] == ['a', 'b', 'c', '']
  assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 0]


def test_confusion_shows_shares_of_rows_and_counts():
  figure = pictures.confusion(np.array([[3, 1], [0, 0]]), ['cat', 'dog'])
  (axes,) = figure.axes
  np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
  assert {(t.get_position(), t.get_text()) for t in axes.texts} == {((0, 0), '3'), ((1, 0), '1')}
  many = pictures.confusion(np.eye(30, dtype=int), [str(i) for i in range(30)])
  assert not many.axes[0].texts


def test_gates_have_a_line_for_each_image_and_a_panel_for_each_block():
  blocks = {'SE_2_1': np.full((2, 4), 0.5), 'SE_3_1': np.full((2, 8), 0.25)}
  figure = pictures.gates(blocks, ['cat', 'dog'])
  assert [axes.get_title() for axes in figure.axes] == ['SE_2_1', 'SE_3_1']
  assert [len(axes.lines) for axes in figure.axes] == [2, 2]


def test_bars_have_a_panel_for_each_group():
  figure = pictures.bars({'ours': {'r2': 52.9, 'r4': 53.0}, 'published': {'r2': 22.3}}, 'error')
  assert [len(axes.patches) for axes in figure.axes] == [2, 1]


@pytest.fixture
def shown(monkeypatch):
  """IPython's display, as far as it is called; a list of what is shown."""
  found = []
  display = types.ModuleType('IPython.display')
  display.Image = lambda data, format: Image.open(io.BytesIO(data))
  display.display = lambda image, **_: (
    found.append(image) or types.SimpleNamespace(update=lambda new: found.__setitem__(-1, new))
  )
  package = types.ModuleType('IPython')
  package.display = display
  monkeypatch.setitem(sys.modules, 'IPython', package)
  monkeypatch.setitem(sys.modules, 'IPython.display', display)
  return found


def test_live_curves_are_one_picture_that_grows(shown, monkeypatch):
  drawn = []
  of_run = notebook.curves.of_run
  monkeypatch.setattr(
    notebook.curves,
    'of_run',
    lambda records, title: drawn.append(records) or of_run(records, title),
  )
  record = {'kind': 'eval', 'step': 5, 'epoch': 1.0, 'loss': 1.0, 'top1_error': 50.0}
  curve = notebook.LiveCurves('digits', [record])
  curve({**record, 'step': 10, 'epoch': 2.0})
  curve({**record, 'loss': 0.5})  # of a run that resumes before its end
  assert [[r['step'] for r in records] for records in drawn] == [[5], [5, 10], [5, 10]]
  assert drawn[-1][0]['loss'] == 0.5 and len(shown) == 1


def test_pictures_have_few_colours(shown, tmp_path):
  figure = pictures.bars({'ours': {'a': 1.0}}, 'x')
  notebook.show(figure)
  notebook.show(figure, 'jpeg')
  figure.savefig(tmp_path / 'x.png')
  notebook.show(tmp_path / 'x.png')
  assert [image.mode for image in shown] == ['P', 'RGB', 'P']


def test_a_mistake_is_one_line_in_a_notebook():
  assert UserError('a mistake.')._render_traceback_() == ['senet_jax: a mistake.']
