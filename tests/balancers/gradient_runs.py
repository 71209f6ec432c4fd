"""Gradient balancers step by step: a few runs of each, compiled as one function."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.balancers.contract import (
  GRADIENT,
  at,
  held_for,
  init,
  make_gradient,
  to_numpy,
)

NUM_TASKS, NUM_STEPS, NUM_RUNS = 3, 40, 5
PARAMS = {"heads": jnp.zeros(5), "trunk": {"b": jnp.zeros(3), "w": jnp.zeros((4, 3))}}
SHARED = {"heads": False, "trunk": True}
ALL, NONE = np.ones(NUM_TASKS, bool), np.zeros(NUM_TASKS, bool)
MASK = np.array([True, False, True])
LOSSES = jnp.ones(NUM_TASKS)  # for methods that ask for them
HOLDING = [name for name in GRADIENT if held_for(name, 3)]


@functools.cache
def make(name: str) -> Any:
  """With weights that are held for three steps, where the method has that."""
  return make_gradient(name, NUM_TASKS, shared=SHARED, **held_for(name, 3))


@functools.cache
def runner(name: str):
  """A compiled run over steps, of several sequences at once."""
  balancer = make(name)

  def run(task_grads, masks, seed):
    def step(state, inputs):
      grads, present = inputs
      result, state = balancer.update(grads, state, present=present, losses=LOSSES)
      return state, (result, state)

    return jax.lax.scan(step, init(balancer, PARAMS, seed), (task_grads, masks))[1]

  return jax.jit(jax.vmap(run))


class Run(NamedTuple):
  """What was put into a run, and what came out at each step.

  Attributes:
    task_grads: f32[T, K, ...].
    masks: bool[T, K].
    results: f32[T, ...].
    states: after each step, [T, ...].
  """

  task_grads: Any
  masks: np.ndarray
  results: Any
  states: Any


def random_grads(seed: int) -> Any:
  generator = np.random.default_rng(seed)
  shape = NUM_STEPS, NUM_TASKS
  return jax.tree.map(
    lambda leaf: generator.normal(size=(*shape, *leaf.shape)).astype(np.float32), PARAMS
  )


def fill(task_grads: Any, step: int, task: int, value: float) -> None:
  for leaf in jax.tree.leaves(task_grads):
    leaf[step, task] = value


def run_all(name: str, runs: list[tuple[Any, np.ndarray, int]]) -> list[Run]:
  """The runs, each made of task gradients, masks and a seed."""
  grads, masks, seeds = zip(*runs, strict=True)
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *grads)
  results, states = to_numpy(runner(name)(stacked, np.stack(masks), np.array(seeds)))
  return [
    Run(grads[i], masks[i], at(results, i), at(states, i)) for i in range(len(runs))
  ]


# where the runs below have something bad
HEADS_BAD, TRUNK_BAD, LATER_BAD = 4, 9, 16
ABSENT = {1: MASK, 2: ~MASK, 3: NONE, 5: MASK, 6: MASK, 7: NONE, 9: ~MASK}


@functools.cache
def runs_of(name: str) -> dict[str, Run]:
  every_task = np.ones((NUM_STEPS, NUM_TASKS), bool)
  masks = every_task.copy()
  masks[0] = MASK
  for step, mask in ABSENT.items():
    masks[step] = mask
  absent = random_grads(0)
  for step, task in np.argwhere(~masks):
    fill(absent, step, task, np.nan)
  bad = random_grads(0)
  bad["heads"][HEADS_BAD, 1, 2] = np.nan
  bad["trunk"]["w"][TRUNK_BAD, 1, 0, 0] = np.inf
  fill(bad, LATER_BAD, 0, np.nan)
  other_heads = random_grads(0)
  other_heads["heads"] *= -2
  runs = {
    "plain": (random_grads(0), every_task, 0),
    "absent": (absent, masks, 0),
    "bad": (bad, every_task, 0),
    "other heads": (other_heads, every_task, 0),
    "other inputs": (random_grads(1), every_task, 0),
  }
  assert len(runs) == NUM_RUNS
  return dict(zip(runs, run_all(name, list(runs.values())), strict=True))
