"""The training loop: epochs of jitted steps, validation, plateau, checkpoints.

Steps are dispatched in chunks of about a second, and only between chunks does the
host look at a few numbers. Nothing else leaves the device within an epoch. Several
seeds go through the same loop, with a leading axis on every leaf of the state.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from igb_jax.training.checkpoint import Checkpoints
from igb_jax.training.failures import (
  NonFiniteError,
  check_evaluation,
  check_sums,
  describe_failure,
)
from igb_jax.training.interrupt import StopRequest
from igb_jax.training.progress import TrainProgress
from igb_jax.training.records import (
  EpochRecord,
  Evaluation,
  GradientRecord,
  Progress,
  Timing,
  mean_losses,
  progress_to_json,
)
from igb_jax.training.seeds import of_seed
from igb_jax.training.step import CONSTANT, Batch, TrainState, learning_rate_scale

_CHUNK_SECONDS = 0.5  # a chunk of steps that took less is doubled
_SHARED_CHUNK = 16  # most steps of a chunk of several processes, whose clocks differ


def train(
  state: TrainState,
  *,
  step: Callable[..., TrainState],
  batches_of_epoch: Callable[[int, int], Iterable[Batch]],
  evaluate: Callable[[TrainState], Evaluation],
  plateau: optax.GradientTransformationExtraArgs | None,
  schedule: optax.Schedule = CONSTANT,
  task_names: Sequence[str],
  num_epochs: int,
  checkpoints: Checkpoints,
  progress: TrainProgress,
  stop: StopRequest,
  on_epoch: Callable[[int, EpochRecord], None],
  start: Sequence[Progress] = (Progress(),),
  follows_scores: bool = False,
) -> tuple[TrainState, list[Progress]]:
  """Trains for some epochs, or until a stop is asked for or every seed has failed.

  Args:
    state: the state to start from; donated. Of S > 1 seeds, with leaves [S, ...].
    step: the jitted step, from `make_train_step` or `make_seeds_step`.
    batches_of_epoch: epoch number, number of a batch -> the epoch's batches from there,
      as `step` takes them.
    evaluate: state of one seed -> validation.
    plateau: what lowers the learning rate, given the validation score, or None.
    schedule: see `make_train_step`.
    task_names: names of the K tasks, for messages.
    num_epochs: the number of epochs of the run.
    checkpoints: where the state goes when it is time, when an epoch is the best so far
      of a seed, and at the end.
    progress: the display.
    stop: looked at between chunks of steps; an epoch that is cut short is saved, but
      not validated or recorded.
    on_epoch: called with the place of the seed and the record of its epoch.
    start: how far each seed is with this state.
    follows_scores: whether each step of a single seed gets `scores`, f32[K], those of
      the tasks in the latest validation, and zeros before it.

  Returns:
    The final state, and how far each seed is with it. One of several seeds may have
    failed; the others went on.

  Raises:
    NonFiniteError: a loss, gradient or validation metric of a single seed was not
      finite. What was saved stays.
    CheckpointError: a checkpoint could not be written. Those before it stay.
  """
  num_seeds = len(start)
  begin = time.perf_counter() - start[0].seconds
  records = [[*each.records] for each in start]
  failures = [each.failure for each in start]
  first_epoch, first_step = max(map(len, records)), start[0].steps

  def fail(index: int, error: NonFiniteError) -> None:
    if num_seeds == 1:
      raise error
    failures[index] = str(error)

  def reached(steps: int = 0) -> list[Progress]:
    seconds = time.perf_counter() - begin
    return [
      Progress(tuple(each), steps, seconds, failure)
      for each, failure in zip(records, failures, strict=True)
    ]

  def save(state: TrainState, steps: int = 0, scores: np.ndarray | None = None) -> None:
    total = max(map(len, records)) * progress.steps_per_epoch + steps
    checkpoints.save(total, state, progress_to_json(reached(steps)), scores)

  def pause(state: TrainState, steps: int) -> bool:
    stops = stop.agree() or all(failures)
    if stops or checkpoints.is_due():
      save(state, steps)
    return stops

  def check(state: TrainState, failed_step: np.ndarray) -> None:
    if np.max(failed_step) < 0:
      return
    found = jax.device_get((state.failure, state.skips_in_a_row))
    for index in range(num_seeds):
      failure, skipped = of_seed(found, index, num_seeds)
      if failure.step >= 0 and failures[index] is None:
        error = describe_failure(failure, skipped, task_names, checkpoints.newest)
        fail(index, error)

  def lower(state: Any, score: jax.Array) -> Any:
    assert plateau is not None
    return plateau.update((), state, value=score)[1]

  scale_of = jax.jit(functools.partial(learning_rate_scale, schedule=schedule))
  lower_learning_rate = jax.jit(lower if num_seeds == 1 else jax.vmap(lower))
  for epoch in range(first_epoch, num_epochs):
    if pause(state, first_step):
      return state, reached(first_step)
    scales = np.broadcast_to(jax.device_get(scale_of(state)), num_seeds)
    if first_step == 0:
      state = state._replace(sums=optax.tree.zeros_like(state.sums))
    batches = batches_of_epoch(epoch, first_step)
    one_step = step
    if follows_scores:
      latest = records[0][-1].validation.of_tasks if records[0] else ()
      of_tasks = np.asarray(latest or [0.0] * len(task_names), np.float32)
      replicated = jax.device_put(of_tasks, state.step.sharding)
      one_step = functools.partial(step, scores=replicated)
    state, timing, steps = run_epoch(
      state, one_step, batches, epoch, first_step, check, progress, pause
    )
    if steps < progress.steps_per_epoch:
      return state, reached(steps)
    first_step = 0
    scores = np.full(num_seeds, np.inf)
    on_host = jax.device_get((state.step, state.sums))
    for index in (index for index in range(num_seeds) if not failures[index]):
      num_steps, sums = of_seed(on_host, index, num_seeds)
      try:
        check_sums(sums, int(num_steps), epoch, checkpoints.newest)
        validation = evaluate(of_seed(state, index, num_seeds))
        check_evaluation(validation, int(num_steps), epoch)
      except NonFiniteError as error:
        fail(index, error)
        continue
      scores[index] = validation.score
      record = EpochRecord(
        epoch=epoch,
        num_steps=int(num_steps),
        skipped_steps=int(sums.skipped),
        losses=mean_losses(sums),
        weights=sums.weights / sums.steps,
        gradient=GradientRecord.of(sums.gradient) if sums.gradient else None,
        learning_rate_scale=float(scales[index]),
        validation=validation,
        train_seconds=timing.total,
        data_seconds=timing.data,
        seconds_per_step=timing.per_step[epoch == first_epoch :],
      )
      records[index].append(record)
    if all(failures):
      break
    if plateau is not None:
      score = np.squeeze(scores).astype(np.float32)
      state = state._replace(plateau=lower_learning_rate(state.plateau, score))
    is_last = epoch + 1 == num_epochs
    if checkpoints.is_due(epoch + 1) or checkpoints.is_best(scores) or is_last:
      save(state, scores=scores)
    for index, each in enumerate(records):
      if not failures[index]:
        on_epoch(index, each[-1])
  return state, reached()


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
    batches: the batches of the steps that are to be taken.
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
    losses = mean_losses(sums)
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
