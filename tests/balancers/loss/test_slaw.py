"""SLAW against its formula in float64, and a loss that leaps."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.losses import random_losses, run_each


@pytest.mark.parametrize("decay", [0.99, 0.5])
def test_equals_the_formula_in_float64(decay):
  losses = random_losses(60, 3)
  balancer = balancers.slaw(3, decay=decay)
  found = run_each(balancer, {"": (losses, 0)})[""].weights
  squares = means = np.zeros(3)
  for step, current in enumerate(losses.astype(np.float64)):
    squares = decay * squares + (1 - decay) * current**2
    means = decay * means + (1 - decay) * current
    inverse = 1 / np.sqrt(squares - means**2)
    np.testing.assert_allclose(found[step], 3 * inverse / inverse.sum(), 1e-4)


def test_slaw_follows_a_loss_that_leaps_for_good():
  losses = random_losses(200, 2)
  losses[50:, 0] *= 1e9
  found = run_each(balancers.slaw(2, decay=0.9), {"": (losses, 0)})[""].weights
  assert found[60, 0] < 1e-6
  np.testing.assert_allclose(found.sum(axis=1), 2, 1e-6)
