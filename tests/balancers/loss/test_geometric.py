"""The geometric mean of the losses."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.loss.published import CALLS, assert_has_coefficients


@pytest.mark.parametrize("num_tasks", CALLS)
def test_matches_published_code(num_tasks):
  assert_has_coefficients("gls", num_tasks)


def test_a_loss_of_zero_counts_as_the_smallest_number_and_bad_ones_not_at_all():
  balancer = balancers.geometric(3)
  losses = jnp.array([0.0, 2.0, jnp.nan])
  weights = balancer.update(losses, balancer.init())[1].weights
  mean = np.exp((np.log(np.finfo(np.float32).tiny) + np.log(2)) / 2)
  np.testing.assert_allclose(weights[1], mean / 4, 1e-4)
  assert np.isfinite(weights[0])
  assert weights[0] > 1e18
  assert weights[2] == 0
