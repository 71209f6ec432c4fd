"""A run from its first step to its table: what every experiment does alike."""

import contextlib
import dataclasses
import logging
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import jax
import numpy as np
import optax
import platformdirs
from rich.console import Console
from rich.table import Table

from igb_jax.data.loader import LoadingError
from igb_jax.training import command_line
from igb_jax.training.checkpoint import (
  CheckpointError,
  Checkpoints,
  abstract,
  parse_interval,
)
from igb_jax.training.interrupt import StopRequest, stop_on_signal
from igb_jax.training.loop import (
  EpochRecord,
  Evaluation,
  GradientRecord,
  NonFiniteError,
  Progress,
  train,
)
from igb_jax.training.plots import plot_run
from igb_jax.training.progress import TrainProgress
from igb_jax.training.run_folder import RunFolder
from igb_jax.training.step import Batch, TrainState

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Metric(NamedTuple):
  """A number that a run reports.

  Attributes:
    name: of the metric.
    unit: in which it is reported.
    single_task: the single-task run's value, the base of delta_m.
    higher_is_better: whether it is an accuracy rather than an error.
  """

  name: str
  unit: str
  single_task: float
  higher_is_better: bool = False


class RunConfig(Protocol):
  """The fields of a configuration that every run needs; a frozen dataclass."""

  @property
  def out(self) -> Path | None:
    """Folder of the run's files, or None for one below runs/."""
    ...

  @property
  def balancer(self) -> str:
    """Specification of the balancer."""
    ...

  @property
  def balancer_options(self) -> Sequence[str]:
    """Its hyper-parameters, each NAME=VALUE."""
    ...

  @property
  def seed(self) -> int:
    """Seed of the run."""
    ...

  @property
  def epochs(self) -> int:
    """Number of epochs."""
    ...

  @property
  def resume(self) -> bool:
    """Whether the run in `out` goes on."""
    ...

  @property
  def checkpoint_every(self) -> str:
    """Time from one checkpoint to the next, see `parse_interval`."""
    ...

  @property
  def keep(self) -> int:
    """How many of the newest checkpoints are kept."""
    ...


class Experiment(Protocol):
  """What a run needs to know of a data set, a net and a balancer."""

  @property
  def dataset(self) -> str:
    """Name of the data set."""
    ...

  @property
  def task_names(self) -> Sequence[str]:
    """Names of the K tasks."""
    ...

  @property
  def metrics(self) -> Sequence[Metric]:
    """What is reported of the test split."""
    ...

  @property
  def description(self) -> str:
    """What the data are and where they come from; shown at the start."""
    ...

  @property
  def base(self) -> str:
    """Whose single-task metrics are the base of delta_m, in a word or two."""
    ...

  @property
  def notice(self) -> str | None:
    """What a reader of the results must know; shown, and kept in summary.json."""
    ...

  @property
  def averaged_epochs(self) -> int | None:
    """How many last epochs' validations are averaged to be the test.

    None where the epoch with the best validation is tested instead.
    """
    ...

  @property
  def steps_per_epoch(self) -> int:
    """Number of training batches."""
    ...

  @property
  def step(self) -> Callable[[TrainState, Batch], TrainState]:
    """The jitted training step."""
    ...

  @property
  def plateau(self) -> optax.GradientTransformationExtraArgs:
    """What lowers the learning rate."""
    ...

  def init_state(self) -> TrainState:
    """The state before the first step."""
    ...

  def epoch_batches(self, epoch: int, start: int = 0) -> Iterable[Batch]:
    """The batches of an epoch from one of them on, a function of the epoch alone."""
    ...

  def epoch_facts(self, epoch: int) -> dict[str, float]:
    """What else is worth a place in the epoch's line of metrics.jsonl.

    A function of the epoch alone: a run that is resumed asks again.
    """
    ...

  def run_facts(self) -> dict[str, Any]:
    """What else is worth a place in summary.json."""
    ...

  def evaluate(
    self, state: TrainState, split: Literal["validation", "test"]
  ) -> Evaluation:
    """The metrics of a split."""
    ...

  def plot(self, folder: Path, state: TrainState) -> list[Path]:
    """Draws what is particular to the data set; returns the files."""
    ...

  def close(self) -> None:
    """Ends what still loads batches."""
    ...


def main(
  make_experiment: Callable[[], Experiment],
  config: RunConfig,
  *,
  program: str,
  arguments: Sequence[str],
  join: Callable[[], None] = lambda: None,
) -> NoReturn:
  """Runs an experiment and exits with a code that says how it went.

  0 after a complete run, 1 when the numbers were not finite, the data could not be read
  or a file could not be written any more, 2 when an option or the data were wrong, 130
  after Ctrl-C, 143 after SIGTERM.

  Args:
    make_experiment: prepares the experiment.
    config: of the run, a dataclass.
    program: the module that is run, for the command that resumes the run.
    arguments: those on its command line.
    join: joins the other processes of the run, before anything uses a device.
  """
  errors = Console(stderr=True)
  # orbax logs the traceback of an error, twice, before it raises it
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  use_compilation_cache()

  def complain(error: Exception) -> None:
    _say(errors, f"error: {error}")

  out = config.out and config.out.expanduser()
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
    again = resume_command(program, arguments, config, folder.path)
    with contextlib.closing(experiment):
      try:
        code = run(experiment, config, folder, console=console, again=again)
      except (NonFiniteError, LoadingError, CheckpointError, OSError) as error:
        complain(error)
        _say(errors, f"what was saved before is in {folder.path}; to go on: {again}")
        sys.exit(EXIT_FAILED)
      except KeyboardInterrupt:
        _say(errors, f"stopped; to go on: {again}")
        sys.exit(EXIT_INTERRUPTED)
  except KeyboardInterrupt:
    sys.exit(EXIT_INTERRUPTED)
  sys.exit(code)


def _check_folder(out: Path | None, config: RunConfig) -> None:
  interval = parse_interval(config.checkpoint_every)
  if jax.process_count() > 1:
    if out is None:
      raise ValueError("several processes need one --out, which all of them see.")
    if interval.seconds is not None:
      raise ValueError(
        f"--checkpoint-every={config.checkpoint_every} is for one process; the clocks "
        "of several differ, so count epochs, such as 1epoch."
      )
  command_line.check_at_least(config, {"keep": 1})
  if config.resume:
    if out is None:
      raise ValueError("--resume needs --out, the folder of the run that is to go on.")
    RunFolder.check_resumable(out, _fields(config))
  elif out and jax.process_index() == 0:
    RunFolder.check(out)


def _fields(config: RunConfig) -> dict[str, Any]:
  return dataclasses.asdict(config)  # pyright: ignore[reportArgumentType]


def resume_command(
  program: str, arguments: Sequence[str], config: RunConfig, folder: Path
) -> str:
  """The command that goes on with a run.

  Args:
    program: the module that was run.
    arguments: those on its command line.
    config: what they say.
    folder: of the run.
  """
  more = [] if config.out else [f"--out={folder}"]
  more += [] if config.resume else ["--resume"]
  return shlex.join(["python", "-m", program, *arguments, *more])


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
  return Path("runs") / f"{dataset}-{config.balancer}-seed{config.seed}-{now}"


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
  device = jax.devices()[0].device_kind
  folder.write_json("config.json", _fields(config))
  _say(
    console,
    f"{experiment.dataset}, {config.balancer}, seed {config.seed}: {config.epochs} "
    f"epochs of {experiment.steps_per_epoch} steps on {device}; files in {folder.path}",
  )
  _say(console, f"data: {experiment.description}")
  if experiment.notice:
    _say(console, experiment.notice)
  state = experiment.init_state()
  template = abstract(state)
  # where the last epochs are averaged, what is validated is the test split
  judged = "validation" if experiment.averaged_epochs is None else "test"
  checkpoints = Checkpoints(
    folder.checkpoints, every=parse_interval(config.checkpoint_every), keep=config.keep
  )
  progress = TrainProgress(console, config.epochs, experiment.steps_per_epoch)

  def metrics_of(record: EpochRecord) -> dict[str, Any]:
    facts = experiment.epoch_facts(record.epoch)
    return _metrics_line(record, experiment.task_names) | facts

  def on_epoch(record: EpochRecord) -> None:
    folder.append_metrics(metrics_of(record))
    progress.line(
      f"epoch {record.epoch + 1}/{config.epochs}: mean loss "
      f"{np.nanmean(record.losses):.4f}, {judged} delta_m "
      f"{record.validation.score:.1f}%, {record.train_seconds:.1f} s"
    )

  # several processes do not get a signal at the same step: it ends them at once
  is_alone = jax.process_count() == 1
  signals = stop_on_signal() if is_alone else contextlib.nullcontext(StopRequest())
  with signals as stop, checkpoints, progress:
    start = Progress()
    if config.resume:
      state, start = _resume(checkpoints, state, config.epochs, console)
      folder.write_metrics(metrics_of(record) for record in start.records)
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
    best = None if stop.at_once else checkpoints.restore_best(template)
  if stop.at_once:
    _say(console, f"stopped and saved; to go on: {again}")
    return EXIT_TERMINATED
  if best is None:
    _say(console, "stopped before the first epoch ended: there is nothing to test.")
    _say(console, f"to go on: {again}")
    return EXIT_INTERRUPTED
  records = reached.records
  best_state, content = best
  best_epoch = len(Progress.from_json(content).records) - 1
  if experiment.averaged_epochs is None:
    test = experiment.evaluate(best_state, "test")
    tested = f"of epoch {best_epoch + 1}, the best in validation"
  else:
    latest = [record.validation for record in records[-experiment.averaged_epochs :]]
    test = _mean(latest)
    tested = f"as the mean over the last {len(latest)} epochs"
  shown_state = best_state if experiment.averaged_epochs is None else state

  last = records[-1]
  complete = len(records) == config.epochs
  chunks = [seconds for record in records for seconds in record.seconds_per_step]
  summary = folder.write_json(
    "summary.json",
    {
      "dataset": experiment.dataset,
      "data": experiment.description,
      "balancer": config.balancer,
      "balancer_options": list(config.balancer_options),
      "seed": config.seed,
      "epochs": len(records),
      "complete": complete,
      "best_epoch": best_epoch,
      "num_steps": last.num_steps,
      "skipped_steps": sum(record.skipped_steps for record in records),
      "device": device,
      "train_seconds": reached.seconds,
      "seconds_per_step": float(np.median(chunks)) if chunks else None,
      "data_wait_share": sum(record.data_seconds for record in records)
      / sum(record.train_seconds for record in records),
      "delta_m": test.score,
      "test": test.metrics,
      "tested": tested,
      "single_task_base": experiment.base,
      "notice": experiment.notice,
      **experiment.run_facts(),
      "tasks": list(experiment.task_names),
      "weights": last.weights.tolist(),
      **_gradient_facts(last.gradient),
    },
  )
  with tempfile.TemporaryDirectory() as discarded:  # every process must take part
    plot_folder = folder.plots if folder.writes else Path(discarded)
    plots = plot_run(
      plot_folder,
      task_names=experiment.task_names,
      losses=np.stack([record.losses for record in records]),
      weights=np.stack([record.weights for record in records]),
      gradients=[record.gradient for record in records if record.gradient],
      title=f"{experiment.dataset}, {config.balancer}, seed {config.seed}",
    )
    plots += experiment.plot(plot_folder, shown_state)
  _print_table(console, experiment, test, f"{experiment.dataset}: test {tested}")
  if experiment.notice:
    _say(console, experiment.notice)
  if not complete:
    _say(
      console,
      f"stopped after {len(records)} of {config.epochs} epochs; to go on: {again}",
    )
  _say(
    console,
    f"{judged} delta_m {records[0].validation.score:.1f}% after the first epoch, "
    f"{records[best_epoch].validation.score:.1f}% after epoch {best_epoch + 1}, the "
    "best.",
  )
  _say(console, "files:")
  names = ["config.json", "metrics.jsonl"]
  for path in (*(folder.path / name for name in names), summary, *plots):
    _say(console, f"  {path}")
  _say(console, f"  {folder.checkpoints}/")
  return 0 if complete else EXIT_INTERRUPTED


def _resume(
  checkpoints: Checkpoints, state: TrainState, num_epochs: int, console: Console
) -> tuple[TrainState, Progress]:
  """The newest state that is intact, or the one given if there is none."""
  for steps, what in checkpoints.damaged.items():
    _say(console, f"checkpoint {steps} is damaged and left out: {what}.")
  restored = checkpoints.restore_newest(state)
  if restored is None:
    _say(console, "no checkpoint yet: the run starts from the beginning.")
    return state, Progress()
  state, content = restored
  start = Progress.from_json(content)
  done = len(start.records)
  if done + (start.steps > 0) > num_epochs:
    raise CheckpointError(
      f"the run is in epoch {done + 1} already; --epochs={num_epochs} must not be less."
    )
  _say(console, f"goes on after epoch {done} and {start.steps} steps of the next.")
  return state, start


def _metrics_line(record: EpochRecord, task_names: Sequence[str]) -> dict[str, Any]:
  chunks = record.seconds_per_step
  return {
    "epoch": record.epoch,
    "num_steps": record.num_steps,
    "skipped_steps": record.skipped_steps,
    "losses": {
      name: None if np.isnan(loss) else float(loss)  # a task without a label
      for name, loss in zip(task_names, record.losses, strict=True)
    },
    "weights": dict(zip(task_names, record.weights.tolist(), strict=True)),
    "learning_rate_scale": record.learning_rate_scale,
    "validation": record.validation.metrics,
    "validation_delta_m": record.validation.score,
    "steps_seconds": record.train_seconds,
    "data_seconds": record.data_seconds,
    "seconds_per_step": float(np.median(chunks)) if chunks else None,
    **_gradient_facts(record.gradient),
  }


def _gradient_facts(record: GradientRecord | None) -> dict[str, Any]:
  """In the order of the tasks."""
  if record is None:
    return {}
  return {
    "gradient_weights": record.weights.tolist(),
    "gradient_cosines": record.cosines.tolist(),
    "conflict_share": record.conflict_share,
    "gramian_condition_number": record.condition_number,
    "solver_residual": record.residual,
    "solver_worst_residual": record.worst_residual,
  }


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
  names = evaluations[0].metrics
  return Evaluation(
    metrics={
      name: float(np.mean([each.metrics[name] for each in evaluations]))
      for name in names
    },
    score=float(np.mean([each.score for each in evaluations])),
  )


def _print_table(
  console: Console, experiment: Experiment, test: Evaluation, title: str
) -> None:
  table = Table(title=title)
  table.add_column("metric")
  table.add_column("unit")
  for name in ("test", f"single-task ({experiment.base})", "change"):
    table.add_column(name, justify="right")
  for metric in experiment.metrics:
    value = test.metrics[metric.name]
    change = 100 * (value - metric.single_task) / metric.single_task
    table.add_row(
      metric.name,
      metric.unit,
      f"{value:.4g}",
      f"{metric.single_task:.4g}",
      f"{change:+.0f}%",
    )
  table.add_section()
  table.add_row("delta_m", "%", f"{test.score:.1f}", "0", "")
  console.print(table)


def _say(console: Console, text: str) -> None:
  console.print(text, markup=False, highlight=False, soft_wrap=True)
