"""Says in one line that another process is gone, of which JAX's runtime makes a dump of its stack.

The runtime ends a process that has lost another one from a thread of its own, at once, so that no
code in it can say something else. What native code prints therefore goes through a process that
outlives it, which is this file, run as a script. Python's own messages go directly.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys

_STDERR = 2
_FATAL = b'because the JAX distributed service detected fatal errors'
# What it prints on the way.
_BEFORE = re.compile(
  rb'coordination_service\w*\.cc:|preemption_sync_manager\.cc:|^Additional GRPC error|'
  rb'^:UNKNOWN:Error received from peer|^The tasks have crashed|^(/job:\S+|\d+)$'
)


def listen(who: str) -> None:
  """Lets native code print through another process from now on; where none starts, nothing changes.

  Args:
    who: this process, as the line names it.
  """
  sys.stderr.flush()
  direct = os.dup(_STDERR)
  try:
    listener = subprocess.Popen(
      [sys.executable, '-I', __file__, who],
      stdin=subprocess.PIPE,
      stdout=direct,
      start_new_session=True,  # what ends this process with all that it started leaves it
    )
  except OSError:
    os.close(direct)
    return
  if listener.stdin is not None:  # which is the pipe
    os.dup2(listener.stdin.fileno(), _STDERR)
    listener.stdin.close()
  listener.returncode = 0  # nobody waits for it
  sys.stderr = open(direct, 'w', buffering=1, errors='backslashreplace')  # noqa: SIM115


def _main(who: str) -> None:
  """Passes lines on, but for the dump."""
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  output, lost = sys.stdout.buffer, False
  for line in sys.stdin.buffer:
    if _FATAL in line and not lost:
      lost = True
      line = f'senet_jax: {who}: lost another process; start all again, and the run goes on where '
      line = f'{line}it saved.\n'.encode()
    elif lost or _BEFORE.search(line):
      continue
    with contextlib.suppress(OSError):  # without a reader; whoever prints must not find this out
      output.write(line)
      output.flush()


if __name__ == '__main__':
  _main(sys.argv[1])
