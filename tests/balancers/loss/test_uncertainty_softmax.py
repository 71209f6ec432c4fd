"""The softmax of uncertainties against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.losses import random_losses, run_each


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_equals_the_formula(temperature):
  losses = random_losses(60, 3)
  balancer = balancers.uncertainty_softmax(3, temperature=temperature)
  found = run_each(balancer, {"": (losses, 0)})[""].weights
  expected = jax.nn.softmax(jnp.asarray(1 / losses / temperature), axis=1)
  np.testing.assert_allclose(found, expected, 1e-4)
