"""The commit that a result was made with."""

import os
import pathlib
import re
import subprocess

from senet_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
# In the package, so that a copy of the code and a wheel have it; git ignores it.
COMMIT_FILE = pathlib.Path('senet_jax', 'COMMIT')
VARIABLE = 'SENET_JAX_COMMIT'


def git_commit() -> str | None:
  """Returns the commit of this code, `+` behind it if files differ from it.

  The first of these that is there says it:

  1. the variable `SENET_JAX_COMMIT`, for who knows better, as where a copy became a repository of
     its own. A `+` is added where git sees local changes: the variable cannot hide them.
  2. git, in the repository of this code.
  3. the file `senet_jax/COMMIT`, which `senet_jax.data.carry` puts into the copies that it makes.
     In a repository it would be of an older commit, so git comes first.

  Returns:
    7 to 64 hexadecimal digits and maybe `+`; None if nothing says it.

  Raises:
    UserError: the variable or the file holds something else.
  """
  changes = '+' if git('status', '--porcelain', '-uno') else ''
  if given := os.environ.get(VARIABLE, '').strip():
    return _checked(given, f'${VARIABLE}').rstrip('+') + ('+' if given.endswith('+') else changes)
  if commit := git('rev-parse', 'HEAD'):
    return commit + changes
  path = ROOT / COMMIT_FILE
  return _checked(path.read_text(errors='replace').strip(), str(path)) if path.is_file() else None


def git(*arguments: str) -> str | None:
  """Returns what git prints of the repository of this code; None outside it, or if git fails."""
  command = ['git', '-C', str(ROOT)]

  def output(*more: str) -> str:
    return subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout

  try:
    if pathlib.Path(output('rev-parse', '--show-toplevel').strip()) != ROOT:
      return None  # installed somewhere inside another project
    return output(*arguments).strip()
  except (OSError, subprocess.CalledProcessError):
    return None


def _checked(commit: str, where: str) -> str:
  if not re.fullmatch(r'[0-9a-f]{7,64}\+?', commit):
    raise UserError(
      f'{where} holds {commit[:80]!r}, which is no commit: 7 to 64 hexadecimal digits, with + '
      'behind them if files differ from it; correct it or remove it.'
    )
  return commit
