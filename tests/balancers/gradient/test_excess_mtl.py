"""ExcessMTL against LibMTL's, and against its formula for small gradients."""

import jax
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import (
  FEWER,
  KINDS,
  assert_near,
  balanced,
  golden,
)


def formula(jacobians):
  """w at each call, f64[T, K], without what the published code adds to h."""
  squares, log_weights, first, found = 0.0, np.zeros(jacobians.shape[1]), None, []
  for g in jacobians:
    squares = squares + g**2
    risk = np.sum(g**2 / np.sqrt(squares), axis=1)
    if first is None:
      first = risk
    else:
      log_weights += 0.01 * risk / first
    weights = np.exp(log_weights)
    found.append(len(weights) * weights / weights.sum())
  return np.stack(found)


@pytest.mark.parametrize("num_tasks", FEWER)
def test_matches_published_code(num_tasks):
  results, states = balanced("methods.npz", "excess", num_tasks)
  usual = [index for index, kind in enumerate(KINDS) if kind != "small"]
  expected = golden("methods.npz", "excess", num_tasks)
  assert_near(results[usual], expected[usual], 1e-4)
  expected = golden("methods.npz", "excess_w", num_tasks)
  np.testing.assert_allclose(states.weights[usual], expected[usual], 1e-4)
  jacobians = golden("methods.npz", "J", num_tasks).astype(np.float64)
  for index in range(len(KINDS)):
    expected = formula(jacobians[index])
    np.testing.assert_allclose(states.weights[index], expected, 1e-5)


def test_a_task_that_comes_late_keeps_pace_with_the_others():
  balancer = balancers.excess_mtl(3, learning_rate=1.0)
  grads = jax.random.normal(jax.random.key(0), (3, 20))

  def step(state, present):
    _, state = balancer.update(grads, state, present=present)
    return state, state.weights

  present = np.ones((300, 3), bool)
  present[:200, 2] = False
  _, weights = jax.lax.scan(step, balancer.init(grads[0]), present)
  assert not weights[:200, 2].any()
  assert weights[200, 2] > 0.1
