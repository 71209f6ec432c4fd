"""Which balancer, on which task, and how sure: repeated runs side by side.

    python -m experiments.compare --dataset qm9 --balancers ew,si,igbv1,igbv1+nashmtl
      --seeds 3 --out runs/cmp

Trains a single-task baseline for each task, then every balancer with every seed, and
writes report.html, report.md, results.csv and results.json. Options that are not its
own go to the experiment (--epochs, --train-size, ...). Started again with the same
--out, it goes on with what is missing.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn

import filelock
import jax
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from igb_jax.training import command_line
from igb_jax.training.loggers import LoggersConfig, check_loggers
from igb_jax.training.machine import processor
from igb_jax.training.results import say
from igb_jax.training.run import (
  EXIT_BAD_INPUT,
  EXIT_FAILED,
  EXIT_INTERRUPTED,
  EXIT_TERMINATED,
)
from igb_jax.training.run_folder import (
  RunFolder,
  differing_options,
  read_object,
  write_whole,
)

from .comparison.datasets import DATASETS, Dataset
from .comparison.measure import FIELDS, check_parallel
from .comparison.plan import (
  Contender,
  Job,
  baseline_jobs,
  contender_jobs,
  missing,
  parse_contenders,
  read_summary,
)
from .comparison.report import write_report

PROGRAM = f"python -m {__package__}.compare"
_PACKAGES = ("igb_jax", "jax", "jaxlib", "flax", "optax", "numpy")
_LOGGERS = dataclasses.fields(LoggersConfig)  # they decide nothing
_OWN_OPTIONS = ("balancer", "balancer_options", "seed", "seeds", "out", "resume")
_LAST_LINES = 15
_START_SECONDS = 10.0  # of a process, until its first step, with compiled steps at hand
_GRACE_SECONDS = 120.0  # for a run that is asked to stop
_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
  """Compares balancers by repeated runs on the same data, and writes a report.

  Options that are not listed here are the experiment's, such as --epochs.
  """

  dataset: Literal["qm9", "nyuv2", "rooms"] | None = None
  """What is learnt; nyuv2 needs --data-dir."""
  task: Path | None = None
  """Instead of --dataset: a Python file with a data set and a net of your own, see
  docs/custom_task.md."""
  balancers: str = "ew,si,uw,igbv1,igbv2,nashmtl,igbv1+nashmtl"
  """Balancers, apart by commas; hyper-parameters follow after colons, as in
  igbv1:base_epoch=0."""
  seeds: int = 3
  """Number of runs of each loss balancer, with the seeds 0, 1, ..."""
  gradient_seeds: int | None = None
  """The same of those with a gradient balancer, whose runs take longer; by default as
  many."""
  baselines: bool = True
  """Whether a single-task baseline, the base of delta_m, is run for each task."""
  together: Literal["auto", "always", "never"] = "auto"
  """Whether all seeds of a loss balancer are trained in one vmapped step: always where
  memory allows, never, or where it is also faster than one after another."""
  parallel: int = 1
  """Number of runs at a time, for CPUs; on Linux each has its share of the cores. Small
  steps leave cores idle, so that small runs take less time side by side. Each needs
  as much memory as it would alone; that is not checked."""
  out: Path | None = None
  """Folder of the comparison."""
  dry_run: bool = False
  """Only print the runs, and how long they would take by a few measured steps."""


class ComparisonError(RuntimeError):
  """The comparison cannot go on."""


class Stopped(BaseException):
  """SIGTERM asked the comparison to stop."""


class Comparison:
  """Everything that one comparison needs to know."""

  def __init__(self, config: Config, experiment_arguments: Sequence[str]):
    """Checks all options; nothing is run or written.

    Args:
      config: of the comparison.
      experiment_arguments: options of the experiment.

    Raises:
      TypeError, ValueError, OSError: an option is wrong.
      SystemExit: an option of the experiment is wrong.
    """
    self.config = config
    if (config.dataset is None) == (config.task is None):
      raise ValueError("give one of --dataset (qm9, nyuv2, rooms) and --task FILE.")
    self.dataset_name = config.dataset or "custom"
    self.dataset: Dataset = DATASETS[self.dataset_name]
    given = [] if config.task is None else [f"--task={config.task}"]
    self.arguments = [*experiment_arguments, *given]
    self.options = self.dataset.parse_config(self.arguments)
    default = self.dataset.parse_config(given)
    for name in _OWN_OPTIONS:
      if getattr(self.options, name) != getattr(default, name):
        raise ValueError(
          f"the comparison itself sets {command_line.option_of(name)} of its runs; "
          "give --balancers, --seeds and --out instead."
        )
    has_folder = self.dataset_name in ("nyuv2", "rooms") and self.options.data_dir
    if self.dataset_name == "nyuv2" and not has_folder:
      raise ValueError(
        "--dataset nyuv2 needs --data-dir, the folder of the scenes; --dataset rooms "
        "trains on generated ones."
      )
    if self.dataset_name == "rooms" and has_folder:
      raise ValueError("--dataset rooms takes no --data-dir; --dataset nyuv2 does.")
    check_loggers(self.options)
    command_line.check_at_least(
      config, {"seeds": 1, "gradient_seeds": 1, "parallel": 1}
    )
    if config.parallel > len(_cores()):
      raise ValueError(
        f"--parallel must be at most {len(_cores())}, the number of cores, got "
        f"{config.parallel}."
      )
    self.tasks = list(self.dataset.task_names(self.options))
    self.contenders = parse_contenders(config.balancers, self.tasks)
    if config.out is None and not config.dry_run:
      raise ValueError("--out, the folder of the comparison, is missing.")

  @property
  def seeds(self) -> list[int]:
    """Of each loss balancer."""
    return list(range(self.config.seeds))

  def seeds_of(self, contender: Contender) -> list[int]:
    """Those of a balancer.

    Args:
      contender: the balancer.
    """
    fewer = self.config.gradient_seeds
    if contender.kind == "gradient" and fewer is not None:
      return list(range(fewer))
    return self.seeds

  @property
  def settings(self) -> dict[str, Any]:
    """What decides the results, for compare.json."""
    own = dataclasses.asdict(self.config)
    for name in ("out", "dry_run", "parallel"):
      own.pop(name)
    experiment = dataclasses.asdict(self.options)
    for name in (*_OWN_OPTIONS, *(field.name for field in _LOGGERS)):
      experiment.pop(name)
    if self.config.task is not None:
      code = self.config.task.expanduser().read_bytes()
      own["sha256 of the task"] = hashlib.sha256(code).hexdigest()
    own |= {f"experiment.{name}": value for name, value in experiment.items()}
    return own

  def jobs(self, seeds_at_once: int) -> list[Job]:
    """What is to be run, in order: what is cheap first.

    Args:
      seeds_at_once: how many seeds of a loss balancer are trained in one step.
    """
    jobs = baseline_jobs(self.tasks) if self.config.baselines else []
    for kind, at_once in (("loss", seeds_at_once), ("gradient", 1)):
      of_kind = [
        contender_jobs(contender, self.seeds_of(contender), at_once)
        for contender in self.contenders
        if contender.kind == kind
      ]
      # every balancer with its first seeds before any with the next
      for turn in range(max(map(len, of_kind), default=0)):
        jobs += [each[turn] for each in of_kind if turn < len(each)]
    return jobs


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> NoReturn:
  """Runs the comparison that the command line describes, and exits.

  0 if anything useful came out, 1 if nothing did, 2 when an option was wrong, 130 after
  Ctrl-C, 143 after SIGTERM.

  Args:
    arguments: of the command line; None for those of this process.
    program: what was started, as a command line has it.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  # the runs have the accelerator to themselves
  jax.config.update("jax_platforms", "cpu")
  errors = Console(stderr=True)
  config, others = tyro.cli(
    Config,
    prog=program,
    args=list(arguments),
    return_unknown_args=True,
    config=(tyro.conf.AvoidSubcommands,),
  )
  try:
    comparison = Comparison(config, others)
    if config.dry_run:
      dry_run(comparison, Console())
      sys.exit(0)
    assert config.out is not None
    out = config.out.expanduser()
    begin(comparison, out, f"{program} {shlex.join(arguments)}")
  except (ValueError, TypeError, OSError) as error:
    say(errors, f"error: {error}")
    sys.exit(EXIT_BAD_INPUT)
  except ComparisonError as error:
    say(errors, f"error: {error}")
    sys.exit(EXIT_FAILED)
  except KeyboardInterrupt:
    sys.exit(EXIT_INTERRUPTED)
  lock = filelock.FileLock(out / "compare.lock")
  try:
    with lock.acquire(blocking=False):
      sys.exit(compare(comparison, out, Console()))
  except filelock.Timeout:
    say(errors, f"error: another comparison is at work in {out}; wait, or stop it.")
    sys.exit(EXIT_BAD_INPUT)
  except ValueError as error:
    say(errors, f"error: {error}")
    sys.exit(EXIT_BAD_INPUT)
  except (ComparisonError, OSError) as error:
    say(errors, f"error: {error}")
    sys.exit(EXIT_FAILED)


def begin(comparison: Comparison, out: Path, command: str) -> None:
  """Makes the folder of a comparison, or checks that it is that of the same.

  Args:
    comparison: the comparison.
    out: the folder.
    command: that was given, kept for the report.

  Raises:
    FileExistsError: it is no folder, or holds something else.
    ValueError: the comparison in it has other settings, or compare.json is damaged.
  """
  path = out / "compare.json"
  if not path.exists():
    RunFolder.check_writable(out)
    # of a comparison killed before it began
    path.with_suffix(".partial").unlink(missing_ok=True)
    RunFolder.check(out)
    out.mkdir(parents=True, exist_ok=True)
    content = {
      "command": command,
      "started": datetime.now(UTC).isoformat(timespec="seconds"),
      "settings": comparison.settings,
    }
    write_whole(path, json.dumps(content, indent=2, default=os.fspath))
    return
  before = read_object(path).get("settings")
  if not isinstance(before, dict):
    raise ValueError(f"{path} is damaged: it has no settings.")
  differences = differing_options(before, comparison.settings, free=())
  if differences:
    raise ValueError(
      f"the comparison in {out} has other settings: {'; '.join(differences)}. Give it "
      "the same, or choose another --out."
    )


def compare(comparison: Comparison, out: Path, console: Console) -> int:
  """Runs what is missing and writes the report.

  Args:
    comparison: the comparison.
    out: its folder, from `begin`.
    console: where progress is shown.

  Returns:
    The exit code.

  Raises:
    ComparisonError: the steps could not be measured, so that nothing can be run.
    ValueError: an option does not fit the device.
    OSError: a file could not be written.
  """
  failures: dict[str, str] = {}  # folder of a run -> the last lines it wrote
  code = None
  measured = None
  num_epochs = comparison.options.epochs
  try:
    with _stop_on_sigterm():
      measured = _measured(comparison, out, console)
      check_parallel(comparison.config.parallel, measured["device"])
      jobs = comparison.jobs(measured["seeds"]["at_once"])
      _run_jobs(comparison, out, console, jobs, measured, failures)
  except KeyboardInterrupt:
    code = EXIT_INTERRUPTED
  except Stopped:
    code = EXIT_TERMINATED
  if measured is None:
    say(console, "stopped before anything was run; the same command goes on.")
    return code or EXIT_FAILED
  jobs = comparison.jobs(measured["seeds"]["at_once"])
  results = collect(comparison, out, measured, jobs, failures)
  paths = write_report(out, results)
  runs = [run for job in jobs for run in job.runs]
  left = missing(out, runs, num_epochs)
  say(console, f"{len(runs) - len(left)} of {len(runs)} runs are done.")
  for job in jobs:
    for run in job.runs:
      if run in left and run.folder in failures:
        say(console, f"failed: {run.name}, see {out / job.log}")
  say(console, "files:")
  for path in paths:
    say(console, f"  {path}")
  if code is not None:
    say(console, "stopped; the same command goes on with what is missing.")
    return code
  useful = [run for run in runs if run.contender and run not in left]
  return 0 if useful else EXIT_FAILED


def dry_run(comparison: Comparison, console: Console) -> None:
  """Prints the runs, and an estimate of their time from a few measured steps.

  Args:
    comparison: the comparison.
    console: where to.

  Raises:
    ComparisonError: the steps could not be measured.
  """
  with tempfile.TemporaryDirectory() as folder:
    measured = _measured(comparison, Path(folder), console)
  jobs = comparison.jobs(measured["seeds"]["at_once"])
  total = 0.0
  for job in jobs:
    seconds = _estimate(comparison, job, measured)
    total += seconds
    say(console, f"{job.name}: about {_duration(seconds)}")
  num_runs = sum(len(job.runs) for job in jobs)
  if measured["seeds"]["why"]:
    say(console, f"{measured['seeds']['why']}.")
  one_by_one = "" if comparison.config.parallel == 1 else ", one after another,"
  say(
    console,
    f"{num_runs} runs, about {_duration(total)} in all{one_by_one} on this machine.",
  )


def collect(
  comparison: Comparison,
  out: Path,
  measured: dict[str, Any],
  jobs: Sequence[Job],
  failures: dict[str, str],
) -> dict[str, Any]:
  """What the report is made of.

  Args:
    comparison: the comparison.
    out: its folder.
    measured: from `experiments.comparison.measure`.
    jobs: all of them.
    failures: folder of a run -> the last lines it wrote.
  """
  content = read_object(out / "compare.json")
  metrics = measured["metrics"]
  baselines, runs = [], []
  for run in (run for job in jobs for run in job.runs):
    summary = read_summary(out / run.folder, comparison.options.epochs)
    lines = failures.get(run.folder)
    entry: dict[str, Any] = {
      "seed": run.seed,
      "status": "done" if summary else ("failed" if lines is not None else "missing"),
      "folder": run.folder,
      "last_lines": None if summary else lines,
      "test": summary and summary["test"],
    }
    if run.contender is None:
      own = [metric["name"] for metric in metrics if metric["task"] == run.task]
      test = summary and {name: summary["test"][name] for name in own}
      baselines.append({"task": run.task, **entry, "test": test})
      continue
    names = ("delta_m", "epochs", "best_epoch", "num_steps", "train_seconds")
    facts = {name: summary and summary[name] for name in (*names, "skipped_steps")}
    runs.append({"balancer": run.contender.text, **entry, **facts})
  notes = [measured["seeds"]["why"]] if measured["seeds"]["why"] else []
  if comparison.config.parallel > 1:
    notes.append(
      f"{comparison.config.parallel} runs were trained at a time: the seconds of a run "
      "are longer than alone; those of a step were measured alone"
    )
  return {
    "dataset": measured["dataset"],
    "description": measured["description"],
    "notice": measured["notice"],
    "command": content["command"],
    "started": content["started"],
    "machine": f"{measured['device']}, {processor()}, {os.cpu_count()} cores",
    "versions": {name: version(name) for name in _PACKAGES}
    | {"python": platform.python_version()},
    "config": content["settings"],
    "tasks": measured["tasks"],
    "metrics": metrics,
    "base": measured["base"],
    "published": comparison.dataset.published_rows(),
    "baselines": baselines,
    "runs": runs,
    "timing": measured["timing"],
    "notes": notes,
  }


def _measured(comparison: Comparison, out: Path, console: Console) -> dict[str, Any]:
  """The answer of `experiments.comparison.measure`, of this start or an earlier one."""
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
  with _starting() as start:
    code = start(f"{__package__}.comparison.measure", arguments, log).wait()
  if code == EXIT_BAD_INPUT:
    raise ValueError(_last_lines(log))
  if code:
    raise ComparisonError(
      f"the steps could not be measured (exit code {code}):\n{_last_lines(log)}"
    )
  request_path.unlink()
  return read_object(path)


def _run_jobs(
  comparison: Comparison,
  out: Path,
  console: Console,
  jobs: Sequence[Job],
  measured: dict[str, Any],
  failures: dict[str, str],
) -> None:
  """Runs every job of which a run is missing; what fails goes into `failures`."""
  num_epochs = comparison.options.epochs
  num_runs = sum(len(job.runs) for job in jobs)
  costs = {job.folder: _estimate(comparison, job, measured) for job in jobs}
  waiting = [job for job in jobs if missing(out, job.runs, num_epochs)]
  running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}  # by its share of cores
  shares = _shares_of_cores(comparison.config.parallel)
  columns = (
    BarColumn(bar_width=20),
    TextColumn("{task.fields[runs]}, running {task.description}, left"),
    TimeRemainingColumn(),
  )
  with (
    Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    _starting() as start,
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
        process = start(comparison.dataset.module, arguments, log, cores)
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
          say(console, f"{runs}, running {names}, {most} {_duration(left)} left")
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
          failures[run.folder] = _last_lines(out / job.log)
        if failed:
          say(console, f"failed: {job.name} (exit code {code}), see {out / job.log}")


def _cores() -> list[int]:
  """Those that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return sorted(os.sched_getaffinity(0))
  return [*range(os.cpu_count() or 1)]


def _shares_of_cores(count: int) -> list[set[int] | None]:
  """The cores of each of so many runs at a time; None for all."""
  if count == 1 or not hasattr(os, "sched_setaffinity"):
    return [None] * count
  return [{*_cores()[share::count]} for share in range(count)]


@contextlib.contextmanager
def _starting() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
  """A function that starts processes; leaving has them save and end."""
  processes: list[subprocess.Popen[bytes]] = []

  def start(
    module: str, arguments: Sequence[str], log: Path, cores: set[int] | None = None
  ) -> subprocess.Popen[bytes]:
    """Runs a module, on some of the cores, and appends what it writes to a file."""
    command = [sys.executable, "-m", f"{__package__}.comparison.child"]
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
def _stop_on_sigterm() -> Iterator[None]:
  def stop(number, frame):
    del number, frame
    raise Stopped

  before = signal.signal(signal.SIGTERM, stop)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def _estimate(comparison: Comparison, job: Job, measured: dict[str, Any]) -> float:
  """Seconds that a job takes, by the measured steps."""
  timing, evaluation = measured["timing"], measured["evaluation_seconds"]
  epochs, steps = comparison.options.epochs, measured["steps_per_epoch"]
  known = timing.get(job.cost) or next(iter(timing.values()))
  a_step = statistics.median(known["seconds"])
  a_run = epochs * (steps * a_step + evaluation["validation"]) + evaluation["test"]
  return _START_SECONDS + measured["made_seconds"] + len(job.runs) * a_run


def _duration(seconds: float) -> str:
  """A time in words.

  Example:
    >>> _duration(4000)
    '1 h 7 min'
  """
  minutes = round(seconds / 60)
  if minutes == 0:
    return f"{seconds:.0f} s"
  return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _last_lines(log: Path) -> str:
  lines = log.read_text(errors="replace").strip().splitlines()
  return "\n".join(lines[-_LAST_LINES:])


if __name__ == "__main__":
  main()
