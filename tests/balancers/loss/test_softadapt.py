"""SoftAdapt against its formula in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.losses import random_losses, run_each


@pytest.mark.parametrize("loss_weighted", [False, True])
@pytest.mark.parametrize(
  ("normalized", "beta"), [(False, 0.7), (True, 0.7), (True, -2)]
)
def test_equals_the_formula_in_float64(normalized, beta, loss_weighted):
  losses = random_losses(60, 3)
  balancer = balancers.softadapt(
    3, beta=beta, normalized=normalized, loss_weighted=loss_weighted
  )
  found = run_each(balancer, {"": (losses, 0)})[""].weights
  values = losses.astype(np.float64)
  change = np.diff(values, axis=0, prepend=values[:1])
  if normalized:
    change[1:] /= np.abs(change[1:]).sum(axis=1, keepdims=True)
  expected = np.exp(beta * change) * (values if loss_weighted else 1)
  expected *= (1 if loss_weighted else 3) / expected.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, 1e-5)


def test_a_loss_of_zero_has_no_weight_if_weights_are_in_proportion_to_losses():
  balancer = balancers.softadapt(3, loss_weighted=True)
  _, state = balancer.update(jnp.array([0.0, 3.0, 5.0]), balancer.init())
  np.testing.assert_allclose(state.weights, [0.0, 3 / 8, 5 / 8], 1e-6, 1e-30)
