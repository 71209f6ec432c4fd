"""The processes of a comparison: started on some cores, and ended with it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from igb_jax.training.run import EXIT_INTERRUPTED, EXIT_TERMINATED

_LAST_LINES = 15
_GRACE_SECONDS = 120.0  # for a run that is asked to stop


class _Stopped(BaseException):
  """SIGTERM asked to stop."""


def cores() -> list[int]:
  """The cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return sorted(os.sched_getaffinity(0))
  return [*range(os.cpu_count() or 1)]


def shares_of_cores(count: int) -> list[set[int] | None]:
  """The cores of each of several runs at a time; None for all."""
  if count == 1 or not hasattr(os, "sched_setaffinity"):
    return [None] * count
  return [{*cores()[share::count]} for share in range(count)]


@contextlib.contextmanager
def starting() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
  """A function that starts processes; leaving has them save and end."""
  processes: list[subprocess.Popen[bytes]] = []

  def start(
    module: str, arguments: Sequence[str], log: Path, cores: set[int] | None = None
  ) -> subprocess.Popen[bytes]:
    """Runs a module, on some of the cores, and appends what it writes to a file."""
    command = [sys.executable, "-m", f"{__package__}.child"]
    command += [f"{log}.lock", module, *arguments]
    with log.open("ab") as file:
      process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
      )
    processes.append(process)
    if cores is not None:
      os.sched_setaffinity(process.pid, cores)  # its threads are yet to come
    return process

  try:
    yield start
  finally:
    for process in processes:
      if process.poll() is None:
        process.terminate()
    for process in processes:
      try:
        process.wait(_GRACE_SECONDS)
      except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
      assert process.stdin is not None
      process.stdin.close()
      process.wait()


@contextlib.contextmanager
def until_stopped() -> Iterator[list[int]]:
  """Leaves its block at Ctrl-C or SIGTERM; the list then holds the exit code."""
  codes: list[int] = []

  def stop(number, frame):
    del number, frame
    raise _Stopped

  before = signal.signal(signal.SIGTERM, stop)
  try:
    yield codes
  except KeyboardInterrupt:
    codes.append(EXIT_INTERRUPTED)
  except _Stopped:
    codes.append(EXIT_TERMINATED)
  finally:
    signal.signal(signal.SIGTERM, before)


def last_lines(log: Path) -> str:
  """The end of what a process wrote."""
  lines = log.read_text(errors="replace").strip().splitlines()
  return "\n".join(lines[-_LAST_LINES:])
