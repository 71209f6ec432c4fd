"""Several seeds of a run trained at once, in one step that is vmapped over them.

    state leaf [S, ...], batch leaf [S, ...]  ->  vmap(step)  ->  state leaf [S, ...]

Each seed is the run that it would be alone, up to rounding. It may fail alone too: its
state stays as it was, and the others go on.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from igb_jax.training.balancing import balances_gradients
from igb_jax.training.checkpoint import Checkpoints
from igb_jax.training.experiment import Experiment, RunConfig
from igb_jax.training.interrupt import StopRequest
from igb_jax.training.loop import (
  EpochRecord,
  NonFiniteError,
  Progress,
  check_evaluation,
  check_sums,
  describe_failure,
  run_epoch,
)
from igb_jax.training.progress import TrainProgress
from igb_jax.training.step import Batch, TrainState


@dataclasses.dataclass(frozen=True)
class SeedsConfig:
  """What a command line says of seeds; the base of an experiment's options."""

  seed: int = 0
  """Seed of the initial parameters, the order of the batches and the balancer."""
  seeds: tuple[int, ...] = ()
  """Train with several seeds at once, in one vmapped step, instead of `--seed`; the
  runs go to seed0, seed1, ... in --out. For loss balancers, on one device."""


def check_seeds(config: RunConfig) -> None:
  """Checks that the seeds of a configuration can be trained at once.

  Args:
    config: of the run.

  Raises:
    ValueError: a seed is negative or there twice, the balancer has a gradient part, or
      there are several devices or processes.
  """
  seeds = list(config.seeds)
  if not seeds:
    return
  if min(seeds) < 0 or len(set(seeds)) < len(seeds):
    raise ValueError(f"--seeds must be different numbers from 0 on, got {seeds}.")
  if balances_gradients(config.balancer):
    raise ValueError(
      f"--seeds trains loss balancers only, got {config.balancer}: K task gradients "
      "for every seed at once rarely fit; train one --seed after another."
    )
  if jax.process_count() > 1 or (config.devices or jax.device_count()) > 1:
    raise ValueError("--seeds trains on one device; give --devices=1.")


class SeedsState(NamedTuple):
  """The states of S seeds.

  Attributes:
    train: each seed's state, leaves [S, ...].
    best: each seed's state after its epoch with the least score, leaves [S, ...].
  """

  train: TrainState
  best: TrainState

  @classmethod
  def of(cls, states: Sequence[TrainState]) -> "SeedsState":
    """Stacks the states before the first step.

    Args:
      states: one a seed.
    """
    return cls(train=_stack(states), best=_stack(states))


@dataclasses.dataclass(frozen=True)
class SeedsProgress:
  """How far the seeds are; with a `SeedsState` all that decides how they go on.

  Attributes:
    epochs: that have ended.
    of_seeds: how far each seed is; a failed one has fewer records.
    failures: why each seed failed, or None.
  """

  epochs: int
  of_seeds: Sequence[Progress]
  failures: Sequence[str | None]

  @classmethod
  def at_start(cls, num_seeds: int) -> "SeedsProgress":
    """Before the first step.

    Args:
      num_seeds: S.
    """
    return cls(0, (Progress(),) * num_seeds, (None,) * num_seeds)

  @property
  def steps(self) -> int:
    """Taken in the epoch after those that have ended."""
    return self.of_seeds[0].steps

  @property
  def seconds(self) -> float:
    """That training has taken, those of earlier processes included."""
    return self.of_seeds[0].seconds

  def to_json(self) -> dict[str, Any]:
    """What JSON can hold; `from_json` has every number as it was."""
    return {
      "epochs": self.epochs,
      "of_seeds": [progress.to_json() for progress in self.of_seeds],
      "failures": list(self.failures),
    }

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> "SeedsProgress":
    """The inverse of `to_json`.

    Args:
      content: what it returned.

    Example:
      >>> SeedsProgress.from_json(SeedsProgress.at_start(3).to_json()).failures
      [None, None, None]
    """
    of_seeds = [Progress.from_json(progress) for progress in content["of_seeds"]]
    return cls(content["epochs"], of_seeds, content["failures"])


def step_together(
  step: Callable[[TrainState, Batch], TrainState],
  state: TrainState,
  batches: Sequence[Batch],
) -> TrainState:
  """A step of S seeds, vmapped; to be jitted.

  Args:
    step: of one seed.
    state: leaves [S, ...].
    batches: one a seed, of one shape.
  """
  return jax.vmap(step)(state, _stack(batches))


def make_seeds_step(
  step: Callable[[TrainState, Batch], TrainState],
) -> Callable[[TrainState, Sequence[Batch]], TrainState]:
  """The step of S seeds at once; the state that it is given is donated.

  Args:
    step: of one seed.

  Returns:
    `step(state, batches) -> state`, with state leaves [S, ...] and one batch a seed.
    Batches whose shapes differ among the seeds are taken one after another.
  """
  together = jax.jit(functools.partial(step_together, step), donate_argnums=0)

  def seeds_step(state: TrainState, batches: Sequence[Batch]) -> TrainState:
    shapes = [jax.tree.map(jnp.shape, batch) for batch in batches]
    if all(shape == shapes[0] for shape in shapes):
      return together(state, batches)
    return _stack([step(of_seed(state, i), batch) for i, batch in enumerate(batches)])

  return seeds_step


def train_seeds(
  state: SeedsState,
  *,
  experiments: Sequence[Experiment],
  num_epochs: int,
  checkpoints: Checkpoints,
  progress: TrainProgress,
  stop: StopRequest,
  on_epoch: Callable[[int, EpochRecord], None],
  start: SeedsProgress,
) -> tuple[SeedsState, SeedsProgress]:
  """Trains all seeds for some epochs, or until a stop is asked for or all have failed.

  Args:
    state: the states to start from; donated.
    experiments: of each seed, see `for_seed`.
    num_epochs: of the run.
    checkpoints: where the states go when it is time, and at the end.
    progress: the display.
    stop: looked at between chunks of steps; an epoch that is cut short is saved, but
      not validated or recorded.
    on_epoch: called with the place of the seed and the record of its epoch.
    start: how far the seeds are with this state.

  Returns:
    The final states, and how far the seeds are with them.

  Raises:
    CheckpointError: a checkpoint could not be written. Those before it stay.
  """
  begin = time.perf_counter() - start.seconds
  first = experiments[0]
  records = [[*each.records] for each in start.of_seeds]
  failures = [*start.failures]
  train_state, best = state
  step = make_seeds_step(first.step)
  lower_learning_rate = jax.jit(
    jax.vmap(lambda plateau, score: first.plateau.update((), plateau, value=score)[1])
  )
  keep_better = jax.jit(jax.vmap(optax.tree.where), donate_argnums=2)

  def progress_after(epochs: int, steps: int = 0) -> SeedsProgress:
    seconds = time.perf_counter() - begin
    each_seed = tuple(Progress(tuple(each), steps, seconds) for each in records)
    return SeedsProgress(epochs, each_seed, tuple(failures))

  def save(train_state: TrainState, reached: SeedsProgress) -> None:
    steps = reached.epochs * progress.steps_per_epoch + reached.steps
    checkpoints.save(steps, SeedsState(train_state, best), reached.to_json())  # pyright: ignore[reportArgumentType]

  first_step = start.steps
  for epoch in range(start.epochs, num_epochs):

    def pause(train_state: TrainState, steps: int, epoch: int = epoch) -> bool:
      if stop.requested or checkpoints.is_due():
        save(train_state, progress_after(epoch, steps))
      return stop.requested

    reached = progress_after(epoch, first_step)
    if all(failures) or pause(train_state, first_step):
      return SeedsState(train_state, best), reached
    scales = jax.device_get(train_state.plateau.scale)
    if first_step == 0:
      train_state = train_state._replace(sums=train_state.sums.zeros_like())
    train_state, timing, steps = run_epoch(
      train_state,
      step,
      _batches_of_seeds(experiments, epoch, first_step),
      epoch,
      first_step,
      lambda state, failed_step: None,
      progress,
      pause,
    )
    if steps < progress.steps_per_epoch:
      return SeedsState(train_state, best), progress_after(epoch, steps)
    first_step = 0
    num_steps, sums, failed, skips = jax.device_get(
      (
        train_state.step,
        train_state.sums,
        train_state.failure,
        train_state.skips_in_a_row,
      )
    )
    best_before = [
      min((record.validation.score for record in each), default=np.inf)
      for each in records
    ]
    scores = np.full(len(records), np.inf)
    for i in range(len(records)):
      if failures[i]:
        continue
      try:
        if failed.step[i] >= 0:
          raise describe_failure(
            of_seed(failed, i), skips[i], first.task_names, checkpoints.newest
          )
        check_sums(of_seed(sums, i), num_steps[i], epoch, checkpoints.newest)
        validation = first.evaluate(of_seed(train_state, i), "validation")
        check_evaluation(validation, num_steps[i], epoch)
      except NonFiniteError as error:
        failures[i] = str(error)
        continue
      scores[i] = validation.score
      record = EpochRecord.of(
        epoch,
        int(num_steps[i]),
        of_seed(sums, i),
        float(scales[i]),
        validation,
        timing,
        compiled=epoch == start.epochs,
      )
      records[i].append(record)
    plateau = lower_learning_rate(train_state.plateau, scores.astype(np.float32))
    train_state = train_state._replace(plateau=plateau)
    best = keep_better(scores < np.array(best_before), train_state, best)
    reached = progress_after(epoch + 1)
    if checkpoints.is_due(epoch + 1) or epoch + 1 == num_epochs:
      save(train_state, reached)
    for i in range(len(records)):
      if not failures[i]:
        on_epoch(i, records[i][-1])
  return SeedsState(train_state, best), progress_after(num_epochs)


def _batches_of_seeds(
  experiments: Sequence[Experiment], epoch: int, start: int
) -> Iterator[tuple[Batch, ...]]:
  return zip(*(each.epoch_batches(epoch, start) for each in experiments), strict=True)


def of_seed(tree: Any, index: int) -> Any:
  """What one seed has of a pytree.

  Args:
    tree: with leaves [S, ...].
    index: place of the seed.
  """
  return jax.tree.map(lambda leaf: leaf[index], tree)


def _stack(trees: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
