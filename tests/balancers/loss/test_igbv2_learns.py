"""IGBv2's agent learns: a task set whose right weights are known.

The first of three tasks forgets: its loss creeps up by 0.01 (1 - w / 3) a step, and
starts anew every 50 steps. The losses of the others stand still. So the weight of the
first task decides the reward, and the best that an agent can do is to give that task
all of the weight. `benchmarks/igbv2_learns.py` draws it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.compiler_options import AS_USERS_DO

NUM_TASKS, NUM_STEPS, NUM_SEEDS = 3, 2000, 10
STEPS_PER_EPOCH = 100
FORGETTING, PERIOD = 0.01, 50
BASE_LOSS, RESTING_LOSS = 0.01, 0.5


def simulate(balancer: balancers.LossBalancer) -> np.ndarray:
  """f32[seeds, T], the weight of the first task in runs of all seeds at once."""

  def run(key: jax.Array) -> jax.Array:
    def step(carry, index):
      state, first = carry
      losses = jnp.array([0.0, RESTING_LOSS, RESTING_LOSS]).at[0].set(first)
      losses = jnp.where(index < 2 * STEPS_PER_EPOCH, BASE_LOSS, losses)
      _, state = balancer.update(losses, state)
      first += FORGETTING * (1 - state.weights[0] / NUM_TASKS)
      first = jnp.where(index % PERIOD == 0, RESTING_LOSS, first)
      return (state, first), state.weights[0]

    carry = balancer.init(key), jnp.float32(RESTING_LOSS)
    return jax.lax.scan(step, carry, jnp.arange(NUM_STEPS))[1]

  keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
  return np.asarray(jax.jit(jax.vmap(run), compiler_options=AS_USERS_DO)(keys))


@pytest.mark.slow
def test_the_actor_learns_which_task_needs_the_weight():
  """At least 9 of 10 seeds; random weights stay where they are."""
  learnt = simulate(balancers.igbv2(NUM_TASKS, STEPS_PER_EPOCH))
  before = learnt[:, : 5 * STEPS_PER_EPOCH].mean(axis=1)
  after = learnt[:, -500:].mean(axis=1)
  assert (np.abs(before - 1) < 0.15).all()
  assert (after > 1.4).sum() >= 9
  random = simulate(balancers.random_loss_weighting(NUM_TASKS, log=True))
  assert (np.abs(random[:, -500:].mean(axis=1) - 1) < 0.15).all()
