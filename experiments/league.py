"""Which balancer is best over many problems, with intervals.

    python -m experiments.league --out results/league --parallel 2

Plays every method on every problem: its learning rate is chosen on validation among
three, then ten fresh seeds are tested, with the same initial parameters and the same
order of batches for all methods. It writes league.html, league.md, league.csv and
league.json. When started again with the same --out, it continues with what is missing.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import filelock
import jax
import tyro
from rich.console import Console

from igb_jax.training.config import check_at_least, helpful
from igb_jax.training.results import say
from igb_jax.training.run import EXIT_BAD_INPUT, EXIT_FAILED
from igb_jax.training.run_folder import write_whole

from .comparison.processes import until_stopped
from .comparison.running import duration
from .comparison.settings import begun
from .problems import NAMES
from .standings.plan import cells_of, check_names, players
from .standings.report import write_report
from .standings.running import errors, estimate, missing, play_missing

PROGRAM = f"python -m {__package__}.league"
_QUICK_PROBLEMS = ("toy", "helmholtz", "digits")
_QUICK_METHODS = ("ew", "igbv1", "mgda")


@helpful
@dataclasses.dataclass(frozen=True)
class Config:
  """Plays balancers on many small problems, and reports which can be told apart."""

  problems: tuple[str, ...] | None = None
  """Names of the problems, which are the files of experiments/problems; all by
  default."""
  methods: tuple[str, ...] | None = None
  """Names of the methods; by default all, with combinations such as igbv1+nashmtl.
  Hyper-parameters follow after colons, as in igbv1:base_epoch=0; "ew@2" is trained
  twice as long."""
  seeds: int | None = None
  """Number of fresh seeds on which each method is tested; 10 by default."""
  validation_seeds: int | None = None
  """Number of other seeds used to choose its learning rate; 3 by default."""
  quick: bool = False
  """Play a small league in minutes: three problems, three methods and two seeds, unless
  other options say otherwise."""
  parallel: int = 1
  """Number of workers, each with its share of the cores."""
  out: Path = Path("runs/league")
  """Folder for the league's files."""
  dry_run: bool = False
  """Print the plan and an estimate of its duration, from a short training on each
  problem, and exit."""

  @property
  def settings(self) -> dict[str, Any]:
    """The settings that the numbers in a folder depend on."""
    quick = self.quick
    return {
      "problems": [*(self.problems or (_QUICK_PROBLEMS if quick else NAMES))],
      # None for those that each problem has
      "methods": [*_QUICK_METHODS] if quick and not self.methods else self.methods,
      "seeds": self.seeds or (2 if quick else 10),
      "validation_seeds": self.validation_seeds or (1 if quick else 3),
    }


def main(arguments: Sequence[str] | None = None) -> NoReturn:
  """Plays the league that the command line describes, and exits.

  0 if everything was played, 1 if something could not be, 2 when an option was wrong,
  130 after Ctrl-C, 143 after SIGTERM.

  Args:
    arguments: the arguments of the command line; None for those of this process.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  # the workers have the accelerator to themselves
  jax.config.update("jax_platforms", "cpu")
  config = tyro.cli(Config, prog=PROGRAM, args=list(arguments))
  console, failing = Console(), Console(stderr=True)
  try:
    check(config)
    if config.dry_run:
      dry_run(config, console)
      sys.exit(0)
    out = config.out.expanduser()
    out.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(out / "league.lock").acquire(blocking=False):
      begin(config, out, f"{PROGRAM} {shlex.join(arguments)}")
      sys.exit(play(config, out, console))
  except filelock.Timeout:
    say(failing, f"error: another league is played in {config.out}; wait, or stop it.")
    sys.exit(EXIT_BAD_INPUT)
  except (ValueError, TypeError) as error:
    say(failing, f"error: {error}")
    sys.exit(EXIT_BAD_INPUT)
  except OSError as error:
    say(failing, f"error: {error}")
    sys.exit(EXIT_FAILED)


def check(config: Config) -> None:
  """Checks all options.

  Raises:
    TypeError, ValueError: one is wrong; the message names it.
  """
  settings = config.settings
  check_at_least(config, dict.fromkeys(("seeds", "validation_seeds", "parallel"), 1))
  unknown = [name for name in settings["problems"] if name not in NAMES]
  if unknown:
    raise ValueError(f"--problems names {unknown[0]!r}; there are {', '.join(NAMES)}.")
  check_names(settings["problems"], settings["methods"])


def begin(config: Config, out: Path, command: str) -> None:
  """Begins a league in a folder, or checks that the numbers there are comparable.

  Args:
    config: the configuration of the command line.
    out: the folder.
    command: the command that was given, kept for the report.

  Raises:
    ValueError: the folder was played with other seeds, or league.json is damaged.
    OSError: it cannot be written.
  """
  path = out / "league.json"
  content = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
  if path.exists():
    # problems and methods may join and leave: every cell has a file
    free = ("problems", "methods")
    content = begun("league", path, config.settings, free)
  content |= {"command": command, "settings": config.settings}
  write_whole(path, json.dumps(content, indent=2))


def play(config: Config, out: Path, console: Console) -> int:
  """Plays what is missing and writes the report.

  Returns:
    The exit code.
  """
  cells = cells_of(config.settings["problems"], config.settings["methods"])
  with until_stopped() as codes:
    play_missing(cells, out, config.parallel, console)
  left = missing(cells, out)
  say(console, f"{len(cells) - len(left)} of {len(cells)} cells are played.")
  for cell, line in errors(left, out).items():
    say(console, f"failed: {cell.method} on {cell.problem}: {line}")
  if len(left) < len(cells):
    say(console, "files:")
    for path in write_report(out):
      say(console, f"  {path}")
  if codes:
    say(console, "stopped; the same command continues with what is missing.")
    return codes[0]
  return EXIT_FAILED if left else 0


def dry_run(config: Config, console: Console) -> None:
  """Prints what would be played, and an estimate of the time."""
  settings = config.settings
  total = 0.0
  for problem in settings["problems"]:
    methods = players(problem, settings["methods"])
    seconds = estimate(
      problem, methods, settings["seeds"], settings["validation_seeds"]
    )
    say(console, f"{problem}: {len(methods)} methods, {duration(seconds)}")
    total += seconds / config.parallel
  say(console, f"about {duration(total)} in all with --parallel={config.parallel}.")


if __name__ == "__main__":
  main()
