"""Plays what is missing of a league, on several cores side by side."""

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from igb_jax.training.results import say

from ..comparison.processes import last_lines, shares_of_cores, starting
from ..problems import load
from .cells import read
from .plan import SINGLE, Cell, make, parse, unfit
from .training import Lane, make_runner

_POLL_SECONDS = 1.0
_PART = 20  # of a run is trained for the estimate


def missing(cells: Sequence[Cell], out: Path) -> list[Cell]:
  """The cells that have not been played."""
  return [cell for cell in cells if read(cell, out) is None]


def errors(left: Sequence[Cell], out: Path) -> dict[Cell, str]:
  """Why cells could not be played, in a line each."""
  found = {}
  for cell in left:
    with contextlib.suppress(OSError, IndexError):
      found[cell] = cell.error_path(out).read_text().splitlines()[0]
  return found


def play_missing(
  cells: Sequence[Cell], out: Path, parallel: int, console: Console
) -> None:
  """Plays what is missing; ends early where it is interrupted."""
  left = missing(cells, out)
  if not left:
    return
  for cell in left:  # what failed is tried once more, by one worker
    cell.error_path(out).unlink(missing_ok=True)
  columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
  bar = Progress(*columns, console=console, disable=not console.is_terminal)
  with bar, starting() as start:
    task = bar.add_task("", total=len(cells))
    workers = [
      start(f"{__package__}.work", [os.fspath(out)], out / f"worker{index}.log", cores)
      for index, cores in enumerate(shares_of_cores(parallel))
    ]
    before = -1
    while any(worker.poll() is None for worker in workers):
      left = missing(left, out)  # what is played is not read again
      done = len(cells) - len(left)
      bar.update(task, completed=done)
      if bar.disable and done > before:
        say(console, f"{done} of {len(cells)} cells are played")
      before = done
      time.sleep(_POLL_SECONDS)
    for index, worker in enumerate(workers):
      if worker.returncode:
        log = out / f"worker{index}.log"
        say(console, f"worker {index} ended by an error:\n{last_lines(log)}")
  shutil.rmtree(out / "locks", ignore_errors=True)


def estimate(
  problem: str, methods: Sequence[str], num_seeds: int, num_validation_seeds: int
) -> float:
  """About how many seconds a problem takes on one core, from a part of its runs."""
  task, training = load(problem)
  rates = training.learning_rates
  width = max(num_seeds, len(rates) * num_validation_seeds)
  lanes = [Lane(rates[0], seed) for seed in range(width)]
  part = dataclasses.replace(training, epochs=max(1, training.epochs // _PART))
  seconds = {}
  for kind, spec in (("loss", "ew"), ("gradient", "mgda"), ("both", "ew+mgda")):
    balancer = make(parse(spec), task.task_names, training.steps_per_epoch(task))
    start = time.perf_counter()
    running = make_runner(task, part, balancer)(lanes).seconds
    compiling = time.perf_counter() - start - running
    # validation and test
    seconds[kind] = 2 * running * training.epochs / part.epochs + compiling
    seconds[kind] += compiling * training.at_once  # of a run alone, which is timed
  playing = [each for each in map(parse, methods) if not unfit(each, task, training)]
  total = sum(each.length * seconds[each.kind] for each in playing)
  if unfit(parse(SINGLE), task, training) is None:
    total += len(task.task_names) * seconds["loss"]
  return total
