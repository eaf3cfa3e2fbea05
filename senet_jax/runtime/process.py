"""This process: its compilation cache, TensorFlow, cores and files."""

import os
import pathlib

import jax


def use_compilation_cache() -> None:
  """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or the user's cache."""
  if not jax.config.jax_compilation_cache_dir:
    base = pathlib.Path(os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache'))
    jax.config.update('jax_compilation_cache_dir', str(base / 'senet_jax' / 'xla'))


def import_tensorflow():
  """TensorFlow, quiet and kept off the accelerators.

  Raises:
    ImportError: it is not installed.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # it announces itself at every log level
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  return tf


def usable_cores() -> int:
  """CPU cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # which macOS has not
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def allow_many_files() -> None:
  """Raises the soft limit of open files to the hard one."""
  import resource  # Windows has none

  _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
