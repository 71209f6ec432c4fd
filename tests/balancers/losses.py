"""Losses that strain loss balancers, and what each makes of them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from igb_jax import balancers
from tests.balancers.contract import at, loss_traits, parameters_of, to_numpy
from tests.needed_options import needed_options

STEPS_PER_EPOCH, NUM_STEPS = 4, 60
TASK_COUNTS = [1, 2, 3, 11, 64]
SEVERAL = [2, 3, 11, 64]
SCALES = [1e-12, 1e-6, 1.0, 1e6, 1e12]
TINY = [1e-40, 1e-37]


def small_options(name: str, num_tasks: int) -> dict[str, Any]:
  """Options with which few steps reach every part."""
  small = {
    "window": 2, "buffer_size": 20, "update_every": 4,
    "num_updates": 2, "batch_size": 8, "hidden_sizes": (8,), "decay": 0.9,
    "lookback": 0.9, "warmup_epochs": 1,
  }  # fmt: skip
  chosen = {key: small[key] for key in parameters_of(name) if key in small}
  return chosen | needed_options(name, num_tasks)


def make_loss(
  name: str, num_tasks: int, steps_per_epoch: int = STEPS_PER_EPOCH, **options: Any
) -> balancers.LossBalancer:
  """A loss balancer so small that a few steps reach every part of it.

  Args:
    name: as for `balancers.create`.
    num_tasks: K; a method that trains one task alone has the last.
    steps_per_epoch: for those that need it.
    **options: more of them.
  """
  balancer = balancers.create(
    name,
    num_tasks=num_tasks,
    steps_per_epoch=steps_per_epoch,
    **small_options(name, num_tasks) | options,
  ).loss
  assert balancer is not None
  return given_what_it_needs(balancer, *loss_traits(name).needs)


def given_what_it_needs(
  balancer: balancers.LossBalancer, *needs: str
) -> balancers.LossBalancer:
  """The same balancer with extra arguments that follow from the losses."""
  if not needs:
    return balancer

  def update(losses, state, **extra):
    extra |= {need: EXTRA[need](jnp.asarray(losses)) for need in needs}
    return balancer.update(losses, state, **extra)

  return balancer._replace(update=update)


# A loss that is c times as large has gradients that are.
EXTRA = {"rep_norms": lambda losses: jnp.square(jax.lax.stop_gradient(losses))[None]}


def trains_one_task(name: str) -> bool:
  """Whether the others have the weight 0."""
  return "task" in parameters_of(name)


def random_losses(num_steps: int, num_tasks: int, seed: int = 0) -> np.ndarray:
  generator = np.random.default_rng(seed)
  return np.exp(generator.normal(size=(num_steps, num_tasks))).astype(np.float32)


class Run(NamedTuple):
  """What was put into a run, and what came out at each step.

  Attributes:
    losses: f32[T, K].
    masks: bool[T, K], or None.
    weighted: f32[T, K].
    slopes: f32[T, K], derivatives of the sum of the weighted losses.
    first: f32[T, K], derivatives of the first of them.
    states: after each step, [T, ...].
  """

  losses: np.ndarray
  masks: Any
  weighted: np.ndarray
  slopes: np.ndarray
  first: np.ndarray
  states: Any

  @property
  def weights(self) -> np.ndarray:
    """f32[T, K]."""
    return self.states.weights

  @property
  def final(self) -> Any:
    """The state after the last step."""
    return at(self.states, -1)


def course(balancer: balancers.LossBalancer, losses: Any, seed: Any, masks: Any = None):
  """The steps of a run: weighted losses, derivatives and states."""

  def step(state, inputs):
    losses, present = inputs

    def weigh(losses):
      return balancer.update(losses, state, present=present)

    weighted, pull, new = jax.vjp(weigh, losses, has_aux=True)
    (slopes,), (first,) = pull(jnp.ones_like(weighted)), pull(jnp.eye(len(losses))[0])
    return new, (weighted, slopes, first, new)

  state = balancer.init(jax.random.key(seed))
  return jax.lax.scan(step, state, (losses, masks))[1]


def run_each(
  balancer: balancers.LossBalancer, runs: dict[str, tuple]
) -> dict[str, Run]:
  """Runs of the same length, in one compiled function, one after the other.

  Args:
    balancer: the balancer.
    runs: losses, seed, and perhaps masks, of each.
  """
  one_by_one = functools.partial(course, balancer)
  return _run(lambda *stacked: jax.lax.map(lambda run: one_by_one(*run), stacked), runs)


def run_at_once(
  balancer: balancers.LossBalancer, runs: dict[str, tuple]
) -> dict[str, Run]:
  """The same with `jax.vmap`."""
  return _run(jax.vmap(functools.partial(course, balancer)), runs)


def _run(function: Any, runs: dict[str, tuple]) -> dict[str, Run]:
  stacked = [np.stack(parts) for parts in zip(*runs.values(), strict=True)]
  found = to_numpy(jax.jit(function)(*stacked))
  return {
    label: Run(run[0], run[2] if len(run) > 2 else None, *at(found, index))
    for index, (label, run) in enumerate(runs.items())
  }


def order_of(num_tasks: int) -> np.ndarray:
  """The order in which tasks are permuted."""
  return np.random.default_rng(1).permutation(num_tasks)


def factors_of(num_tasks: int) -> np.ndarray:
  """Constants by which the losses of the tasks are multiplied."""
  return np.logspace(-3, 3, num_tasks).astype(np.float32)


def variants(num_tasks: int) -> dict[str, tuple[np.ndarray, int]]:
  """Losses and seeds of runs without a mask."""
  losses = random_losses(NUM_STEPS, num_tasks)
  generator = np.random.default_rng(0)
  shape = NUM_STEPS, num_tasks
  leaps = [10 ** generator.uniform(-12, 12, size=shape) for _ in range(4)]
  falling = np.tile(0.9 ** np.arange(NUM_STEPS)[:, None], num_tasks)
  found = {
    **{f"times {scale:g}": losses * np.float32(scale) for scale in SCALES},
    **{f"leaps {index}": leap for index, leap in enumerate(leaps)},
    "permuted": losses[:, order_of(num_tasks)],
    "each on its scale": losses * factors_of(num_tasks),
    "another key": losses,
    "constant": np.ones(shape),
  }
  for tiny in TINY:
    found[f"a tiny one, {tiny:g}"] = falling.copy()
    found[f"a tiny one, {tiny:g}"][:, 0] = tiny
  return {
    label: (values.astype(np.float32), int(label == "another key"))
    for label, values in found.items()
  }


@functools.cache
def runs_of(name: str, num_tasks: int) -> dict[str, Run]:
  """What a method makes of every variant."""
  return run_each(make_loss(name, num_tasks), variants(num_tasks))


PLAIN = "times 1"
