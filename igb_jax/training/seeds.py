"""Several seeds of a run trained at once, in one step that is vmapped over them.

    state leaf [S, ...], batch leaf [S, ...]  ->  vmap(step)  ->  state leaf [S, ...]

Each seed is the run that it would be alone, up to rounding. It may fail alone too: its
state stays as it was, and the others continue.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.training.balancing import balances_gradients
from igb_jax.training.config import RunConfig
from igb_jax.training.step import Batch, TrainState

Step = Callable[[TrainState, Batch], TrainState]


def check_seeds(config: RunConfig) -> None:
  """Checks that the seeds of a configuration can be trained at once.

  Raises:
    ValueError: a seed is negative or there twice, the balancer has a gradient part, or
      there are several devices or processes.
  """
  seeds = list(config.seeds)
  if not seeds:
    return
  if min(seeds) < 0 or len(set(seeds)) < len(seeds):
    raise ValueError(f"--seeds must be distinct numbers of at least 0, got {seeds}.")
  if balances_gradients(config.balancer):
    raise ValueError(
      f"--seeds supports loss balancers only; {config.balancer} would hold K gradients "
      "per seed, which rarely fits in memory. Train one --seed after another."
    )
  if jax.process_count() > 1 or (config.devices or jax.device_count()) > 1:
    raise ValueError("--seeds trains on one device; give --devices=1.")


def step_together(
  step: Step, state: TrainState, batches: Sequence[Batch]
) -> TrainState:
  """A step of S seeds, vmapped, with state leaves [S, ...] and batches of one shape."""
  return jax.vmap(step)(state, stack(batches))


def make_seeds_step(
  step: Step,
) -> Callable[[TrainState, Sequence[Batch]], TrainState]:
  """The step of S seeds at once; the state that it is given is donated.

  It takes state leaves [S, ...] and one batch per seed. Batches whose shapes differ
  among the seeds are taken one after another.
  """
  together = jax.jit(functools.partial(step_together, step), donate_argnums=0)

  def seeds_step(state: TrainState, batches: Sequence[Batch]) -> TrainState:
    shapes = [jax.tree.map(jnp.shape, batch) for batch in batches]
    if all(shape == shapes[0] for shape in shapes):
      return together(state, batches)
    states = [of_seed(state, index, len(batches)) for index in range(len(batches))]
    return stack([step(*pair) for pair in zip(states, batches, strict=True)])

  return seeds_step


def of_seed(tree: Any, index: int, num_seeds: int) -> Any:
  """What one seed has of a pytree, whose leaves are [S, ...] if S is more than one."""
  return tree if num_seeds == 1 else jax.tree.map(lambda leaf: leaf[index], tree)


def stack(trees: Sequence[Any]) -> Any:
  """The pytrees of all seeds as one, leaves [S, ...]; that of a single seed as is."""
  if len(trees) == 1:
    return trees[0]
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
