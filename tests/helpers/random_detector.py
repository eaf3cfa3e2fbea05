"""A detector of random weights that is sure of what it says, small enough for tests."""

import pathlib

import jax

from senet_jax import config as config_lib, runtime
from senet_jax.workdir import network, saved

CLASSES = ('cat', 'dog', 'fire hydrant')


def configuration():
  """A configuration of it: photos of 64 pixels, padded to 64 x 96 or 96 x 64."""
  config = config_lib.coco('se_faster_rcnn_r50_fpn', 'small')
  config.model.width, config.model.se.ratio = 8, 4
  config.data.shorter_side, config.data.longer_side = 64, 96
  config_lib.check(config)
  return config


def write(workdir: pathlib.Path) -> None:
  """Writes it as a workdir."""
  config = configuration()
  model = network.build_model(config, len(CLASSES))
  variables = jax.device_get(network.init_variables(config, model, runtime.data_mesh(1)))
  kernel = variables['params']['roi_head']['class_logits']['kernel']
  variables['params']['roi_head']['class_logits']['kernel'] = 0.3 * kernel
  saved.write(workdir, config, variables, len(CLASSES), CLASSES, {'made': 'here'})
