"""Weights of physics-informed nets against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import make_gradient
from tests.balancers.gradient.published import TASK_COUNTS, balanced, golden


def gradbal(g, w):
  norms = np.linalg.norm(g, axis=1)
  return 0.9 * w + 0.1 * norms.sum() / norms


def gradbal_mean(g, w):
  norms = np.linalg.norm(g, axis=1)
  return 0.9 * w + 0.1 * norms.mean() / norms


def annealing(g, w):
  estimate = np.abs(g[0]).max() / np.abs(w[:, None] * g).mean(axis=1)
  new = 0.9 * w + 0.1 * estimate
  new[0] = 1
  return new


def inverse_dirichlet(g, w):
  deviations = g.std(axis=1)
  return 0.5 * w + 0.5 * deviations.max() / deviations


CASES = [
  ("gradbal", {"update_every": 1}, gradbal),
  ("gradbal", {"update_every": 1, "reduce": "mean"}, gradbal_mean),
  ("annealing", {}, annealing),
  ("inverse_dirichlet", {}, inverse_dirichlet),
]


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
@pytest.mark.parametrize(("name", "options", "formula"), CASES)
def test_weights_follow_the_formula(name, options, formula, num_tasks):
  results, states = balanced("methods.npz", name, num_tasks, **options)
  jacobians = golden("methods.npz", "J", num_tasks).astype(np.float64)
  for kind, of_kind in enumerate(jacobians):
    weights = np.ones(num_tasks)
    for call, jacobian in enumerate(of_kind):
      weights = formula(jacobian, weights)
      np.testing.assert_allclose(states.weights[kind, call], weights, 1e-4)
      expected = weights @ jacobian
      largest = np.abs(expected).max()
      np.testing.assert_allclose(results[kind, call], expected, 0, 1e-4 * largest)


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


@pytest.mark.parametrize("name", ["annealing", "inverse_dirichlet"])
def test_a_zero_gradient_keeps_its_weight(name):
  grads = jnp.array([[1.0, 2.0, 5.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
  balancer = make_gradient(name, 3)
  _, state = balancer.update(grads, balancer.init(grads[0]))
  assert state.weights[1] == 1
  assert state.weights[2] > 1


def test_the_index_of_the_residual_is_checked():
  with pytest.raises(ValueError, match="residual must be below num_tasks = 2, got 5"):
    balancers.learning_rate_annealing(2, residual=5)


def test_a_task_that_is_absent_at_an_update_keeps_its_weight_for_the_steps_after_it():
  balancer = balancers.gradient_norm_balance(2)  # which updates every 1,000 steps
  grads = jnp.array([[1.0, 0.0], [0.0, 4.0]])
  state = balancer.init(grads[0])
  result, state = balancer.update(grads, state, present=jnp.array([True, False]))
  assert state.weights.tolist() == [1.0, 0.0]
  result, state = balancer.update(grads, state)
  assert state.weights.tolist() == [1.0, 1.0]
  assert result.tolist() == [1.0, 4.0]
