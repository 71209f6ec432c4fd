"""From a command line to an exit code: what may go wrong before and in a run."""

import contextlib
import dataclasses
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn, TypeVar

import jax
import platformdirs
from rich.console import Console

from igb_jax.data.errors import LoadingError, PreparationError
from igb_jax.extras import is_of_extra, missing_package
from igb_jax.training.balancing import balances_gradients
from igb_jax.training.checkpoint import CheckpointError
from igb_jax.training.config import RunConfig, option_of
from igb_jax.training.devices import Devices
from igb_jax.training.experiment import Experiment
from igb_jax.training.failures import NonFiniteError
from igb_jax.training.interval import parse_interval
from igb_jax.training.loggers import LoggerError, check_loggers
from igb_jax.training.problem import Problem
from igb_jax.training.processes import (
  initialize,
  is_of_another_process,
  leaving_at_once,
  wait_for_all,
)
from igb_jax.training.results import say
from igb_jax.training.run import (
  EXIT_BAD_INPUT,
  EXIT_FAILED,
  EXIT_INTERRUPTED,
  run,
)
from igb_jax.training.run_folder import RunFolder
from igb_jax.training.seeds import check_seeds

_Config = TypeVar("_Config", bound=RunConfig)
_RUNS = Path("runs")


def main(
  make_problem: Callable[[_Config, Devices], Problem],
  parse_config: Callable[[Sequence[str], str], _Config],
  arguments: Sequence[str] | None,
  program: str,
) -> NoReturn:
  """Trains a problem as a command line says, and exits with a code that tells how.

  0 after a complete run, 1 when the numbers were not finite, memory was too little, a
  process that prepares data died, a logger could not start, or a file could not be read
  or written any more, 2 when an option or the data were wrong or a package is not
  installed, 130 after Ctrl-C, 143 after SIGTERM. Where one of several processes fails,
  the others fail soon after.

  Args:
    make_problem: configuration and devices -> the problem.
    parse_config: arguments and program -> configuration.
    arguments: the arguments of the command line; None for those of this process.
    program: what was started, as a command line has it, also for the command that
      resumes the run.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  config = parse_config(arguments, program)
  # orbax logs the traceback of an error, twice, before it raises it
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  use_compilation_cache()
  with leaving_at_once():
    try:
      with _exits_before_the_run(config):
        experiment, folder = _prepare(make_problem, config)
      again = resume_command(program, arguments, config, folder.path)
      console = Console(quiet=not folder.writes)
      with (
        contextlib.closing(experiment),
        contextlib.closing(folder),
        _exits_in_the_run(config, folder.path, again),
      ):
        wait_for_all()
        code = run(experiment, folder, console=console, again=again)
    except KeyboardInterrupt:
      sys.exit(EXIT_INTERRUPTED)
  sys.exit(code)


def _prepare(
  make_problem: Callable[[_Config, Devices], Problem], config: _Config
) -> tuple[Experiment[_Config], RunFolder]:
  initialize(config)
  out = config.out and config.out.expanduser()
  _check_run(out, config)  # before the data are prepared
  experiment = Experiment(make_problem, config)
  folder = RunFolder(
    out or default_folder(experiment.problem.name, config),
    resumed=config.resume,
    writes=jax.process_index() == 0,
  )
  return experiment, folder


def _check_run(out: Path | None, config: RunConfig) -> None:
  interval = parse_interval(config.checkpoint_every)
  check_seeds(config)
  is_first = jax.process_index() == 0
  if is_first:
    check_loggers(config)
  if jax.process_count() > 1:
    if out is None:
      raise ValueError("several processes need one --out that all of them can see.")
    if interval.seconds is not None:
      raise ValueError(
        f"--checkpoint-every={config.checkpoint_every} is for one process; the clocks "
        "of several differ, so give a number of epochs, such as 1epoch."
      )
  if is_first:
    RunFolder.check_writable(out or _RUNS)
  if config.resume:
    if out is None:
      raise ValueError("--resume needs --out, the folder of the run to continue.")
    RunFolder.check_resumable(out, dataclasses.asdict(config))
  elif out and is_first:
    RunFolder.check(out)


@contextlib.contextmanager
def _exits_before_the_run(config: RunConfig) -> Iterator[None]:
  """Turns errors of what prepares a run into messages and exit codes."""
  try:
    yield
  except (ValueError, TypeError, OSError) as error:
    _fail(str(error), code=EXIT_BAD_INPUT)
  except ModuleNotFoundError as error:
    if not is_of_extra(error.name):
      raise
    _fail(missing_package(error.name), code=EXIT_BAD_INPUT)
  except PreparationError as error:
    _fail(str(error))
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    if not is_out_of_memory(error):
      raise
    _fail(what_to_lower(config, error))


@contextlib.contextmanager
def _exits_in_the_run(config: RunConfig, folder: Path, again: str) -> Iterator[None]:
  """Turns errors of a run into messages that say how to resume, and exit codes."""
  saved = f"saved files are in {folder}; to resume"
  try:
    yield
  except (NonFiniteError, LoadingError, CheckpointError, OSError) as error:
    # the command that has just failed would fail again
    is_hopeless = isinstance(error, LoggerError) or (
      isinstance(error, CheckpointError) and config.resume
    )
    _fail(str(error), *([] if is_hopeless else [f"{saved}: {again}"]))
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    if is_out_of_memory(error):
      _fail(what_to_lower(config, error), f"{saved} with more memory: {again}")
    elif isinstance(error, RuntimeError) and is_of_another_process(error):
      _fail(str(error), f"another process of the run has ended; to resume: {again}")
    raise
  except KeyboardInterrupt:
    say(Console(stderr=True), f"stopped; to resume: {again}")
    sys.exit(EXIT_INTERRUPTED)


def _fail(error: str, *more: str, code: int = EXIT_FAILED) -> NoReturn:
  for line in (f"error: {error}", *more):
    say(Console(stderr=True), line)
  sys.exit(code)


def is_out_of_memory(error: Exception) -> bool:
  """Whether an error says that the memory of the host or of a device is too little.

  Example:
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("INTERNAL: ..."))
    (True, False)
  """
  return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def what_to_lower(config: RunConfig, error: Exception) -> str:
  """What to change about a run that takes more memory than there is, in words."""
  told = str(error).strip().partition("\n")[0]
  sizes = [
    f"{option_of(name)} (now {getattr(config, name)})"
    for name in ("batch_size", "dim", "width", "resolution")
    if hasattr(config, name)
  ]
  text = f"too little memory{told and f' ({told})'}. Lower {' or '.join(sizes)}."
  if config.seeds:
    text += f" Train fewer than {len(config.seeds)} --seeds at once."
  if balances_gradients(config.balancer):
    text += (
      f" --balancer={config.balancer} holds the gradients of all tasks at once; a loss "
      "balancer holds one."
    )
  return text


def resume_command(
  program: str, arguments: Sequence[str], config: RunConfig, folder: Path
) -> str:
  """The command that resumes the run of a command line, in its folder."""
  more = [] if config.out else [f"--out={folder}"]
  more += [] if config.resume else ["--resume"]
  return f"{program} {shlex.join([*arguments, *more])}"


def use_compilation_cache() -> None:
  """Keeps compiled steps on disk, so that a second run starts at once.

  They go to the platform's cache folder, unless JAX_COMPILATION_CACHE_DIR or JAX's own
  configuration names another.
  """
  if jax.config.values["jax_compilation_cache_dir"] is None:
    folder = platformdirs.user_cache_path("igb_jax") / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))


def default_folder(dataset: str, config: RunConfig) -> Path:
  """Where a run without --out goes: runs/, data set, balancer, seed and time."""
  now = datetime.now().strftime("%Y%m%d-%H%M%S")
  seeds = "-".join(map(str, config.seeds or [config.seed]))
  return _RUNS / f"{dataset}-{config.balancer}-seed{seeds}-{now}"
