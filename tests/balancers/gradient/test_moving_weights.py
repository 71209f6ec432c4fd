"""Weights whose estimate is not known at a step."""

import jax.numpy as jnp
import pytest

from tests.balancers.contract import make_gradient


@pytest.mark.parametrize("name", ["annealing", "inverse_dirichlet"])
def test_a_zero_gradient_keeps_its_weight(name):
  grads = jnp.array([[1.0, 2.0, 5.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
  balancer = make_gradient(name, 3)
  _, state = balancer.update(grads, balancer.init(grads[0]))
  assert state.weights[1] == 1
  assert state.weights[2] > 1
