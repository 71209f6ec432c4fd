"""Many short runs of one method on one problem, compiled once.

    lanes (learning rate, seed) [N] -> vmap or, as for a single one, map of
      init -> scan over epochs of (shuffle -> scan over batches of the step) -> metrics

Initial parameters and the order of the batches depend on the seed alone, so that all
methods share them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from igb_jax import balancers
from igb_jax.training.array_task import ArrayTask
from igb_jax.training.step import Batch, Params, init_state, make_train_step

from ..problems.base import Training


class Lane(NamedTuple):
  """A run among those that are trained at once.

  Attributes:
    learning_rate: the initial one of Adam.
    seed: the seed of the initial parameters, the order of the batches and the
      balancer's draws.
    task: which loss alone is trained, in a runner of single tasks.
  """

  learning_rate: float
  seed: int
  task: int = 0


class Outcome(NamedTuple):
  """What came out of N runs.

  Attributes:
    validation: f64[N, M], the metrics at the end; NaN for a run that failed.
    test: f64[N, M], likewise.
    seconds: what all runs took together, without compilation; on CPUs processor time,
      which other programs beside them change little.
  """

  validation: np.ndarray
  test: np.ndarray
  seconds: float


def make_runner(
  task: ArrayTask,
  training: Training,
  balancer: balancers.Balancer | None,
  *,
  length: int = 1,
  at_features: bool = False,
) -> Callable[[Sequence[Lane]], Outcome]:
  """Makes what trains one method.

  Args:
    task: what is learnt.
    training: how it is trained.
    balancer: the method; None to train the single task that a lane names.
    length: how many times as long as others.
    at_features: whether the method sees the features that the heads read, as "ntksr"
      must; a gradient balancer then balances there, else at the shared parameters.

  Returns:
    A function of N lanes, which compiles anew for another N.
  """
  num_tasks = len(task.task_names)
  steps_per_epoch = training.steps_per_epoch(task)
  num_epochs = length * training.epochs
  num_rows, batch_size = task.num_rows("train"), training.batch_size
  schedule = optax.cosine_decay_schedule(1.0, num_epochs * steps_per_epoch)
  losses_of = task.losses if at_features else task.losses_of
  single = balancer is None
  if balancer is None:
    balancer = balancers.create("ew", num_tasks=num_tasks)
  if balancer.loss is None:
    balancer = balancer._replace(loss=balancers.equal(num_tasks))

  def run(
    rows: dict[str, Any], learning_rate: jax.Array, seed: jax.Array, which: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    def losses(params: Params, *rest: Any) -> jax.Array:
      values = losses_of(params, *rest)
      return values * jax.nn.one_hot(which, num_tasks) if single else values

    optimizer = optax.adam(learning_rate)
    step = make_train_step(
      losses,
      balancer,
      optimizer,
      trunk=task.trunk if at_features else None,
      present_of=task.present,
      schedule=schedule,
    )
    key = jax.random.key(seed)
    of_balancer, of_order = jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
    params = task.init(key)
    state = init_state(params, balancer=balancer, optimizer=optimizer, key=of_balancer)

    def train_epoch(state: Any, epoch: jax.Array) -> tuple[Any, None]:
      order = jax.random.permutation(jax.random.fold_in(of_order, epoch), num_rows)
      batches = order[: steps_per_epoch * batch_size].reshape(-1, batch_size)

      def train_batch(state: Any, rows_of_batch: jax.Array) -> tuple[Any, None]:
        batch: Batch = jax.tree.map(lambda leaf: leaf[rows_of_batch], rows["train"])
        return step(state, batch), None

      return jax.lax.scan(train_batch, state, batches)

    state, _ = jax.lax.scan(train_epoch, state, jnp.arange(num_epochs))
    failed = state.failure.step >= 0
    validation, test = (
      jnp.where(failed, jnp.nan, task.measures(state.params, rows[split]))
      for split in ("validation", "test")
    )
    return validation, test

  @jax.jit
  def run_all(rows: dict[str, Any], *lanes: jax.Array) -> tuple[jax.Array, jax.Array]:
    if training.at_once and len(lanes[0]) > 1:
      return jax.vmap(run, in_axes=(None, 0, 0, 0))(rows, *lanes)
    return jax.lax.map(lambda lane: run(rows, *lane), lanes)

  rows = jax.device_put(
    {split: getattr(task, split) for split in ("train", "validation", "test")}
  )

  clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter

  def train(lanes: Sequence[Lane]) -> Outcome:
    rates, seeds, tasks = zip(*lanes, strict=True)
    arguments = (
      np.array(rates, np.float32),
      np.array(seeds, np.int32),
      np.array(tasks, np.int32),
    )
    compiled = run_all.lower(rows, *arguments).compile()
    start = clock()
    validation, test = jax.block_until_ready(compiled(rows, *arguments))
    seconds = clock() - start
    return Outcome(
      np.asarray(validation, np.float64), np.asarray(test, np.float64), seconds
    )

  return train
