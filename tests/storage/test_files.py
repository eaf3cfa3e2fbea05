"""Files that are whole or not there, and directories for one process."""

import subprocess
import sys

import pytest

from senet_jax.errors import UserError
from senet_jax.storage import files


def test_a_directory_of_the_user_is_left_alone(tmp_path):
  for name in ('summary.json.partial', '.summary.json.partial'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'kept').write_text('mine')
  files.write_json(tmp_path / 'summary.json', {'x': 1})
  assert {p.name for p in tmp_path.iterdir()} == {
    'summary.json', 'summary.json.partial', '.summary.json.partial',
  }  # fmt: skip
  assert all((p / 'kept').read_text() == 'mine' for p in tmp_path.glob('*.partial'))


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
  code = (
    'import os\n'
    'from senet_jax.storage import files\n'
    f'with files.whole({str(tmp_path / "file")!r}) as partial:\n'
    '  partial.write_text("half")\n'
    '  os.kill(os.getpid(), 9)\n'
  )
  assert subprocess.run([sys.executable, '-c', code]).returncode == -9
  (left,) = tmp_path.iterdir()
  files.write_text(tmp_path / 'other', 'whole')
  assert left.exists()  # it is not of this one
  files.write_text(tmp_path / 'file', 'whole')
  assert {p.name for p in tmp_path.iterdir()} == {'file', 'other'}


def test_a_process_that_is_alive_keeps_what_it_writes(tmp_path):
  code = (
    'import sys\n'
    'from senet_jax.storage import files\n'
    f'with files.whole({str(tmp_path / "file")!r}) as partial:\n'
    '  partial.write_text("of the other")\n'
    '  print(flush=True)\n'
    '  sys.stdin.readline()\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
  )
  process.stdout.readline()
  files.write_text(tmp_path / 'file', 'of this one')
  process.communicate(b'\n')
  assert process.returncode == 0 and (tmp_path / 'file').read_text() == 'of the other'


def test_a_deleted_lock_lets_nobody_in(tmp_path):
  with files.locked(tmp_path):
    (tmp_path / '.lock').unlink()
    with pytest.raises(UserError, match='is in use by another process'), files.locked(tmp_path):
      pass
  with files.locked(tmp_path):
    pass


def test_a_lock_leaves_no_empty_directory(tmp_path):
  with files.locked(tmp_path / 'new' / 'run'):
    assert (tmp_path / 'new' / 'run' / '.lock').exists()
  assert not list(tmp_path.iterdir())
  with files.locked(tmp_path / 'new' / 'run'):
    (tmp_path / 'new' / 'run' / 'kept').touch()
  assert {path.name for path in (tmp_path / 'new' / 'run').iterdir()} == {'.lock', 'kept'}


def test_what_a_block_made_stays_once_it_says_so(tmp_path):
  (tmp_path / 'before').touch()
  for stays, left in ((False, {'before'}), (True, {'before', 'file', 'folder'})):
    with pytest.raises(UserError, match='refused'), files.provisional(tmp_path) as keep:
      (tmp_path / 'file').touch()
      (tmp_path / 'folder').mkdir()
      if stays:
        keep()
      raise UserError('refused')
    assert {path.name for path in tmp_path.iterdir()} == left
