"""Runs a module as `python -m` does, and ends when the process that started it does.

    python -m experiments.comparison.child LOCK MODULE ARGUMENTS...

The parent holds the other end of the standard input; when that closes, SIGTERM asks the
run to save and to end. The lock keeps a run that is started again from writing beside
one that has not ended yet.
"""

import os
import runpy
import signal
import sys
import threading

import filelock


def main() -> None:
  """Waits for the lock, then runs the module."""
  lock, module, *arguments = sys.argv[1:]
  threading.Thread(target=_end_with_the_parent, daemon=True).start()
  with filelock.FileLock(lock):
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_the_parent() -> None:
  os.read(sys.stdin.fileno(), 1)  # without a buffer, whose lock would outlive the run
  os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
  main()
