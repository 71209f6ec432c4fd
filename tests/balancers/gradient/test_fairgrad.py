"""FairGrad against the published code, and its equation in float64."""

import jax
import jax.numpy as jnp
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


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize(
  ("key", "options"),
  [
    ("fairgrad1", {"alpha": 1.0}),
    ("fairgrad2", {}),
    ("fairgrad05", {"alpha": 0.5}),
  ],
)
def test_fair_weights_are_those_of_the_published_code_where_it_converged(
  key, options, num_tasks
):
  results, states = balanced("methods.npz", "fairgrad", num_tasks, **options)
  expected = golden("methods.npz", key, num_tasks)
  assert KINDS[-1] == "small"  # where the published least squares does not move
  assert_near(results[:-1], expected[:-1], 1e-3)
  assert (states.residual < 1e-5).all()
  alpha = options.get("alpha", 2.0)
  jacobians = golden("methods.npz", "J", num_tasks).astype(np.float64)
  x = states.weights.astype(np.float64) / num_tasks
  products = np.einsum("...kp,...jp,...j->...k", jacobians, jacobians, x)
  np.testing.assert_allclose(products, x ** (-1 / alpha), 2e-3)


def test_without_fairness_it_is_the_mean_of_the_tasks_that_are_present():
  grads = jnp.array([[1.0, 0.0], [jnp.nan, 9.0], [0.0, 8.0]])
  balancer = balancers.fairgrad(3, alpha=0, max_norm=None)
  present = jnp.array([True, False, True])
  result, state = balancer.update(grads, balancer.init(grads[0]), present=present)
  np.testing.assert_allclose(result, [0.5, 4.0])
  np.testing.assert_allclose(state.weights, [0.5, 0.0, 0.5])
  traced = jax.jit(
    lambda alpha: balancers.fairgrad(3, alpha=alpha, max_norm=None).update(
      grads, balancer.init(grads[0]), present=present
    )[0]
  )
  np.testing.assert_allclose(traced(0.0), [0.5, 4.0])
  np.testing.assert_allclose(traced(2.0), [2.0, 1.0], 1e-5)
  with pytest.raises(ValueError, match="alpha must be finite and positive, or zero"):
    balancers.fairgrad(3, alpha=-1.0)
