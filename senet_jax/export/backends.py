"""Runtimes for ONNX files: a file becomes a function from images to outputs."""

import pathlib
from collections.abc import Callable

import numpy as np

from senet_jax import runtime
from senet_jax.errors import one_of
from senet_jax.export import formats
from senet_jax.export.formats import Call


def onnxruntime(path: pathlib.Path) -> Call:
  """Returns what onnxruntime makes of a file, on as many CPU cores as there are.

  Raises:
    UserError: the file is damaged.
  """
  import onnxruntime as ort

  options = ort.SessionOptions()
  options.intra_op_num_threads = runtime.usable_cores()
  options.log_severity_level = 4
  with formats.runnable(path, _errors_of_onnxruntime()):
    session = ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    (given,) = session.get_inputs()
  names = [output.name for output in session.get_outputs()]

  def call(images: np.ndarray) -> dict[str, np.ndarray]:
    with formats.runnable(path, _errors_of_onnxruntime()):
      return dict(zip(names, session.run(names, {given.name: images}), strict=True))

  return call


def _errors_of_onnxruntime() -> tuple[type[Exception], ...]:
  from onnxruntime.capi import onnxruntime_pybind11_state as state

  return (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument,
          state.NotImplemented, state.RuntimeException, ValueError)  # fmt: skip


def openvino(path: pathlib.Path, precision: str = 'f32') -> Call:
  """Returns what OpenVINO makes of a file, on the CPU.

  Args:
    path: of the file.
    precision: of its computation, `f32` or `bf16`.

  Raises:
    UserError: the file is damaged.
  """
  import openvino

  options = {'INFERENCE_PRECISION_HINT': precision, 'PERFORMANCE_HINT': 'LATENCY',
             'INFERENCE_NUM_THREADS': runtime.usable_cores()}  # fmt: skip
  with formats.runnable(path, (RuntimeError, ValueError)):
    compiled = openvino.Core().compile_model(str(path), 'CPU', options)
    request = compiled.create_infer_request()
  names = [output.get_any_name() for output in compiled.outputs]

  def call(images: np.ndarray) -> dict[str, np.ndarray]:
    with formats.runnable(path, (RuntimeError, ValueError)):
      results = request.infer([np.ascontiguousarray(images)])
    return {name: np.array(results[i]) for i, name in enumerate(names)}

  return call


BACKENDS: dict[str, Callable[[pathlib.Path], Call]] = {
  'onnxruntime': onnxruntime,
  'openvino': openvino,
}


def checked(name: str) -> Callable[[pathlib.Path], Call]:
  """Returns what opens a file in the runtime `name`.

  Raises:
    UserError: there is no such runtime, or it is not installed.
  """
  one_of('--backend', name, BACKENDS)
  formats.require(name, f'--backend={name}')
  return BACKENDS[name]
