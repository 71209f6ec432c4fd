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
  """The cells that have not been played.

  Args:
    cells: all of them.
    out: the folder of the league.
  """
  return [cell for cell in cells if read(cell, out) is None]


def errors(cells: Sequence[Cell], out: Path) -> dict[Cell, str]:
  """Why cells could not be played, in a line each.

  Args:
    cells: all of them.
    out: the folder of the league.
  """
  found = {}
  for cell in missing(cells, out):
    with contextlib.suppress(OSError, IndexError):
      text = cell.path(out).with_suffix(".error").read_text()
      found[cell] = text.splitlines()[0]
  return found


def play_missing(
  cells: Sequence[Cell], out: Path, parallel: int, console: Console
) -> None:
  """Plays what is missing; ends early where it is interrupted.

  Args:
    cells: all of them.
    out: the folder of the league, with its settings.
    parallel: number of workers; each has its share of the cores.
    console: where progress is shown.
  """
  if not missing(cells, out):
    return
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
      done = len(cells) - len(missing(cells, out))
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


def estimates(
  problems: Sequence[str], methods: Sequence[str], seeds: int, validation_seeds: int
) -> dict[str, float]:
  """About how many seconds each problem takes on one core, from a part of its runs.

  Args:
    problems: their names.
    methods: the names of the entrants.
    seeds: the seeds of the test.
    validation_seeds: the seeds of each learning rate.
  """
  found = {}
  for problem in problems:
    task, training = load(problem)
    rates = training.learning_rates
    width = max(seeds, len(rates) * validation_seeds)
    lanes = [Lane(rates[0], seed) for seed in range(width)]
    part = dataclasses.replace(training, epochs=max(1, training.epochs // _PART))
    seconds = {}
    for kind, spec in (("loss", "ew"), ("gradient", "mgda"), ("both", "ew+mgda")):
      if unfit(parse(spec), task, training):
        continue
      steps_per_epoch = training.steps_per_epoch(task)
      balancer = make(parse(spec), task.task_names, steps_per_epoch)
      run = make_runner(task, part, balancer)
      start = time.perf_counter()
      whole = run(lanes).seconds * training.epochs / part.epochs
      compiling = time.perf_counter() - start - whole * part.epochs / training.epochs
      seconds[kind] = 2 * whole + compiling  # validation and test
    playing = [parse(method) for method in methods if method != SINGLE]
    found[problem] = sum(
      each.length * seconds[each.kind]
      for each in playing
      if unfit(each, task, training) is None
    )
    if unfit(parse(SINGLE), task, training) is None:
      found[problem] += len(task.task_names) * seconds["loss"]
  return found
