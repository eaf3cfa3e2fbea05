"""Parsing, exit statuses, and user errors as one line, for all commands."""

import argparse
import ast
import ctypes
import importlib.util
import logging
import os
import pathlib
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from senet_jax.errors import OS_ERRORS, USER_ERROR, Stalled, UserError
from senet_jax.storage import buckets, files

# Set by a command for those that it starts: its process, with which they end.
PARENT = 'SENET_JAX_PARENT'

# Set by argcomplete where a shell asks a command what may follow: the number of its first word.
COMPLETION = '_ARGCOMPLETE'

# What shells say of a command that wrote into a pipe without a reader.
NO_READER = 128 + signal.SIGPIPE
_STDERR = 2
# Bytes of addresses that a small training takes; most of them are never used.
_ADDRESSES = 3e9
_OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|can't start new thread|annot allocate memory")

# EX_TEMPFAIL of sysexits.h: saved and stopped early; launchers requeue the job.
PREEMPTED = 75

# What asyncio says to those that call its loop too late.
_LATE = 'Event loop is closed'

# What setup.cfg requires, and wrapt, which clu does, by the names of their modules.
REQUIRED = {
  'PIL': 'Pillow>=11.0',
  'clu': 'clu>=0.0.12',
  'etils': 'etils>=1.9',
  'flax': 'flax>=0.12',
  'fsspec': 'fsspec>=2025.3',
  'jax': 'jax>=0.10',
  'matplotlib': 'matplotlib>=3.8',
  'ml_collections': 'ml-collections>=1.0',
  'numpy': 'numpy>=2.0',
  'optax': 'optax>=0.2.5',
  'orbax': 'orbax-checkpoint>=0.12',
  'rich': 'rich>=13.0',
  'safetensors': 'safetensors>=0.5',
  'scipy': 'scipy>=1.11',
  'sklearn': 'scikit-learn>=1.4',
  'wrapt': 'wrapt',
}
# Those that only the files of tfds need: the extra `tensorflow`, and what it works with.
OF_TENSORFLOW = {
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
      prog=_typed(name),
      description=doc,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    self._bare: argparse.Action | None = None
    self._bare_required = False

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

  def add_bare(self, flag: str, *, required: bool = True, **options) -> None:
    """Adds an option that may also be given without its name, where it is what a command is about.

    Args:
      flag: of the option.
      required: whether it must be given.
      options: as of `add_argument`; with `action='append'` or `nargs='*'` there may be several.
    """
    option = self.add_argument(flag, **options)
    kind: Any = options.get('type')
    self.add_argument('bare', nargs='*', metavar=option.dest.upper(), type=kind,
                      help=f'the same as {flag}')  # fmt: skip
    self._bare, self._bare_required = option, required

  def parse_args(self, args=None, namespace=None) -> Any:
    """Parses a command line; an option of `add_bare` is where it would be with its name."""
    if COMPLETION in os.environ:  # a shell asks for what may follow, and this answers and ends
      import argcomplete

      argcomplete.autocomplete(self)
    parsed = super().parse_args(args, namespace)
    if self._bare is None:
      return parsed
    given, bare = getattr(parsed, self._bare.dest), parsed.__dict__.pop('bare')
    flag, several = self._bare.option_strings[0], isinstance(self._bare, argparse._AppendAction)
    if several:
      given = [*(given or ()), *bare] or None
    elif bare:
      if given is not None or len(bare) > 1:
        self.error(f'{flag} is given more than once: {", ".join(map(str, bare))}')
      (given,) = bare
    if self._bare_required and not given:
      self.error(f'{flag} is missing')
    setattr(parsed, self._bare.dest, given)
    return parsed

  def add_output(self) -> None:
    """Adds `--output`, where a command that prints a table writes it as JSON too."""
    self.add_argument('--output', type=new_file, help='also write the numbers to this JSON file')


def _typed(name: str) -> str:
  """Returns the words with which the command `senet_jax.NAME` was called."""
  module = f'senet_jax.{name}'
  if module in sys.orig_argv:
    return f'python -m {module}'
  return f'senet {"train" if name == "main" else name.removeprefix("tools.")}'


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
  """Parses words separated by commas, except those within parentheses, and drops repetitions."""
  found = tuple(dict.fromkeys(filter(None, re.split(r',(?![^()]*\))', text))))
  if not found:
    raise argparse.ArgumentTypeError('nothing is given')
  return found


def path_or_bucket(text: str) -> buckets.Path:
  """Parses a path that may be `gs://…`, as the type of an argument."""
  try:
    return buckets.to_path(text)
  except UserError as error:  # argparse would keep its message to itself
    raise argparse.ArgumentTypeError(str(error)) from error


def new_file(text: str) -> pathlib.Path:
  """Parses the path of a file that is to be written; that it can be is found before any work."""
  path = pathlib.Path(text)
  if path.is_dir():
    raise argparse.ArgumentTypeError(f'{path} is a directory; give a file')
  return new_path(text)


def new_folder(text: str) -> pathlib.Path:
  """The same of a directory, which may be there."""
  path = pathlib.Path(text)
  if path.is_file():
    raise argparse.ArgumentTypeError(f'{path} is a file; choose a directory')
  return new_path(text)


def new_path(text: str) -> pathlib.Path:
  """The same of either."""
  path = pathlib.Path(text)
  if why := files.unwritable(path):
    raise argparse.ArgumentTypeError(why)
  return path


def new_workdir(text: str) -> buckets.Path:
  """The same of a directory, which may be in a bucket; that nothing is asked."""
  path = path_or_bucket(text)
  return path if buckets.in_bucket(path) else new_folder(os.fspath(path))


def run(command: Callable[[list[str]], int | None]) -> NoReturn:
  """Runs a command on `sys.argv` and exits with its status.

  Args:
    command: takes the arguments; returns the exit status, None for 0.
  """
  _prepare_streams()
  _quiet_background()
  end_with_parent()
  _warn_of_little_memory()
  try:
    status = command(sys.argv[1:])
    sys.stdout.flush()
  except BrokenPipeError:
    if not _reader_is_gone():
      raise
    silence()
    status = NO_READER
  except Exception as error:
    message = _explanation(error)
    if message is None:
      raise
    status = _complain(message)
    if isinstance(error, Stalled):  # the interpreter would wait for the thread
      os._exit(status)
  except KeyboardInterrupt:
    status = _complain('interrupted.', 130)
  if _reader_is_gone():  # or Python itself would complain at its end
    silence()
  sys.exit(status)


def _explanation(error: Exception) -> str | None:
  """Returns the line that says what a user can do about an error; None if it is a fault of ours."""
  if isinstance(error, UserError):
    return str(error)
  if isinstance(error, ImportError):
    return _too_old() or _missing(error)
  if isinstance(error, OSError) and error.errno in OS_ERRORS:
    what = f'{error.strerror}: {error.filename}' if error.filename else str(error)
    return f'{what}; {OS_ERRORS[error.errno]}.'
  text = str(error)
  if isinstance(error, RuntimeError) and 'home directory' in text:  # of pathlib
    return 'there is no home directory for ~ to stand for; set HOME, or give a path without ~.'
  # Of JAX, of Python, and of the system when a thread is refused its stack.
  if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
    first = text.strip().partition('\n')[0][:200] or 'no more memory'
    return (
      f'out of memory ({first}); lower config.batch_size or --batch_size, or raise the limit '
      '(ulimit -v, the container).'
    )
  return _too_old()


def _warn_of_little_memory() -> None:
  """Says so where XLA would abort the process, of which Python can say nothing any more."""
  import resource  # Windows has none

  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit != resource.RLIM_INFINITY and limit < _ADDRESSES:
    print(
      f'senet_jax: memory is limited to {limit / 1e9:.1f} GB of addresses (ulimit -v); with less '
      f'than {_ADDRESSES / 1e9:.0f} GB XLA may abort with std::bad_alloc.',
      file=sys.stderr,
    )


def silence() -> None:
  """Sends what is printed from now on nowhere, as after the reader of a pipe is gone."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, sys.stdout.fileno())
  os.close(nowhere)


def first_line(path: pathlib.Path) -> str:
  """Returns the first line of the docstring of a Python file, which is not run."""
  doc = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
  return (doc or '').partition('\n')[0]


def say(text: str) -> None:
  """Prints a line of a long work, which goes on when nobody reads it any more."""
  try:
    print(text, flush=True)
  except BrokenPipeError:
    silence()


def _prepare_streams() -> None:
  """Makes all that may be printed printable, and gives closed streams a place to go.

  Otherwise the next file that is opened would be taken for a closed stream by whoever prints to it,
  and a name that is not UTF-8 could not be named.
  """
  while (nowhere := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
    pass  # it has taken the place of one that is closed
  os.close(nowhere)
  for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
  if hasattr(sys.stdout, 'reconfigure'):
    sys.stdout.reconfigure(errors='backslashreplace')


def _reader_is_gone() -> bool:
  try:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
  except OSError:  # it is no file, as in a test
    return False
  return any(event & select.POLLERR for _, event in poll.poll(0))


def end_with_parent() -> None:
  """Lets Linux send SIGTERM when the command that started this one is gone, however it ended."""
  if sys.platform == 'linux' and os.environ.get(PARENT) == str(os.getppid()):
    pr_set_pdeathsig = 1  # of <sys/prctl.h>
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _missing(error: ImportError) -> str | None:
  """Returns what to install after a failed import; None if it was of no package that we require."""
  module = (error.name or '').partition('.')[0]
  if module in OF_TENSORFLOW:
    return (
      f'{OF_TENSORFLOW[module]} is not installed, which the files of tfds and TFLite and '
      "SavedModels need: pip install 'senet_jax[tensorflow]'. Of data, folders of photos, digits, "
      'what is prepared as arrays (CIFAR: tools.prepare_data --arrays_only) and '
      '--config.data.fake=True do without.'
    )
  if module not in REQUIRED:
    return None
  missing = [name for name in REQUIRED if not _is_installed(name)]
  if not missing:
    return (
      f'the {_name(module)} that is installed does not fit ({error}); '
      '`pip install -c constraints.txt -e .` brings the versions that were tested.'
    )
  names = [_name(module) for module in missing]
  how = ' '.join(['--no-deps', *_ALONE] if set(missing) <= set(_ALONE) else names)
  return (
    f'{", ".join(names)} must be installed, too: pip install {how} (tools.evidence --pack '
    'writes what a machine without network needs).'
  )


def _name(module: str) -> str:
  return REQUIRED[module].partition('>=')[0]


def _too_old() -> str | None:
  """Returns what to bring up to date, if a package is older than what setup.cfg asks for."""
  import importlib.metadata

  old = []
  for requirement in REQUIRED.values():
    name, _, oldest = requirement.partition('>=')
    try:
      version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
    if _numbers(version) < _numbers(oldest):
      old.append((f'{name} {version}', requirement))
  if not old:
    return None
  found, needed = (', '.join(column) for column in zip(*old, strict=True))
  what = ' '.join(f"'{requirement}'" for _, requirement in old)
  return f'{needed} is needed, and {found} is installed: pip install {what}.'


def _numbers(version: str) -> list[int]:
  return [int(number) for number in re.findall(r'\d+', version)]


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
  for library in ('absl', 'asyncio', 'gcsfs', 'matplotlib', 'python_multipart'):
    logging.getLogger(library).setLevel(logging.CRITICAL)
  threading.excepthook = _without_known(threading.excepthook)
  sys.unraisablehook = _without_known(sys.unraisablehook)
  log = logging.getLogger('senet_jax')
  log.propagate = False
  if not log.handlers:  # `senet` runs a command within a command
    log.addHandler(logging.StreamHandler())
    log.handlers[0].setFormatter(logging.Formatter('senet_jax: %(message)s'))


def _without_known(hook: Callable[[Any], object]) -> Callable[[Any], None]:
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
