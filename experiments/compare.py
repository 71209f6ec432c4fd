"""Which balancer is best on which task, and how sure that is, from repeated runs.

    python -m experiments.compare --dataset qm9 --balancers ew,si,igbv1,igbv1+nashmtl
      --seeds 3 --out runs/cmp

Trains a single-task baseline for each task, then every balancer with every seed, and
writes report.html, report.md, results.csv and results.json. Options that are not its
own go to the experiment (--epochs, --train-size, ...). When started again with the same
--out, it continues with what is missing.
"""

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import filelock
import jax
import tyro
from rich.console import Console

from igb_jax.training.results import say
from igb_jax.training.run import (
  EXIT_BAD_INPUT,
  EXIT_FAILED,
  EXIT_INTERRUPTED,
)
from igb_jax.training.run_folder import RunFolder, write_whole

from .comparison.collecting import collect
from .comparison.measure import check_parallel
from .comparison.plan import Job, missing
from .comparison.processes import until_stopped
from .comparison.report import write_report
from .comparison.running import (
  ComparisonError,
  duration,
  estimate,
  measured_steps,
  run_jobs,
)
from .comparison.settings import Comparison, Config, begun

PROGRAM = f"python -m {__package__}.compare"


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> NoReturn:
  """Runs the comparison that the command line describes, and exits.

  0 if anything useful came out, 1 if nothing did, 2 when an option was wrong, 130 after
  Ctrl-C, 143 after SIGTERM.

  Args:
    arguments: the arguments of the command line; None for those of this process.
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
    say(errors, f"error: another comparison is using {out}; wait, or stop it.")
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
    command: the command that was given, kept for the report.

  Raises:
    FileExistsError: it is not a folder, or holds something else.
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
  begun("comparison", path, comparison.settings)


def compare(comparison: Comparison, out: Path, console: Console) -> int:
  """Runs what is missing and writes the report.

  Returns:
    The exit code.

  Raises:
    ComparisonError: the steps could not be measured, so that nothing can be run.
    ValueError: an option does not fit the device.
    OSError: a file could not be written.
  """
  failures: dict[str, str] = {}  # folder of a run -> the last lines it wrote
  measured: dict[str, Any] = {}
  jobs: list[Job] = []
  with until_stopped() as codes:
    measured = measured_steps(comparison, out, console)
    check_parallel(comparison.config.parallel, measured["device"])
    jobs = comparison.jobs(measured["seeds"]["at_once"])
    run_jobs(comparison, out, console, jobs, measured, failures)
  if not jobs:
    say(console, "stopped before anything was run; the same command continues.")
    return codes[0]
  results = collect(comparison, out, measured, jobs, failures)
  paths = write_report(out, results)
  runs = [run for job in jobs for run in job.runs]
  left = missing(out, runs, comparison.options.epochs)
  say(console, f"{len(runs) - len(left)} of {len(runs)} runs are done.")
  for job in jobs:
    for run in job.runs:
      if run in left and run.folder in failures:
        say(console, f"failed: {run.name}, see {out / job.log}")
  say(console, "files:")
  for path in paths:
    say(console, f"  {path}")
  if codes:
    say(console, "stopped; the same command continues with what is missing.")
    return codes[0]
  useful = [run for run in runs if run.contender and run not in left]
  return 0 if useful else EXIT_FAILED


def dry_run(comparison: Comparison, console: Console) -> None:
  """Prints the runs, and an estimate of their time from a few measured steps.

  Raises:
    ComparisonError: the steps could not be measured.
  """
  with tempfile.TemporaryDirectory() as folder:
    measured = measured_steps(comparison, Path(folder), console)
  jobs = comparison.jobs(measured["seeds"]["at_once"])
  total = 0.0
  for job in jobs:
    seconds = estimate(comparison, job, measured)
    total += seconds
    say(console, f"{job.name}: about {duration(seconds)}")
  num_runs = sum(len(job.runs) for job in jobs)
  if measured["seeds"]["why"]:
    say(console, f"{measured['seeds']['why']}.")
  one_by_one = "" if comparison.config.parallel == 1 else ", one after another,"
  say(
    console,
    f"{num_runs} runs, about {duration(total)} in all{one_by_one} on this machine.",
  )


if __name__ == "__main__":
  main()
