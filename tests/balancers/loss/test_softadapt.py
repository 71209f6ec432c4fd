"""SoftAdapt against its formula in float64."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.losses import random_losses, run_each


@pytest.mark.parametrize("loss_weighted", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_equals_the_formula_in_float64(normalized, loss_weighted):
  losses, beta = random_losses(60, 3), 0.7
  balancer = balancers.softadapt(
    3, beta=beta, normalized=normalized, loss_weighted=loss_weighted
  )
  found = run_each(balancer, {"": (losses, 0)})[""].weights
  values = losses.astype(np.float64)
  change = np.diff(values, axis=0, prepend=values[:1])
  if normalized:
    change[1:] /= np.abs(change[1:]).sum(axis=1, keepdims=True)
  expected = np.exp(beta * change) * (values if loss_weighted else 1)
  expected *= 3 / expected.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, 1e-5)
