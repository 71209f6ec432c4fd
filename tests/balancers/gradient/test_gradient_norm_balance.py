"""Gradient-norm balance against its formula, and its rare updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import FEWER, assert_weights_follow


def summed(g, w):
  norms = np.linalg.norm(g, axis=1)
  return 0.9 * w + 0.1 * norms.sum() / norms


def averaged(g, w):
  norms = np.linalg.norm(g, axis=1)
  return 0.9 * w + 0.1 * norms.mean() / norms


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize(
  ("options", "formula"), [({}, summed), ({"reduce": "mean"}, averaged)]
)
def test_weights_follow_the_formula(options, formula, num_tasks):
  assert_weights_follow(formula, "gradbal", num_tasks, update_every=1, **options)


def test_gradient_norms_are_balanced_every_thousand_steps():
  balancer = balancers.gradient_norm_balance(2)
  grads = jnp.array([[1.0, 0.0], [0.0, 4.0]])

  def step(state, _):
    _, state = balancer.update(grads, state)
    return state, state.weights[0]

  _, weights = jax.lax.scan(step, balancer.init(grads[0]), length=2001)
  assert len(set(weights[:1000].tolist())) == 1
  assert len(set(weights.tolist())) == 3


def test_a_zero_gradient_counts_as_a_small_part_of_the_mean_norm():
  balancer = balancers.gradient_norm_balance(2, decay=0.0, update_every=1)
  grads = jnp.array([[4.0, 0.0], [0.0, 0.0]])
  _, state = balancer.update(grads, balancer.init(grads[0]))
  np.testing.assert_allclose(state.weights, [1.0, 2e5], 1e-5)


def test_a_task_that_is_absent_at_an_update_keeps_its_weight_for_the_steps_after_it():
  balancer = balancers.gradient_norm_balance(2)  # which updates every 1,000 steps
  grads = jnp.array([[1.0, 0.0], [0.0, 4.0]])
  state = balancer.init(grads[0])
  result, state = balancer.update(grads, state, present=jnp.array([True, False]))
  assert state.weights.tolist() == [1.0, 0.0]
  result, state = balancer.update(grads, state)
  assert state.weights.tolist() == [1.0, 1.0]
  assert result.tolist() == [1.0, 4.0]
