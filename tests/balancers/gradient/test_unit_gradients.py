"""Unit gradients: their length, and where they nearly cancel."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import golden


@pytest.mark.parametrize("length", ["max", "frobenius", "unit", 0.01])
def test_unit_gradients_have_the_length_that_was_asked_for(length):
  jacobian = golden("methods.npz", "J", 3)[0, 0].astype(np.float32)
  balancer = balancers.unit_gradients(3, length=length)
  result, state = balancer.update(jnp.asarray(jacobian), balancer.init(jacobian[0]))
  norms = np.linalg.norm(jacobian, axis=1)
  units = (jacobian / norms[:, None]).sum(axis=0)
  factor = {
    "max": norms.max(),
    "frobenius": np.linalg.norm(jacobian),
    "unit": 1 / np.linalg.norm(units),
  }.get(str(length), length)
  np.testing.assert_allclose(result, factor * units, 1e-4, 1e-5 * factor)
  np.testing.assert_allclose(state.weights, factor / norms, 1e-5)


def test_unit_gradients_that_nearly_cancel_give_a_unit_vector():
  g = np.random.default_rng(0).normal(size=(2, 50))
  grads = jnp.asarray(np.stack([g[0], -g[0] + 1e-3 * g[1]]), jnp.float32)
  balancer = balancers.unit_gradients(2, length="unit")
  result, _ = balancer.update(grads, balancer.init(grads[0]))
  np.testing.assert_allclose(jnp.linalg.norm(result), 1.0, 1e-2)


@pytest.mark.parametrize(
  ("length", "message"),
  [
    ("long", "length must be 'max' or"),
    (0, "length must be .* positive, got"),
  ],
)
def test_numbers_are_checked(length, message):
  with pytest.raises(ValueError, match=message):
    balancers.unit_gradients(2, length=length)
