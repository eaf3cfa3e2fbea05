"""Weights of TensorFlow's MobileNets, from `.tflite` files; TensorFlow's interpreter reads them.

Such a file is made to be run: its normalisation is multiplied into the convolutions. Here it has a
mean of 0 and a variance of 1 again, with the biases of the convolutions for shifts.
"""

import contextlib
import os
import pathlib
import re
import warnings
from typing import Any

import numpy as np

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.interop import mapping
from senet_jax.interop.names import TFLITE

SUFFIX = '.tflite'
# An optimised graph's names keep those of the layers that they were made of.
_LAYER = re.compile(r'(Conv2d_\d+)(?:_(depthwise|pointwise))?/|(Logits/Conv2d_1c_1x1)/')
_EPSILON = 1e-3  # of the variants: the scale undoes it


def from_tflite(path: str | os.PathLike, variant: str | None = None) -> dict[str, Any]:
  """The variables of a `mobilenet_v1` from a `.tflite` file, of floats or quantised.

  Args:
    path: of the file.
    variant: `tflite:mobilenet_v1_0.5`, …; None: what the weights look most like.

  Returns:
    `params` and `batch_stats`, float32 NumPy arrays.

  Raises:
    UserError: the file is damaged or of another network; or TensorFlow is not installed.
  """
  arrays, _ = read(path)
  chosen = mapping.choose(arrays, TFLITE, 'mobilenet_v1', variant)
  return mapping.to_variables(chosen, arrays, mapping.classes_in(chosen, arrays))


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], int]:
  """The arrays in a `.tflite` file, by TensorFlow's names of layers, and the side of its images.

  The arrays are float32.

  Raises:
    UserError: the file is damaged, or has no convolutions; or TensorFlow is not installed.
  """
  path = pathlib.Path(path)
  path.open('rb').close()  # whatever is raised from here on, the file is there
  tf = runtime.import_tensorflow()
  try:
    with warnings.catch_warnings(action='ignore'):  # it is to move to a package of its own
      interpreter = tf.lite.Interpreter(str(path))  # never run, so nothing is prepared for it
    details = interpreter.get_tensor_details()
    size = int(interpreter.get_input_details()[0]['shape'][1])
    arrays: dict[str, np.ndarray] = {}
    for detail in details:
      match = _LAYER.search(detail['name'])
      with contextlib.suppress(ValueError):  # of maps, which are not there before a run
        if match:
          values = _dequantised(interpreter.get_tensor(detail['index']), detail)
          arrays |= _named('_'.join(filter(None, match.groups())), values)
  except (ValueError, RuntimeError, MemoryError, IndexError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise UserError(f'{path} is damaged or no {SUFFIX} file: {reason}') from error
  if not arrays:
    raise UserError(f'{path} is none of the MobileNets of TensorFlow: it has not their layers.')
  return arrays, size


def _dequantised(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
  quantised = detail['quantization_parameters']
  scales, zeros = quantised['scales'], quantised['zero_points']
  if not len(scales):
    return values.astype(np.float32)
  shape = [1] * values.ndim
  if len(scales) > 1:
    shape[quantised['quantized_dimension']] = -1
  exact = (values.astype(np.float64) - zeros.reshape(shape)) * scales.reshape(shape)
  return exact.astype(np.float32)


def _named(layer: str, values: np.ndarray) -> dict[str, np.ndarray]:
  """A convolution's kernel, or its biases as those of a normalisation."""
  if values.ndim == 4:
    return {f'{layer}/weights': values}
  if layer.startswith('Logits'):
    return {f'{layer}/biases': values}
  ones = np.ones_like(values)
  return {
    f'{layer}/gamma': ones * np.float32(np.sqrt(1 + _EPSILON)),
    f'{layer}/beta': values,
    f'{layer}/moving_mean': 0 * ones,
    f'{layer}/moving_variance': ones,
  }
