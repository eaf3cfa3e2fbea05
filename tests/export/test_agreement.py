"""Whether an exported file is taken for its network."""

import pathlib

import pytest

from senet_jax.errors import UserError
from senet_jax.export.agreement import Agreement


@pytest.mark.parametrize('wrong', [float('nan'), float('inf'), 0.1])
@pytest.mark.parametrize('place', [0, 1])
def test_no_file_agrees_of_which_one_batch_does_not(wrong, place):
  rows = [{'relative': 1e-6}, {'relative': 1e-6}]
  Agreement(rows, 7).check(pathlib.Path('net.onnx'))
  rows[place] = {'relative': wrong}
  with pytest.raises(UserError, match='differs from the network by'):
    Agreement(rows, 7).check(pathlib.Path('net.onnx'))
