"""Smoothed weights against CRMOGM's, and what cannot be smoothed."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import (
  TASK_COUNTS,
  assert_near,
  balanced_by,
  golden,
)


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
def test_smoothed_weights_are_those_of_crmogm(num_tasks):
  balancer = balancers.smooth_weights(balancers.upgrad(num_tasks))
  results, states = balanced_by(balancer, "methods.npz", num_tasks)
  expected = golden("methods.npz", "crmogm_upgrad", num_tasks)
  assert_near(results, expected, 1e-4)
  assert states.memory[0] is None


def test_weights_of_moving_means_are_smoothed_and_grouped():
  grads = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
  balancer = balancers.smooth_weights(balancers.grouped(balancers.db_mtl(3)), 0.5)
  state, smoothed = balancer.init(grads[0]), None
  for scale in (1.0, 4.0):
    plain = balancers.db_mtl(3)
    result, state = balancer.update(grads * scale, state)
    means = state.memory[0][0].means
    norms = np.linalg.norm(means, axis=1)
    w = norms.max() / norms  # 3, 1.5 and 1, in groups
    w = np.array([w[0], w[1:].mean(), w[1:].mean()])
    smoothed = w if smoothed is None else (smoothed + w) / 2
    np.testing.assert_allclose(state.weights, smoothed, 1e-5)
    np.testing.assert_allclose(result, smoothed @ means, 1e-5)
  assert plain.rewrap is not None


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: balancers.smooth_weights(balancers.graddrop(2)), "does not; see"),
    (lambda: balancers.smooth_weights(balancers.mgda(2), 1.5), "decay must be from 0"),
  ],
)
def test_numbers_are_checked(make, message):
  with pytest.raises(ValueError, match=message):
    make()
