"""The training loop: epochs of jitted steps, validation, plateau, checkpoints.

Steps are dispatched in chunks of about a second, and only between chunks does the
host look at a few numbers. Nothing else leaves the device within an epoch.
"""

import dataclasses
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
from igb_jax.training.step import Batch, GradientSums, TrainState

_CHUNK_SECONDS = 0.5  # a chunk of steps that took less is doubled


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
    cosines: between the task gradients of the shared parameters, f[K, K].
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
  def of(cls, sums: GradientSums, steps: int) -> "GradientRecord":
    """From the sums of an epoch, on the host.

    Args:
      sums: with NumPy leaves.
      steps: number of steps in them.
    """
    return cls(
      weights=np.asarray(sums.weights / steps),
      cosines=np.asarray(sums.cosines / steps),
      conflict_share=float(sums.conflicts / steps),
      condition_number=float(np.exp(sums.log_condition / steps)),
      residual=float(sums.residual / steps),
      worst_residual=float(sums.worst_residual),
    )


@dataclasses.dataclass(frozen=True)
class EpochRecord:
  """What is known of an epoch at its end.

  Attributes:
    epoch: its number, from 0.
    num_steps: steps taken since the start of training.
    losses: mean task losses over the epoch, f[K].
    weights: mean weights of the loss balancer over the epoch, f[K].
    gradient: of the gradient balancer, or None without one.
    learning_rate_scale: current / initial learning rate, during the epoch.
    validation: on the validation split at the end of the epoch.
    train_seconds: time of the epoch's steps, in seconds.
    data_seconds: part of it that was spent waiting for batches, in seconds.
    seconds_per_step: of each chunk of steps, the one that compiled left out.
  """

  epoch: int
  num_steps: int
  losses: np.ndarray
  weights: np.ndarray
  gradient: GradientRecord | None
  learning_rate_scale: float
  validation: Evaluation
  train_seconds: float
  data_seconds: float
  seconds_per_step: list[float]


def train(
  state: TrainState,
  *,
  step: Callable[[TrainState, Batch], TrainState],
  batches_of_epoch: Callable[[int], Iterable[Batch]],
  evaluate: Callable[[TrainState], Evaluation],
  plateau: optax.GradientTransformationExtraArgs,
  task_names: Sequence[str],
  num_epochs: int,
  checkpoints: Checkpoints,
  progress: TrainProgress,
  stop: StopRequest,
  on_epoch: Callable[[EpochRecord], None],
) -> TrainState:
  """Trains for some epochs, or until a stop is asked for.

  Args:
    state: the state to start from; donated.
    step: the jitted step, from `make_train_step`.
    batches_of_epoch: epoch number -> its batches.
    evaluate: state -> validation.
    plateau: what lowers the learning rate, given the validation score.
    task_names: names of the K tasks, for messages.
    num_epochs: of the run.
    checkpoints: where the state goes at the end of each epoch.
    progress: the display.
    stop: looked at between chunks of steps; an epoch that is cut short is not
      validated, recorded or saved.
    on_epoch: called with the record of each epoch.

  Returns:
    The final state.

  Raises:
    NonFiniteError: a loss, gradient or validation metric was not finite. What was
      saved stays.
  """
  lower_learning_rate = jax.jit(
    lambda plateau_state, score: plateau.update((), plateau_state, value=score)[1]
  )
  for epoch in range(num_epochs):
    if stop.requested:
      return state
    scale = float(jax.device_get(state.plateau.scale))
    state = state._replace(sums=state.sums.zeros_like())
    state, timing, complete = _run_epoch(
      state, step, batches_of_epoch(epoch), epoch, task_names, progress, stop
    )
    if not complete:
      return state
    validation = evaluate(state)
    _check_evaluation(validation, int(state.step), epoch)
    score = jnp.asarray(validation.score, jnp.float32)
    state = state._replace(plateau=lower_learning_rate(state.plateau, score))
    steps, losses, weights, gradient = jax.device_get(state.sums)
    record = EpochRecord(
      epoch=epoch,
      num_steps=int(state.step),
      losses=losses / steps,
      weights=weights / steps,
      gradient=GradientRecord.of(gradient, steps) if gradient else None,
      learning_rate_scale=scale,
      validation=validation,
      train_seconds=timing.total,
      data_seconds=timing.data,
      # the first chunk of the first epoch compiled the step
      seconds_per_step=timing.per_step[epoch == 0 :],
    )
    checkpoints.save(epoch, state, validation.score)
    on_epoch(record)
  return state


@dataclasses.dataclass
class _Timing:
  """Seconds of an epoch: in all, waiting for data, and a step in each chunk."""

  total: float = 0.0
  data: float = 0.0
  per_step: list[float] = dataclasses.field(default_factory=list)


def _run_epoch(
  state: TrainState,
  step: Callable[[TrainState, Batch], TrainState],
  batches: Iterable[Batch],
  epoch: int,
  task_names: Sequence[str],
  progress: TrainProgress,
  stop: StopRequest,
) -> tuple[TrainState, _Timing, bool]:
  """Takes the steps of an epoch; the last value says whether it took all."""
  timing = _Timing()
  iterator = iter(batches)
  chunk_size = 1
  done = 0
  while True:
    start = time.perf_counter()
    count = 0
    complete = False
    while count < chunk_size and not complete:
      before = time.perf_counter()
      batch: Any = next(iterator, None)
      timing.data += time.perf_counter() - before
      if batch is None:
        complete = True
      else:
        state = step(state, jax.device_put(batch))
        count += 1
    if count == 0:
      return state, timing, True
    done += count
    sums, failed_step = jax.device_get((state.sums, state.failure.step))
    if failed_step >= 0:
      raise _describe_failure(state, task_names)
    seconds = time.perf_counter() - start
    timing.total += seconds
    timing.per_step.append(seconds / count)
    weights = (sums.gradient or sums).weights
    progress.steps(
      epoch, done, sums.losses / sums.steps, weights / sums.steps, seconds / count
    )
    if complete or stop.requested:
      return state, timing, complete or done == progress.steps_per_epoch
    if seconds < _CHUNK_SECONDS:
      chunk_size *= 2


def _check_evaluation(evaluation: Evaluation, step: int, epoch: int) -> None:
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


def _describe_failure(state: TrainState, task_names: Sequence[str]) -> NonFiniteError:
  step, losses, weighted = jax.device_get(state.failure)
  tasks = [k for k in range(len(task_names)) if not np.isfinite(weighted[k])]
  if tasks:
    what = "the weighted loss is not finite for " + ", ".join(
      f"{task_names[k]} (loss {losses[k]:g})" for k in tasks
    )
  else:
    what = "the gradient is not finite, though every weighted loss is"
  return NonFiniteError(
    int(step),
    [task_names[k] for k in tasks],
    f"training stopped at step {step}: {what}. The step was not applied. Try a lower "
    "learning rate, or a balancer that does not take the logarithm of the losses if "
    "a loss can be 0.",
  )
