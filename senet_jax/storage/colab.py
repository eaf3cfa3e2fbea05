"""Google Colab: whether a notebook runs there, and where files outlive its machine."""

import importlib.util
import pathlib

# Where Colab puts the user's Drive, and the user's own files in it.
DRIVE = pathlib.Path('/content/drive')
_MINE = 'MyDrive'


def is_here() -> bool:
  """Returns whether this process runs on Google Colab."""
  try:
    return importlib.util.find_spec('google.colab') is not None
  except ModuleNotFoundError:  # there is no `google` at all
    return False


def lasting(name: str, elsewhere: str = 'runs') -> pathlib.Path:
  """Returns a directory for files that are to outlive the session; makes it if it is missing.

  On Colab that is a folder of the user's Drive, which asks for leave; without it, and without a
  Drive, a line says so, and the directory is on the machine, which Colab takes away.

  Args:
    name: of the directory.
    elsewhere: the directory that it is in where this is not Colab.
  """
  directory = pathlib.Path(elsewhere, name)
  if is_here():
    if (reason := _mount()) is None:
      directory = DRIVE / _MINE / name
    else:
      print(
        f'Drive is not mounted ({reason}): what is in {directory} is gone when Colab takes this '
        'machine back; run this cell again and allow it.'
      )
  directory.mkdir(parents=True, exist_ok=True)
  return directory


def _mount() -> str | None:
  """Mounts the user's Drive; returns why it could not be, in one line, or None."""
  from google.colab import drive

  try:
    drive.mount(str(DRIVE))
  except Exception as error:  # of many types, from Colab's own messages
    return str(error).splitlines()[0] if str(error) else type(error).__name__
  return None if (DRIVE / _MINE).is_dir() else f'there is no {_MINE} in {DRIVE}'
