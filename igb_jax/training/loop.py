"""The training loop: epochs of jitted steps, validation, plateau, checkpoints.

Steps are dispatched in chunks of about a second, and only between chunks does the
host look at a few numbers. Nothing else leaves the device within an epoch.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from igb_jax.training.checkpoint import Checkpoints
from igb_jax.training.interrupt import StopRequest
from igb_jax.training.progress import TrainProgress
from igb_jax.training.step import (
  Batch,
  EpochSums,
  Failure,
  GradientSums,
  TrainState,
)

_CHUNK_SECONDS = 0.5  # a chunk of steps that took less is doubled
_SHARED_CHUNK = 16  # most steps of a chunk of several processes, whose clocks differ


class NonFiniteError(RuntimeError):
  """A loss, a gradient or a metric was not finite; what was saved before stays.

  Attributes:
    step: number of the step, from 0.
    tasks: names of the tasks whose weighted loss was not finite; empty if only the
      gradient or a metric was not.
  """

  def __init__(self, step: int, tasks: list[str], message: str):
    """Makes the error.

    Args:
      step: number of the step, from 0.
      tasks: names of the tasks.
      message: the whole message.
    """
    super().__init__(message)
    self.step = step
    self.tasks = tasks


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What a pass over a split gave.

  Attributes:
    metrics: name -> number, in the units in which they are reported.
    score: what the learning rate and the choice of the best epoch go by; lower is
      better (delta_m).
  """

  metrics: dict[str, float]
  score: float


@dataclasses.dataclass(frozen=True)
class GradientRecord:
  """What a gradient balancer saw and did in an epoch, means over its steps.

  Attributes:
    weights: the balancer's weights, f[K].
    cosines: between the task gradients of the shared parameters, f[K, K]; over the
      steps whose Gramian has both tasks, 0 if there was none.
    conflict_share: share of pairs of tasks with a negative cosine.
    condition_number: geometric mean of the Gramian's, at most 1 / eps of float32.
    residual: of the solver.
    worst_residual: the largest in the epoch.
  """

  weights: np.ndarray
  cosines: np.ndarray
  conflict_share: float
  condition_number: float
  residual: float
  worst_residual: float

  @classmethod
  def of(cls, sums: GradientSums) -> "GradientRecord":
    """From the sums of an epoch, on the host.

    Args:
      sums: with NumPy leaves.
    """
    steps = np.maximum(sums.steps, 1)
    return cls(
      weights=np.asarray(sums.weights / steps),
      cosines=np.asarray(sums.cosines / np.maximum(sums.pairs, 1)),
      conflict_share=float(sums.conflicts / steps),
      condition_number=float(np.exp(sums.log_condition / steps)),
      residual=float(sums.residual / steps),
      worst_residual=float(sums.worst_residual),
    )


@dataclasses.dataclass
class Timing:
  """Seconds of an epoch.

  Attributes:
    total: in all.
    data: of it, waiting for data.
    per_step: of a step, in each chunk of steps.
  """

  total: float = 0.0
  data: float = 0.0
  per_step: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class EpochRecord:
  """What is known of an epoch at its end.

  Attributes:
    epoch: its number, from 0.
    num_steps: steps taken since the start of training, with those that were skipped.
    skipped_steps: steps of the epoch that were skipped since their numbers were not
      finite; they enter no mean.
    losses: mean task losses over the steps in which the task was present, f[K]; NaN if
      there was none.
    weights: mean weights of the loss balancer over the epoch, f[K].
    gradient: of the gradient balancer, or None without one.
    learning_rate_scale: current / initial learning rate, during the epoch.
    validation: on the validation split at the end of the epoch.
    train_seconds: time of the epoch's steps, in seconds; of those after it, where the
      run was resumed within the epoch.
    data_seconds: part of it that was spent waiting for batches, in seconds.
    seconds_per_step: of each chunk of steps, the one that compiled left out.
  """

  epoch: int
  num_steps: int
  skipped_steps: int
  losses: np.ndarray
  weights: np.ndarray
  gradient: GradientRecord | None
  learning_rate_scale: float
  validation: Evaluation
  train_seconds: float
  data_seconds: float
  seconds_per_step: list[float]

  @classmethod
  def of(
    cls,
    epoch: int,
    num_steps: int,
    sums: Any,
    learning_rate_scale: float,
    validation: Evaluation,
    timing: Timing,
    *,
    compiled: bool,
  ) -> "EpochRecord":
    """From what is on the host at the end of an epoch.

    Args:
      epoch: its number, from 0.
      num_steps: steps taken since the start of training.
      sums: `EpochSums` of the epoch, with NumPy leaves; not all steps were skipped.
      learning_rate_scale: current / initial learning rate, during the epoch.
      validation: at the end of the epoch.
      timing: of its steps.
      compiled: whether the first chunk of all compiled the step.
    """
    return cls(
      epoch=epoch,
      num_steps=num_steps,
      skipped_steps=int(sums.skipped),
      losses=_mean_losses(sums),
      weights=sums.weights / sums.steps,
      gradient=GradientRecord.of(sums.gradient) if sums.gradient else None,
      learning_rate_scale=learning_rate_scale,
      validation=validation,
      train_seconds=timing.total,
      data_seconds=timing.data,
      seconds_per_step=timing.per_step[compiled:],
    )

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> "EpochRecord":
    """The record that `Progress.to_json` made JSON.

    Args:
      content: its fields.
    """
    gradient = content["gradient"]
    if gradient is not None:
      arrays = {name: np.asarray(gradient[name]) for name in ("weights", "cosines")}
      gradient = GradientRecord(**{**gradient, **arrays})
    arrays = {name: np.asarray(content[name]) for name in ("losses", "weights")}
    validation = Evaluation(**content["validation"])
    rest = {"gradient": gradient, "validation": validation}
    return cls(**{**content, **arrays, **rest})


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far a run is; with a `TrainState` all that decides how it goes on.

  Attributes:
    records: of the epochs that have ended.
    steps: taken in the epoch after them.
    seconds: that training has taken, those of earlier processes included.
  """

  records: Sequence[EpochRecord] = ()
  steps: int = 0
  seconds: float = 0.0

  @property
  def epochs(self) -> int:
    """Number of epochs that have ended."""
    return len(self.records)

  def to_json(self) -> dict[str, Any]:
    """What JSON can hold; `from_json` has every number as it was."""
    text = json.dumps(dataclasses.asdict(self), default=lambda array: array.tolist())
    return json.loads(text)

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> "Progress":
    """The inverse of `to_json`.

    Args:
      content: what it returned.

    Example:
      >>> Progress.from_json(Progress(steps=3).to_json()).steps
      3
    """
    records = [EpochRecord.from_json(record) for record in content["records"]]
    return cls(**{**content, "records": records})


def train(
  state: TrainState,
  *,
  step: Callable[[TrainState, Batch], TrainState],
  batches_of_epoch: Callable[[int, int], Iterable[Batch]],
  evaluate: Callable[[TrainState], Evaluation],
  plateau: optax.GradientTransformationExtraArgs,
  task_names: Sequence[str],
  num_epochs: int,
  checkpoints: Checkpoints,
  progress: TrainProgress,
  stop: StopRequest,
  on_epoch: Callable[[EpochRecord], None],
  start: Progress = Progress(),
) -> tuple[TrainState, Progress]:
  """Trains for some epochs, or until a stop is asked for.

  Args:
    state: the state to start from; donated.
    step: the jitted step, from `make_train_step`.
    batches_of_epoch: epoch number, number of a batch -> the epoch's batches from there.
    evaluate: state -> validation.
    plateau: what lowers the learning rate, given the validation score.
    task_names: names of the K tasks, for messages.
    num_epochs: of the run.
    checkpoints: where the state goes when it is time, when an epoch is the best so far,
      and at the end.
    progress: the display.
    stop: looked at between chunks of steps; an epoch that is cut short is saved, but
      not validated or recorded.
    on_epoch: called with the record of each epoch.
    start: how far the run is with this state.

  Returns:
    The final state, and how far the run is with it.

  Raises:
    NonFiniteError: a loss, gradient or validation metric was not finite. What was
      saved stays.
    CheckpointError: a checkpoint could not be written. Those before it stay.
  """
  begin = time.perf_counter() - start.seconds
  records = [*start.records]

  def progress_after(steps: int = 0) -> Progress:
    return Progress(tuple(records), steps, time.perf_counter() - begin)

  def save(state: TrainState, reached: Progress, score: float | None = None) -> None:
    steps = len(reached.records) * progress.steps_per_epoch + reached.steps
    checkpoints.save(steps, state, reached.to_json(), score)

  def pause(state: TrainState, steps: int) -> bool:
    stops = stop.agree()
    if stops or checkpoints.is_due():
      save(state, progress_after(steps))
    return stops

  lower_learning_rate = jax.jit(
    lambda plateau_state, score: plateau.update((), plateau_state, value=score)[1]
  )

  def check(state: TrainState, failed_step: np.ndarray) -> None:
    if failed_step >= 0:
      failure, skipped = jax.device_get((state.failure, state.skips_in_a_row))
      raise describe_failure(failure, skipped, task_names, checkpoints.newest)

  first_step = start.steps
  for epoch in range(len(records), num_epochs):
    if pause(state, first_step):
      return state, progress_after(first_step)
    scale = float(jax.device_get(state.plateau.scale))
    if first_step == 0:
      state = state._replace(sums=state.sums.zeros_like())
    batches = batches_of_epoch(epoch, first_step)
    state, timing, steps = run_epoch(
      state, step, batches, epoch, first_step, check, progress, pause
    )
    if steps < progress.steps_per_epoch:
      return state, progress_after(steps)
    first_step = 0
    num_steps, sums = jax.device_get((state.step, state.sums))
    check_sums(sums, int(num_steps), epoch, checkpoints.newest)
    validation = evaluate(state)
    check_evaluation(validation, int(num_steps), epoch)
    score = jnp.asarray(validation.score, jnp.float32)
    state = state._replace(plateau=lower_learning_rate(state.plateau, score))
    is_first = epoch == len(start.records)
    record = EpochRecord.of(
      epoch, int(num_steps), sums, scale, validation, timing, compiled=is_first
    )
    records.append(record)
    if (
      checkpoints.is_due(len(records))
      or checkpoints.is_best(validation.score)
      or len(records) == num_epochs
    ):
      save(state, progress_after(), validation.score)
    on_epoch(record)
  return state, progress_after()


def run_epoch(
  state: TrainState,
  step: Callable[[TrainState, Batch], TrainState],
  batches: Iterable[Batch],
  epoch: int,
  done: int,
  check: Callable[[TrainState, np.ndarray], None],
  progress: TrainProgress,
  pause: Callable[[TrainState, int], bool],
) -> tuple[TrainState, Timing, int]:
  """Takes the steps of an epoch after those done.

  Args:
    state: before them; donated.
    step: the jitted step.
    batches: of the steps that are to be taken.
    epoch: its number, from 0.
    done: how many of its steps have been taken before.
    check: called between chunks of steps with the state and the number of the step that
      failed, or -1; raises what ends the run.
    progress: the display.
    pause: called between chunks with the state and the number of steps that are done;
      true ends the epoch.

  Returns:
    The state, the time it took, and how many of the epoch's steps are done.
  """
  timing = Timing()
  iterator = iter(batches)
  is_shared = jax.process_count() > 1
  chunk_size = 1
  while done < progress.steps_per_epoch:
    start = time.perf_counter()
    count = min(chunk_size, progress.steps_per_epoch - done)
    for _ in range(count):
      before = time.perf_counter()
      batch = next(iterator)
      timing.data += time.perf_counter() - before
      state = step(state, batch)
    done += count
    sums, failed_step = jax.device_get((state.sums, state.failure.step))
    check(state, failed_step)
    seconds = time.perf_counter() - start
    timing.total += seconds
    timing.per_step.append(seconds / count)
    losses = _mean_losses(sums)
    losses = losses[~np.isnan(losses)]
    if len(losses):
      shown = sums.gradient or sums
      weights = shown.weights / np.maximum(shown.steps, 1)[..., None]
      progress.steps(epoch, done, losses, weights, seconds / count)
    if done < progress.steps_per_epoch and pause(state, done):
      break
    if chunk_size < _SHARED_CHUNK if is_shared else seconds < _CHUNK_SECONDS:
      chunk_size *= 2
  return state, timing, done


def _mean_losses(sums: EpochSums) -> np.ndarray:
  """f[K], over the steps in which a task was present; NaN if there was none."""
  means = sums.losses / np.maximum(sums.present, 1)
  return np.where(sums.present > 0, means, np.nan)


def check_sums(sums: EpochSums, step: int, epoch: int, saved: int | None) -> None:
  """Checks that an epoch had a step that was not skipped.

  Args:
    sums: of the epoch.
    step: number of steps taken since the start of training.
    epoch: its number, from 0.
    saved: number of steps before the newest checkpoint, or None.

  Raises:
    NonFiniteError: it had none.
  """
  if sums.steps == 0:
    raise NonFiniteError(
      step,
      [],
      f"all {sums.skipped} steps of epoch {epoch + 1} were skipped, since their "
      f"numbers were not finite. {_last_checkpoint(saved)} Try a lower learning rate.",
    )


def check_evaluation(evaluation: Evaluation, step: int, epoch: int) -> None:
  """Checks that a validation is finite.

  Args:
    evaluation: at the end of an epoch.
    step: number of steps taken since the start of training.
    epoch: its number, from 0.

  Raises:
    NonFiniteError: a metric or the score is not.
  """
  values = {**evaluation.metrics, "the score": evaluation.score}
  bad = [
    f"{name} = {value}" for name, value in values.items() if not np.isfinite(value)
  ]
  if bad:
    raise NonFiniteError(
      step,
      [],
      f"the validation after epoch {epoch + 1} (step {step}) is not finite: "
      f"{', '.join(bad)}. The epoch was not saved. Try a lower learning rate.",
    )


def describe_failure(
  failure: Failure, skipped: int, task_names: Sequence[str], saved: int | None
) -> NonFiniteError:
  """The error that says at which step and in which tasks the numbers were not finite.

  Args:
    failure: of the step, with NumPy leaves.
    skipped: how many steps in a row had been skipped before it.
    task_names: of the K tasks.
    saved: number of steps before the newest checkpoint, or None.
  """
  step, losses, weighted = failure
  tasks = [k for k in range(len(task_names)) if not np.isfinite(weighted[k])]
  if tasks:
    what = "the weighted loss is not finite for " + ", ".join(
      f"{task_names[k]} (loss {losses[k]:g})" for k in tasks
    )
  else:
    what = "the gradient (or a batch statistic) is not finite, though every loss is"
  if skipped:
    what += f" (and {skipped} in a row were skipped before)"
  return NonFiniteError(
    int(step),
    [task_names[k] for k in tasks],
    f"training stopped at step {step}: {what}. The step was not applied. "
    f"{_last_checkpoint(saved)} {_remedy(np.asarray(losses)[tasks])}",
  )


def _remedy(losses: np.ndarray) -> str:
  """What to try, given the losses whose weighted losses were not finite."""
  tiny = np.finfo(np.float32).tiny  # a subnormal number counts as zero
  if (np.abs(losses) < tiny).any():
    return (
      "A loss of 0 has no logarithm: add a constant to the losses of a log method "
      "(--balancer-options epsilon=1e-3), leave the task out of such a step (in code "
      "of your own, present=losses != 0), or take a balancer without logarithms."
    )
  if (np.isfinite(losses) & (losses < 0)).any():
    return "A negative loss has no logarithm: take a balancer without logarithms."
  return (
    "Try a lower learning rate, or, where a log method meets tiny losses, "
    "--balancer-options epsilon=1e-3."
  )


def _last_checkpoint(steps: int | None) -> str:
  if steps is None:
    return "There is no checkpoint yet."
  return f"The last checkpoint is that after {steps} steps."
