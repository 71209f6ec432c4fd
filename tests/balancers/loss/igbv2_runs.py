"""A small IGBv2, and a run of it step by step."""

import functools
from typing import Any

import jax
import numpy as np

from igb_jax import balancers

NUM_TASKS = 3
STEPS_PER_EPOCH = 6
BUFFER = 16
SMALL = {
  "buffer_size": BUFFER, "update_every": 5, "num_updates": 4, "batch_size": 8,
  "hidden_sizes": (16, 16),
}  # fmt: skip
WARM_UP, START, BASE_END = 3 * STEPS_PER_EPOCH, 5 * STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH


@functools.cache
def make(**hyperparameters: Any) -> balancers.LossBalancer:
  return balancers.igbv2(NUM_TASKS, STEPS_PER_EPOCH, **{**SMALL, **hyperparameters})


@functools.cache
def updater(**hyperparameters: Any):
  """Its update, compiled."""
  return jax.jit(make(**hyperparameters).update)


def scripted_losses(num_steps: int, seed: int = 0) -> np.ndarray:
  generator = np.random.default_rng(seed)
  return np.exp(generator.normal(size=(num_steps, NUM_TASKS))).astype(np.float32)


@functools.cache
def trajectory(num_steps: int = 45, seed: int = 0):
  """States before and after every step, and the weighted losses."""
  state = make().init(jax.random.key(seed))
  states, weighted = [state], []
  for losses in scripted_losses(num_steps):
    values, state = updater()(losses, state)
    states.append(state)
    weighted.append(values)
  return states, np.array(weighted)


def num_agent_updates(state) -> int:
  return int(state.agent.actor_optimizer[0].count)
