"""Commands as processes: closed and broken streams, names that are not text, memory, bare words."""

import os
import resource
import subprocess
import sys

import pytest

from senet_jax import cli, flags
from senet_jax.errors import UserError
from tests.helpers.paths import ROOT

BASE = f'--config={ROOT}/tests/helpers/default_config.py'


def ended(body: str, *arguments, redirect: str = '', **options) -> subprocess.CompletedProcess:
  """Runs a command whose `main` has the lines `body`."""
  code = f'from senet_jax import cli\ndef main(argv):\n  {body}\ncli.run(main)'
  command = ['sh', '-c', f'exec "$@" {redirect}', 'sh', sys.executable, '-c', code, *arguments]
  return subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False, **options)


@pytest.mark.parametrize('body', ['print("x")', 'print("x", flush=True)', 'print(10**5 * "x\\n")'])
def test_a_pipe_without_a_reader_ends_a_command_quietly(body):
  reading, writing = os.pipe()
  os.close(reading)
  done = ended(body, stdout=writing)
  os.close(writing)
  assert (done.returncode, done.stderr) == (141, b'')


def test_long_work_goes_on_without_a_reader(tmp_path):
  reading, writing = os.pipe()
  os.close(reading)
  body = 'cli.say("a"); cli.say("b"); open(argv[0], "w").write("done")'
  done = ended(body, tmp_path / 'out', stdout=writing)
  os.close(writing)
  assert (done.returncode, done.stderr) == (0, b'')
  assert (tmp_path / 'out').read_text() == 'done'


def test_another_broken_pipe_is_no_silence():
  done = ended('raise BrokenPipeError(32, "a socket")', stdout=subprocess.PIPE)
  assert done.returncode == 1 and b'a socket' in done.stderr


@pytest.mark.parametrize('redirect', ['>&-', '>&- 2>&-', '<&- >&- 2>&-'])
def test_closed_streams(redirect, tmp_path):
  """A file that is opened then is not what prints go to."""
  path = tmp_path / 'out'
  body = (
    'import os, sys; file = open(argv[0], "w"); print("x"); print("y", file=sys.stderr); '
    'os.write(1, b"z"); file.write("mine"); file.close()'
  )
  done = ended(body, path, redirect=redirect)
  assert (done.returncode, path.read_text()) == (0, 'mine')


def test_a_name_that_is_no_text_is_printed(tmp_path):
  path = os.fsencode(tmp_path) + b'/\xff.txt'
  done = ended('print(argv[0]); raise cli.UserError(argv[0])', path, stdout=subprocess.PIPE)
  assert done.returncode == 2 and done.stdout.endswith(b'/\\udcff.txt\n')
  assert done.stderr.endswith(b'/\\udcff.txt\n') and b'Traceback' not in done.stderr


@pytest.mark.parametrize(
  ('body', 'message'),
  [
    ('raise MemoryError', b'senet_jax: out of memory (no more memory); lower'),
    ('raise RuntimeError("RESOURCE_EXHAUSTED: 4 GB\\nmore")', b'(RESOURCE_EXHAUSTED: 4 GB); low'),
    ('raise RuntimeError("can\'t start new thread")', b"out of memory (can't start new thread)"),
    ('import pathlib; pathlib.Path("~nobody-of-this-name").expanduser()', b'HOME'),
  ],
)
def test_limits_of_the_machine_are_one_line(body, message):
  done = ended(body, stdout=subprocess.PIPE)
  assert done.returncode == 2 and message in done.stderr and done.stderr.count(b'\n') == 1


def test_a_limit_that_xla_would_not_survive_is_told_before():
  body = 'print("x")'
  limited = ended(body, stdout=subprocess.PIPE, preexec_fn=lambda: _limit(1_500_000_000))
  assert limited.returncode == 0 and b'limited to 1.5 GB of addresses (ulimit -v)' in limited.stderr
  assert ended(body, stdout=subprocess.PIPE).stderr == b''


def _limit(count: int) -> None:
  resource.setrlimit(resource.RLIMIT_AS, (count, count))


def parsed(*argv: str, **options):
  parser = cli.Parser('x', '')
  parser.add_bare('--workdir', **options)
  parser.add_argument('--size')
  return parser.parse_args(argv).workdir


def test_what_a_command_is_about_needs_no_name():
  assert parsed('a', '--size=1') == parsed('--size', '1', 'a') == parsed('--workdir=a') == 'a'
  assert parsed(required=False) is None
  assert parsed('--workdir=a', 'b', 'c', action='append') == ['a', 'b', 'c']
  for argv in ((), ('a', 'b'), ('a', '--workdir=b')):
    with pytest.raises(UserError, match=r'--workdir is (missing|given more than once)'):
      parsed(*argv)
  options = flags.parse([BASE, 'runs/x', '--config.seed=3'])
  assert str(options.workdir) == 'runs/x' and options.config.seed == 3
