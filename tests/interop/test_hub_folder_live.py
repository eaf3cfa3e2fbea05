"""A folder for the hub is what timm reads: the same function, classes and images."""

import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.tools import convert
from senet_jax.workdir import exchange
from tests.helpers.torch_networks import network_of, randomized
from tests.helpers.torch_zoo import import_timm

timm, _ = import_timm()
import torch  # noqa: E402


def test_timm_reads_it(tmp_path):
  network = randomized(network_of('timm:seresnet18', 5), 64)
  torch.save(network.state_dict(), tmp_path / 'a.pth')
  to = tmp_path / 'folder'
  convert.main([f'--from={tmp_path}/a.pth', f'--to=hf:{to}'])
  again = timm.create_model(f'local-dir:{to}', pretrained=True).eval()
  images = torch.randn(2, 3, 64, 64)
  with torch.no_grad():
    np.testing.assert_array_equal(again(images), network(images))
  given = again.pretrained_cfg
  assert given['interpolation'] == 'bicubic' and list(given['input_size']) == [3, 224, 224]
  assert given['mean'] == pytest.approx((0.485, 0.456, 0.406)) and given['num_classes'] == 5
  back = exchange.read(to / 'model.safetensors')
  assert 'the file says that it is seresnet18' in back.notes[0]
  assert back.config.data.resize == 256 and back.config.data.interpolation == 'bicubic'
  with pytest.raises(UserError, match='is there already'):
    convert.main([f'--from={tmp_path}/a.pth', f'--to=hf:{to}'])
