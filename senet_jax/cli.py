"""What all commands share: parsing, exit statuses, and user errors as one line."""

import argparse
import ctypes
import errno
import importlib.util
import logging
import os
import pathlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from senet_jax.errors import USER_ERROR, Stalled, UserError
from senet_jax.storage import buckets

# Set by a command for those that it starts: its process, with which they end.
PARENT = 'SENET_JAX_PARENT'

# EX_TEMPFAIL of sysexits.h: saved and stopped early; launchers requeue the job.
PREEMPTED = 75

# What asyncio says to those that call its loop too late.
_LATE = 'Event loop is closed'

_USER_OS_ERRORS = {
  errno.ENOSPC: 'free some space or choose another directory',
  errno.EDQUOT: 'free some space or choose another directory',
  errno.EACCES: 'choose a path that you may read and write',
  errno.EPERM: 'choose a path that you may read and write',
  errno.EROFS: 'choose a directory on a writable file system',
  errno.ENOENT: 'check the path',
  errno.ENOTDIR: 'a part of the path is a file, not a directory',
  errno.EEXIST: 'it is a file; choose a directory',
  errno.EISDIR: 'give a file, not a directory',
  errno.ELOOP: 'the path has a link to itself; remove it',
  errno.ENAMETOOLONG: 'give a shorter path',
}

# What setup.cfg requires, and wrapt, which clu does: module -> its name for pip.
_PACKAGES = {
  'PIL': 'Pillow',
  'clu': 'clu',
  'etils': 'etils',
  'flax': 'flax',
  'fsspec': 'fsspec',
  'jax': 'jax',
  'matplotlib': 'matplotlib',
  'ml_collections': 'ml_collections',
  'numpy': 'numpy',
  'optax': 'optax',
  'orbax': 'orbax-checkpoint',
  'rich': 'rich',
  'scipy': 'scipy',
  'sklearn': 'scikit-learn',
  'wrapt': 'wrapt',
}
# Those that only the files of tfds need: the extra `tensorflow`, and what it works with.
_TENSORFLOW = {
  'google_crc32c': 'google-crc32c',
  'importlib_resources': 'importlib_resources',
  'tensorflow': 'TensorFlow',
  'tensorflow_datasets': 'tensorflow-datasets',
}
# Small, and nothing else brings them; what they depend on could replace the jax of the machine.
_ALONE = ('clu', 'ml_collections', 'wrapt')


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are `UserError`s and whose help is the module's docstring."""

  def __init__(self, name: str, doc: str):
    super().__init__(
      prog=f'python -m senet_jax.{name}',
      description=doc,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )

  def error(self, message: str) -> NoReturn:
    """Raises `UserError` instead of printing the usage."""
    raise UserError(f'{message} (see {self.prog} --help)')

  def parse_with_overrides(self, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parses a command line whose `--config.…` change fields of a configuration.

    Returns:
      The flags, and the arguments that change fields, as they are.
    """
    from senet_jax.config import reading  # late, for a fast --help of the others

    overrides = [a for a in argv if a.startswith((reading.FIELD, reading.NO_FIELD))]
    return self.parse_args([a for a in argv if a not in overrides]), overrides

  def add_output(self) -> None:
    """Adds `--output`, where a command that prints a table writes it as JSON too."""
    self.add_argument(
      '--output', type=pathlib.Path, help='also write the numbers to this JSON file'
    )


def number(text: str) -> int:
  """Parses an integer of at least 1, as the type of an argument."""
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f'{text!r} must be an integer of at least 1')
  return int(text)


def numbers(text: str) -> tuple[int, ...]:
  """Parses integers of at least 1, separated by commas."""
  return tuple(map(number, words(text)))


def positive(text: str) -> float:
  """Parses a finite number greater than 0, such as a duration."""
  try:
    value = float(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(f'{text!r} is not a number') from error
  if not 0 < value < float('inf'):
    raise argparse.ArgumentTypeError(f'{text!r} must be greater than 0')
  return value


def words(text: str) -> tuple[str, ...]:
  """Parses words separated by commas, and drops repetitions."""
  found = tuple(dict.fromkeys(filter(None, text.split(','))))
  if not found:
    raise argparse.ArgumentTypeError('nothing is given')
  return found


def path_or_bucket(text: str) -> buckets.Path:
  """The type of an argument that may be `gs://…`."""
  try:
    return buckets.to_path(text)
  except UserError as error:  # argparse would keep its message to itself
    raise argparse.ArgumentTypeError(str(error)) from error


def run(command: Callable[[list[str]], int | None]) -> NoReturn:
  """Runs a command on `sys.argv` and exits with its status.

  Args:
    command: takes the arguments; returns the exit status, None for 0.
  """
  _quiet_background()
  end_with_parent()
  try:
    status = command(sys.argv[1:])
  except UserError as error:
    status = _complain(str(error))
    if isinstance(error, Stalled):  # the interpreter would wait for the thread
      os._exit(status)
  except OSError as error:
    if error.errno not in _USER_OS_ERRORS:
      raise
    what = f'{error.strerror}: {error.filename}' if error.filename else str(error)
    status = _complain(f'{what}; {_USER_OS_ERRORS[error.errno]}.')
  except ImportError as error:
    problem = _missing(error)
    if problem is None:
      raise
    status = _complain(problem)
  except KeyboardInterrupt:
    status = _complain('interrupted.', 130)
  sys.stdout.flush()
  sys.exit(status)


def end_with_parent() -> None:
  """Lets Linux send SIGTERM when the command that started this one is gone, however it ended."""
  if sys.platform == 'linux' and os.environ.get(PARENT) == str(os.getppid()):
    pr_set_pdeathsig = 1  # of <sys/prctl.h>
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _missing(error: ImportError) -> str | None:
  """Returns what to install after a failed import; None if it was of no package that we require."""
  module = (error.name or '').partition('.')[0]
  if module in _TENSORFLOW:
    return (
      f'the files of tfds need {_TENSORFLOW[module]}, which is not installed: '
      "pip install 'senet_jax[tensorflow]'. Folders of photos, digits, data sets that are prepared "
      'as arrays (CIFAR: tools.prepare_data --arrays_only) and --config.data.fake=True do without.'
    )
  if module not in _PACKAGES:
    return None
  missing = [name for name in _PACKAGES if not _is_installed(name)]
  if not missing:
    return (
      f'the {_PACKAGES[module]} that is installed does not fit ({error}); '
      '`pip install -c constraints.txt -e .` brings the versions that were tested.'
    )
  names = [_PACKAGES[name] for name in missing]
  how = ' '.join(['--no-deps', *_ALONE] if set(missing) <= set(_ALONE) else names)
  return (
    f'{", ".join(names)} must be installed, too: pip install {how} (tools.evidence --pack '
    'writes what a machine without network needs).'
  )


def _is_installed(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except (ImportError, ValueError):
    return False


def _quiet_background() -> None:
  """Keeps what libraries and their threads print out of the way of our own lines.

  Whoever waits for Orbax gets the error of its thread, and that one is reported; Orbax prints it a
  dozen times before that, with hundreds of lines when a disk is full. Other errors of threads stay.
  """
  for library in ('absl', 'asyncio', 'gcsfs'):
    logging.getLogger(library).setLevel(logging.CRITICAL)
  threading.excepthook = _without_known(threading.excepthook)
  sys.unraisablehook = _without_known(sys.unraisablehook)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('senet_jax: %(message)s'))
  logging.getLogger('senet_jax').addHandler(handler)
  logging.getLogger('senet_jax').propagate = False


def _without_known(hook: Callable[[Any], None]) -> Callable[[Any], None]:
  """Returns `hook` of `threading` or `sys`, which leaves out errors that are reported elsewhere."""

  def hook_others(args: Any) -> None:
    # TensorStore tells the event loop of a read that failed about the others that failed, too.
    late = isinstance(args.exc_value, RuntimeError) and str(args.exc_value) == _LATE
    frames = traceback.walk_tb(args.exc_traceback)
    modules = (frame.f_globals.get('__name__') or '' for frame, _ in frames)
    if not late and not any(module.startswith('orbax.') for module in modules):
      hook(args)

  return hook_others


def _complain(message: str, status: int = USER_ERROR) -> int:
  print('senet_jax:', ' '.join(message.split()), file=sys.stderr)
  return status
