"""Runs the jobs of a comparison, after it has measured what a step of each takes."""

import dataclasses
import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from igb_jax.training.results import say
from igb_jax.training.run import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_TERMINATED
from igb_jax.training.run_folder import read_object

from .measure import FIELDS
from .plan import Job, missing
from .processes import last_lines, shares_of_cores, starting
from .settings import Comparison

_START_SECONDS = 10.0  # of a process, until its first step, with compiled steps at hand
_POLL_SECONDS = 0.1


class ComparisonError(RuntimeError):
  """The comparison cannot continue."""


def measured_steps(
  comparison: Comparison, out: Path, console: Console
) -> dict[str, Any]:
  """The answer of `experiments.comparison.measure`, of this start or an earlier one.

  Raises:
    ValueError: an option is wrong.
    ComparisonError: the steps could not be measured.
  """
  path = out / "measured.json"
  if path.exists():
    try:
      measured = read_object(path)
      if lacking := FIELDS - measured.keys():
        raise ValueError(f"{path} is damaged: it lacks {', '.join(sorted(lacking))}.")
    except ValueError as error:
      raise ComparisonError(
        f"{error} Delete it; the steps are then measured again."
      ) from error
    return measured
  say(console, "measuring a few steps of each balancer (this also compiles them)")
  request = {
    "dataset": comparison.dataset_name,
    "arguments": comparison.arguments,
    "contenders": [dataclasses.asdict(each) for each in comparison.contenders],
    "seeds": comparison.seeds,
    "together": comparison.config.together,
    "parallel": comparison.config.parallel,
  }
  request_path = out / "measure.request.json"
  request_path.write_text(json.dumps(request, default=os.fspath))
  log = out / "measure.log"
  arguments = [os.fspath(request_path), os.fspath(path)]
  with starting() as start:
    code = start(f"{__package__}.measure", arguments, log).wait()
  if code == EXIT_BAD_INPUT:
    raise ValueError(last_lines(log))
  if code:
    raise ComparisonError(
      f"the steps could not be measured (exit code {code}):\n{last_lines(log)}"
    )
  request_path.unlink()
  return read_object(path)


def run_jobs(
  comparison: Comparison,
  out: Path,
  console: Console,
  jobs: Sequence[Job],
  measured: dict[str, Any],
  failures: dict[str, str],
) -> None:
  """Runs every job of which a run is missing.

  Args:
    comparison: the comparison.
    out: its folder.
    console: where progress is shown.
    jobs: all of them.
    measured: what `measured_steps` returned.
    failures: folder of a run -> the last lines it wrote; what fails is put there.
  """
  num_epochs = comparison.options.epochs
  num_runs = sum(len(job.runs) for job in jobs)
  costs = {job.folder: estimate(comparison, job, measured) for job in jobs}
  waiting = [job for job in jobs if missing(out, job.runs, num_epochs)]
  running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}  # by its share of cores
  shares = shares_of_cores(comparison.config.parallel)
  columns = (
    BarColumn(bar_width=20),
    TextColumn("{task.fields[runs]}, running {task.description}, left"),
    TimeRemainingColumn(),
  )
  with (
    Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    starting() as start,
  ):
    task = bar.add_task("", total=sum(costs.values()), runs="")
    while waiting or running:
      for share, cores in enumerate(shares):
        if not waiting or share in running:
          continue
        job = waiting.pop(0)
        log = out / job.log
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [*comparison.arguments, *job.arguments]
        arguments += [f"--out={out / job.folder}", "--resume"]
        process = start(comparison.dataset.module.__name__, arguments, log, cores)
        running[share] = job, process
        names = ", ".join(job.name for job, _ in running.values())
        unfinished = [*waiting, *(job for job, _ in running.values())]
        left = sum(costs[job.folder] for job in unfinished)
        done = num_runs - sum(len(job.runs) for job in unfinished)
        runs = f"{done} of {num_runs} runs done"
        completed = sum(costs.values()) - left
        bar.update(task, description=names, runs=runs, completed=completed)
        if bar.disable:
          most = "about" if len(shares) == 1 else "at most"  # costs are one by one
          say(console, f"{runs}, running {names}, {most} {duration(left)} left")
      time.sleep(_POLL_SECONDS)
      for share, (job, process) in list(running.items()):
        code = process.poll()
        if code is None:
          continue
        del running[share]
        if code in (EXIT_INTERRUPTED, EXIT_TERMINATED):  # somebody stopped it alone
          say(console, f"{job.name} was stopped")
        failed = missing(out, job.runs, num_epochs)
        for run in failed:
          failures[run.folder] = last_lines(out / job.log)
        if failed:
          say(console, f"failed: {job.name} (exit code {code}), see {out / job.log}")


def estimate(comparison: Comparison, job: Job, measured: dict[str, Any]) -> float:
  """Seconds that a job takes, by the measured steps."""
  timing, evaluation = measured["timing"], measured["evaluation_seconds"]
  epochs, steps = comparison.options.epochs, measured["steps_per_epoch"]
  known = timing.get(job.cost) or next(iter(timing.values()))
  a_step = statistics.median(known["seconds"])
  a_run = epochs * (steps * a_step + evaluation["validation"]) + evaluation["test"]
  return _START_SECONDS + measured["made_seconds"] + len(job.runs) * a_run


def duration(seconds: float) -> str:
  """A time in words.

  Example:
    >>> duration(4000)
    '1 h 7 min'
  """
  minutes = round(seconds / 60)
  if minutes == 0:
    return f"{seconds:.0f} s"
  return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
