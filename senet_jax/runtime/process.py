"""This process: its compilation cache, TensorFlow, cores and files."""

import logging
import os
import pathlib
from typing import Any

import jax

from senet_jax.storage import buckets

_log = logging.getLogger(__name__)


def use_compilation_cache() -> None:
  """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or the user's cache.

  Where neither can be written, programs are compiled anew each time, and a line says so.
  """
  options: Any = jax.config  # older versions of JAX do not declare its attributes
  given = options.jax_compilation_cache_dir
  if given and buckets.in_bucket(given):
    return
  try:
    directory = pathlib.Path(given) if given else _user_cache() / 'senet_jax' / 'xla'
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
      raise PermissionError(f'{directory} is not writable')
    jax.config.update('jax_compilation_cache_dir', str(directory))
  except (OSError, RuntimeError) as error:
    jax.config.update('jax_compilation_cache_dir', None)
    _log.warning(
      'programs are compiled anew each time (%s); set JAX_COMPILATION_CACHE_DIR to a directory '
      'that can be written.',
      str(error).rstrip('.'),
    )


def _user_cache() -> pathlib.Path:
  """Returns the directory of the user's caches.

  Raises:
    RuntimeError: there is no HOME, and the user has no name, as in a container.
  """
  given = os.environ.get('XDG_CACHE_HOME')
  return pathlib.Path(given) if given else pathlib.Path.home() / '.cache'


def import_tensorflow():
  """Imports TensorFlow, quiet and kept off the accelerators.

  Raises:
    ImportError: it is not installed.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # it announces itself at every log level
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  return tf


def usable_cores() -> int:
  """Returns the number of CPU cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # which macOS has not
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def allow_many_files() -> None:
  """Raises the soft limit of open files to the hard one."""
  import resource  # Windows has none

  _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
