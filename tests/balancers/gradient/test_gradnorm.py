"""GradNorm against LibMTL's, and its first epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import FEWER, assert_near, golden


@pytest.mark.parametrize("num_tasks", FEWER)
def test_matches_published_code(num_tasks):
  balancer = balancers.gradnorm(num_tasks, steps_per_epoch=1)
  jacobians, losses, base = (
    golden("methods.npz", key, num_tasks).astype(np.float32) for key in ("J", "L", "L0")
  )

  def run(jacobians, losses, base):
    state = balancer.init(jacobians[0, 0])
    memory = state.memory._replace(
      step=jnp.ones((), jnp.int32),
      base_losses=base,
      base_count=jnp.ones(num_tasks, jnp.int32),
    )

    def step(state, inputs):
      jacobian, losses = inputs
      result, state = balancer.update(jacobian, state, losses=losses)
      return state, (result, state)

    start = state._replace(memory=memory)
    return jax.lax.scan(step, start, (jacobians, losses))[1]

  results, states = jax.jit(jax.vmap(run))(jacobians, losses, base)
  assert_near(results, golden("methods.npz", "gradnorm", num_tasks), 1e-4)
  expected = golden("methods.npz", "gradnorm_w", num_tasks)
  np.testing.assert_allclose(states.weights, expected, 1e-4)
  # theirs start at 1, ours at 0: a softmax does not see it
  expected = golden("methods.npz", "gradnorm_s", num_tasks)
  np.testing.assert_allclose(1 + states.memory.logits, expected, 1e-4)


def test_weights_are_one_in_the_first_epoch_whose_losses_are_averaged():
  balancer = balancers.gradnorm(2, steps_per_epoch=2)
  grads = jnp.array([[1.0, 0.0], [0.0, 4.0]])
  state = balancer.init(grads[0])
  for losses in ([1.0, 2.0], [3.0, -1.0], [1.0, 1.0], [1.0, 1.0]):
    _, state = balancer.update(grads, state, losses=jnp.array(losses))
    if state.memory.step < 4:  # the third moves s, and the fourth has its weights
      assert state.weights.tolist() == [1.0, 1.0]
  np.testing.assert_allclose(state.memory.base_losses, [2.0, 2.0])
  assert state.memory.base_count.tolist() == [2, 1]
  assert state.weights[0] > 1 > state.weights[1]


def test_losses_are_needed():
  balancer = balancers.gradnorm(2, steps_per_epoch=2)
  grads = jnp.ones((2, 3))
  state = balancer.init(grads[0])
  with pytest.raises(ValueError, match="gradnorm needs losses="):
    balancer.update(grads, state)
  with pytest.raises(ValueError, match=r"losses must have the shape \(2,\)"):
    balancer.update(grads, state, losses=jnp.ones(3))
