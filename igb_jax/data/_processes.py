"""Work on all cores, and how far it is."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from igb_jax.data.errors import PreparationError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_MOST_PROCESSES = 8
_FEW = 12  # tasks that are done sooner than processes start.
_AHEAD = 64  # results that may wait for whoever takes them.
_STARTED_BY = "IGB_JAX_STARTED_BY"  # tells workers from other processes, by its number

_console = Console(stderr=True, soft_wrap=True)


def say(line: str) -> None:
  """Prints a line for the user, apart from the output."""
  _console.print(line, markup=False, highlight=False)


def is_worker() -> bool:
  """Whether this process works for `on_all_cores`, or imports the script to do so."""
  return os.environ.get(_STARTED_BY) == str(os.getppid())


def _start_worker() -> None:
  """Makes a worker leave Ctrl-C to its parent, and end when the parent has ended."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  assert parent is not None

  def end_with_parent() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()


def on_all_cores(
  function: Callable[[_Task], _Result], tasks: list[_Task], *, few: int = _FEW
) -> Generator[_Result]:
  """Maps a function over tasks in processes of their own, in order.

  Function, tasks and results must be picklable. Up to `few` tasks are done here,
  without processes. Raises `PreparationError` if a process has died.
  """
  if len(tasks) <= few:
    yield from map(function, tasks)
    return
  executor = ProcessPoolExecutor(
    min(os.cpu_count() or 1, _MOST_PROCESSES, len(tasks)),
    # "fork" can hang a process where JAX runs threads
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_start_worker,
  )
  os.environ[_STARTED_BY] = str(os.getpid())
  try:
    waiting = iter(tasks)
    futures = [
      executor.submit(function, task) for task in itertools.islice(waiting, _AHEAD)
    ]
    while futures:
      yield futures.pop(0).result()
      futures += [
        executor.submit(function, task) for task in itertools.islice(waiting, 1)
      ]
  except BrokenProcessPool as error:
    raise PreparationError(
      "a data-preparation process died, possibly out of memory. If you call this from "
      'a script, put its code under `if __name__ == "__main__":`.'
    ) from error
  finally:
    os.environ.pop(_STARTED_BY, None)
    executor.shutdown(cancel_futures=True)


def shown(
  results: Iterable[_Result],
  label: str,
  total: int,
  unit: str,
  *,
  count: Callable[[_Result], int] = lambda result: 1,
) -> Generator[_Result]:
  """Passes results on, with a progress bar or, without a terminal, a line each tenth.

  There are `total` units in all results, and `count(result)` in one.
  """
  if _console.is_terminal:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=_console) as bar:
      task = bar.add_task(label, total=total)
      for result in results:
        bar.advance(task, count(result))
        yield result
    return
  done = 0
  for result in results:
    tenths = 10 * done // total
    done += count(result)
    if 10 * done // total > tenths:
      say(f"{label}: {done} of {total} {unit}")
    yield result
