"""A run from its first step to its table: what every experiment does alike."""

import contextlib
import dataclasses
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import jax
import numpy as np
import platformdirs
from rich.console import Console

from igb_jax.data.errors import LoadingError, PreparationError
from igb_jax.extras import is_of_extra, missing_package
from igb_jax.training import command_line
from igb_jax.training.balancing import balances_gradients
from igb_jax.training.checkpoint import (
  CheckpointError,
  Checkpoints,
  abstract,
  parse_interval,
)
from igb_jax.training.devices import (
  describe_devices,
  is_of_another_process,
  leaving_at_once,
  wait_for_all,
)
from igb_jax.training.experiment import Experiment, RunConfig, for_seed
from igb_jax.training.interrupt import stop_on_signal
from igb_jax.training.loggers import LoggerError, check_loggers, open_loggers
from igb_jax.training.loop import EpochRecord, NonFiniteError, Progress, train
from igb_jax.training.progress import TrainProgress
from igb_jax.training.results import judged_split, metrics_line, say, write_results
from igb_jax.training.run_folder import RunFolder
from igb_jax.training.seeds import (
  SeedsProgress,
  SeedsState,
  check_seeds,
  of_seed,
  train_seeds,
)

_State = TypeVar("_State")
_Progress = TypeVar("_Progress", Progress, SeedsProgress)

_RUNS = Path("runs")
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def main(
  make_experiment: Callable[[], Experiment],
  config: RunConfig,
  *,
  program: str,
  arguments: Sequence[str],
  join: Callable[[], None] = lambda: None,
) -> NoReturn:
  """Runs an experiment and exits with a code that says how it went.

  0 after a complete run, 1 when the numbers were not finite, memory was too little, a
  process that prepares data died, a logger could not start, or a file could not be read
  or written any more, 2 when an option or the data were wrong or a package is not
  installed, 130 after Ctrl-C, 143 after SIGTERM. Where one of several processes fails,
  the others fail soon after.

  Args:
    make_experiment: prepares the experiment.
    config: of the run, a dataclass.
    program: what was started, as a command line has it, for the command that resumes
      the run.
    arguments: those on its command line.
    join: joins the other processes of the run, before anything uses a device.
  """
  errors = Console(stderr=True)
  # orbax logs the traceback of an error, twice, before it raises it
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  use_compilation_cache()

  def complain(error: Exception) -> None:
    say(errors, f"error: {error}")

  out = config.out and config.out.expanduser()
  with leaving_at_once():
    try:
      try:
        join()
        is_first = jax.process_index() == 0
        console = Console(quiet=not is_first)
        _check_folder(out, config)  # before the data are prepared
        experiment = make_experiment()
        folder = RunFolder(
          out or default_folder(experiment.dataset, config),
          resumed=config.resume,
          writes=is_first,
        )
      except (ValueError, TypeError, OSError) as error:
        complain(error)
        sys.exit(EXIT_BAD_INPUT)
      except ModuleNotFoundError as error:
        if not is_of_extra(error.name):
          raise
        say(errors, f"error: {missing_package(error.name)}")
        sys.exit(EXIT_BAD_INPUT)
      except PreparationError as error:
        complain(error)
        sys.exit(EXIT_FAILED)
      except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
          raise
        say(errors, f"error: {what_to_lower(config, error)}")
        sys.exit(EXIT_FAILED)
      again = resume_command(program, arguments, config, folder.path)
      with contextlib.closing(experiment), contextlib.closing(folder):
        try:
          wait_for_all()
          runner = run_seeds if config.seeds else run
          code = runner(experiment, config, folder, console=console, again=again)
        except (NonFiniteError, LoadingError, CheckpointError, OSError) as error:
          complain(error)
          # the command that has just failed would fail again
          if not (
            isinstance(error, LoggerError)
            or (isinstance(error, CheckpointError) and config.resume)
          ):
            say(errors, f"what was saved before is in {folder.path}; to go on: {again}")
          sys.exit(EXIT_FAILED)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
          if is_out_of_memory(error):
            say(errors, f"error: {what_to_lower(config, error)}")
            say(
              errors,
              f"what was saved before is in {folder.path}; to go on with more memory: "
              f"{again}",
            )
          elif isinstance(error, RuntimeError) and is_of_another_process(error):
            complain(error)
            say(errors, f"another process of the run has ended; to go on: {again}")
          else:
            raise
          sys.exit(EXIT_FAILED)
        except KeyboardInterrupt:
          say(errors, f"stopped; to go on: {again}")
          sys.exit(EXIT_INTERRUPTED)
    except KeyboardInterrupt:
      sys.exit(EXIT_INTERRUPTED)
  sys.exit(code)


def _check_folder(out: Path | None, config: RunConfig) -> None:
  interval = parse_interval(config.checkpoint_every)
  check_seeds(config)
  if jax.process_index() == 0:
    check_loggers(config)
  if jax.process_count() > 1:
    if out is None:
      raise ValueError("several processes need one --out, which all of them see.")
    if interval.seconds is not None:
      raise ValueError(
        f"--checkpoint-every={config.checkpoint_every} is for one process; the clocks "
        "of several differ, so count epochs, such as 1epoch."
      )
  command_line.check_at_least(config, {"keep": 1})
  if jax.process_index() == 0:
    RunFolder.check_writable(out or _RUNS)
  if config.resume:
    if out is None:
      raise ValueError("--resume needs --out, the folder of the run that is to go on.")
    RunFolder.check_resumable(out, _fields(config))
  elif out and jax.process_index() == 0:
    RunFolder.check(out)


def is_out_of_memory(error: Exception) -> bool:
  """Whether an error says that the memory of the host or of a device is too little.

  Args:
    error: of Python, or of a computation.

  Example:
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("INTERNAL: ..."))
    (True, False)
  """
  return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def what_to_lower(config: RunConfig, error: Exception) -> str:
  """What to change about a run that takes more memory than there is, in words.

  Args:
    config: of the run.
    error: what told of it.
  """
  told = str(error).strip().partition("\n")[0]
  text = f"too little memory{told and f' ({told})'}."
  sizes = [
    f"{command_line.option_of(name)} (now {getattr(config, name)})"
    for name in ("batch_size", "dim", "width", "resolution")
    if hasattr(config, name)
  ]
  if sizes:
    text += f" Lower {' or '.join(sizes)}."
  if config.seeds:
    text += f" Train fewer than {len(config.seeds)} --seeds at once."
  if balances_gradients(config.balancer):
    text += (
      f" --balancer={config.balancer} holds the gradients of all tasks at once; a loss "
      "balancer holds one."
    )
  return text


def _fields(config: RunConfig) -> dict[str, Any]:
  return dataclasses.asdict(config)  # pyright: ignore[reportArgumentType]


def resume_command(
  program: str, arguments: Sequence[str], config: RunConfig, folder: Path
) -> str:
  """The command that goes on with a run.

  Args:
    program: what was started, as a command line has it.
    arguments: those on its command line.
    config: what they say.
    folder: of the run.
  """
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
  """Where a run without --out goes: runs/, data set, balancer, seed and time.

  Args:
    dataset: name of the data set.
    config: of the run.
  """
  now = datetime.now().strftime("%Y%m%d-%H%M%S")
  seeds = "-".join(map(str, config.seeds or [config.seed]))
  return _RUNS / f"{dataset}-{config.balancer}-seed{seeds}-{now}"


def run(
  experiment: Experiment,
  config: RunConfig,
  folder: RunFolder,
  *,
  console: Console,
  again: str,
) -> int:
  """Trains, tests the epoch with the best validation, and writes the results.

  After Ctrl-C what there is by then is tested and written; after SIGTERM it is saved,
  and no more. A second Ctrl-C, or either one during the test, ends the process at once.
  With several processes either one to any of them has all save after the same step, and
  no more.

  Args:
    experiment: ready to train.
    config: of the run, a dataclass.
    folder: where the results go.
    console: where progress and the table are shown.
    again: the command that goes on with the run.

  Returns:
    The exit code: 0 if the run took all of its epochs, else that of the signal.

  Raises:
    NonFiniteError: a loss, gradient or metric was not finite. What was saved stays.
    LoadingError: a batch could not be loaded. What was saved stays.
    CheckpointError: a checkpoint could not be written, or none of a run that is resumed
      can be read. What was saved stays.
    OSError: another file could not be written.
  """
  _begin(experiment, config, folder, console, f"seed {config.seed}")
  state = experiment.init_state()
  template = abstract(state)
  progress = TrainProgress(console, config.epochs, experiment.steps_per_epoch)

  def on_epoch(record: EpochRecord) -> None:
    folder.append_metrics(metrics_line(experiment, record))
    progress.line(
      f"epoch {record.epoch + 1}/{config.epochs}: mean loss "
      f"{np.nanmean(record.losses):.4f}, {judged_split(experiment)} delta_m "
      f"{record.validation.score:.1f}%, {record.train_seconds:.1f} s"
    )

  checkpoints = _open_checkpoints(config, folder)
  with stop_on_signal() as stop, checkpoints, progress:
    start = Progress()
    if config.resume:
      state, start = _resume(
        experiment, config, folder, checkpoints, state, start, console
      )
    # only now: TensorBoard forgets what was logged before
    _start_loggers(experiment, config, folder, progress)
    if config.resume:
      lines = [metrics_line(experiment, record) for record in start.records]
      folder.write_metrics(lines)
    state, reached = train(
      state,
      step=experiment.step,
      batches_of_epoch=experiment.epoch_batches,
      evaluate=lambda state: experiment.evaluate(state, "validation"),
      plateau=experiment.plateau,
      task_names=experiment.task_names,
      num_epochs=config.epochs,
      checkpoints=checkpoints,
      progress=progress,
      stop=stop,
      on_epoch=on_epoch,
      start=start,
    )
    stop.agree()  # a signal may have come during the last validation
    best = None if stop.at_once else checkpoints.restore_best(template)
  if stop.at_once:
    say(console, f"stopped and saved; to go on: {again}")
    return EXIT_TERMINATED
  if best is None:
    say(console, "stopped before the first epoch ended: there is nothing to test.")
    say(console, f"to go on: {again}")
    return EXIT_INTERRUPTED
  best_state, content = best
  complete = write_results(
    experiment,
    config,
    folder,
    reached=reached,
    final=state,
    best=best_state,
    best_epoch=len(Progress.from_json(content).records) - 1,
    console=console,
  )
  say(console, f"  {folder.checkpoints}/")
  if complete:
    return 0
  say(
    console,
    f"stopped after {len(reached.records)} of {config.epochs} epochs; to go on: "
    f"{again}",
  )
  return EXIT_INTERRUPTED


def run_seeds(
  experiment: Experiment,
  config: RunConfig,
  folder: RunFolder,
  *,
  console: Console,
  again: str,
) -> int:
  """Trains several seeds at once, and writes the results of each as `run` does.

  They go to seed0/, seed1/, ... below the run's folder, which has the checkpoints of
  all. A seed whose numbers are not finite fails alone. After Ctrl-C what there is by
  then is tested and written; after SIGTERM it is saved, and no more.

  Args:
    experiment: ready to train.
    config: of the run, a dataclass.
    folder: where the results go.
    console: where progress and the tables are shown.
    again: the command that goes on with the run.

  Returns:
    The exit code: 0 if all seeds took all of their epochs, else that of the signal.

  Raises:
    NonFiniteError: a seed failed; the results of the others are written.
    LoadingError: a batch could not be loaded. What was saved stays.
    CheckpointError: a checkpoint could not be written, or none of a run that is resumed
      can be read. What was saved stays.
    OSError: another file could not be written.
  """
  seeds = list(config.seeds)
  named = ", ".join(map(str, seeds))
  _begin(experiment, config, folder, console, f"seeds {named}")
  experiments = [for_seed(experiment, seed) for seed in seeds]
  configs = [_of_seed(config, folder.path, seed) for seed in seeds]
  folders = [
    RunFolder(each.out, resumed=config.resume)
    for each in configs
    if each.out is not None
  ]
  progress = TrainProgress(console, config.epochs, experiment.steps_per_epoch)

  def on_epoch(index: int, record: EpochRecord) -> None:
    folders[index].append_metrics(metrics_line(experiments[index], record))
    progress.line(
      f"epoch {record.epoch + 1}/{config.epochs}, seed {seeds[index]}: mean loss "
      f"{np.nanmean(record.losses):.4f}, {judged_split(experiment)} delta_m "
      f"{record.validation.score:.1f}%"
    )

  state = SeedsState.of([each.init_state() for each in experiments])
  checkpoints = _open_checkpoints(config, folder)
  with contextlib.ExitStack() as stack:
    for each in (*experiments, *folders):
      stack.enter_context(contextlib.closing(each))
    stop = stack.enter_context(stop_on_signal())
    stack.enter_context(checkpoints)
    stack.enter_context(progress)
    start = SeedsProgress.at_start(len(seeds))
    if config.resume:
      state, start = _resume(
        experiment, config, folder, checkpoints, state, start, console
      )
    for own, each in zip(folders, configs, strict=True):
      own.write_json("config.json", _fields(each))
      _start_loggers(experiment, each, own, progress)
    if config.resume:
      for own, each, done in zip(folders, experiments, start.of_seeds, strict=True):
        own.write_metrics(metrics_line(each, record) for record in done.records)
    state, reached = train_seeds(
      state,
      experiments=experiments,
      num_epochs=config.epochs,
      checkpoints=checkpoints,
      progress=progress,
      stop=stop,
      on_epoch=on_epoch,
      start=start,
    )
  if stop.at_once:
    say(console, f"stopped and saved; to go on: {again}")
    return EXIT_TERMINATED
  for index, own in enumerate(folders):
    if reached.failures[index] is None and reached.of_seeds[index].records:
      records = reached.of_seeds[index].records
      write_results(
        experiments[index],
        configs[index],
        own,
        reached=reached.of_seeds[index],
        final=of_seed(state.train, index),
        best=of_seed(state.best, index),
        best_epoch=min(
          range(len(records)), key=lambda epoch: records[epoch].validation.score
        ),
        console=console,
        facts={"seeds_at_once": seeds},
      )
  failed = [
    f"seed {seed}: {failure}"
    for seed, failure in zip(seeds, reached.failures, strict=True)
    if failure
  ]
  if failed:
    raise NonFiniteError(-1, [], " ".join(failed))
  if reached.epochs == config.epochs:
    return 0
  say(
    console,
    f"stopped after {reached.epochs} of {config.epochs} epochs; to go on: {again}",
  )
  return EXIT_INTERRUPTED


def _of_seed(config: RunConfig, folder: Path, seed: int) -> RunConfig:
  """The configuration of one of several seeds, as if it were run alone."""
  changes = {"seed": seed, "seeds": (), "out": folder / f"seed{seed}"}
  return dataclasses.replace(config, **changes)  # pyright: ignore[reportArgumentType]


def _begin(
  experiment: Experiment,
  config: RunConfig,
  folder: RunFolder,
  console: Console,
  seeds: str,
) -> None:
  device = describe_devices(config.devices, config.mesh)
  if not (folder.path / "config.json").exists():
    folder.write_json("config.json", _fields(config))
  say(
    console,
    f"{experiment.dataset}, {config.balancer}, {seeds}: {config.epochs} "
    f"epochs of {experiment.steps_per_epoch} steps on {device}; files in {folder.path}",
  )
  say(console, f"data: {experiment.description}")
  if experiment.notice:
    say(console, experiment.notice)


def _start_loggers(
  experiment: Experiment, config: RunConfig, folder: RunFolder, progress: TrainProgress
) -> None:
  if not folder.writes:
    return
  loggers = open_loggers(
    config,
    folder.path,
    name=f"{experiment.dataset}-{config.balancer}-seed{config.seed}",
    options=_fields(config),
    report=progress.line,
  )
  folder.log_to(loggers)


def _open_checkpoints(config: RunConfig, folder: RunFolder) -> Checkpoints:
  interval = parse_interval(config.checkpoint_every)
  return Checkpoints(folder.checkpoints, every=interval, keep=config.keep)


def _resume(
  experiment: Experiment,
  config: RunConfig,
  folder: RunFolder,
  checkpoints: Checkpoints,
  state: _State,
  start: _Progress,
  console: Console,
) -> tuple[_State, _Progress]:
  """The newest state that is intact and how far it is; those given if there is none."""
  for steps, what in checkpoints.damaged.items():
    say(console, f"checkpoint {steps} is damaged and left out: {what}.")
  restored = checkpoints.restore_newest(cast(Any, state))
  if restored is None:
    say(console, "no checkpoint yet: the run starts from the beginning.")
  else:
    state, content = cast(Any, restored)
    start = type(start).from_json(content)
    epochs, steps = start.epochs, start.steps
    reached = epochs * experiment.steps_per_epoch + steps
    if reached != checkpoints.newest:
      raise CheckpointError(
        f"the data have changed: an epoch has {experiment.steps_per_epoch} steps now, "
        f"with which {epochs} epochs and {steps} steps are {reached} and not "
        f"{checkpoints.newest}. Bring the old data back, or choose another --out."
      )
    if epochs + (steps > 0) > config.epochs:
      raise CheckpointError(
        f"the run is in epoch {epochs + 1} already; --epochs={config.epochs} must not "
        "be less."
      )
    say(console, f"goes on after epoch {epochs} and {steps} steps of the next.")
  folder.write_json("config.json", _fields(config))  # some options may have changed
  return state, start
