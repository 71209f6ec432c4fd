"""What alpha-fair methods say where there is no fair combination."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.balancers.contract import make_gradient


@pytest.mark.parametrize("name", ["fairgrad", "pivrg"])
def test_the_violation_says_that_there_is_no_solution(name):
  angles = 2 * np.pi * np.arange(5) / 5  # gradients whose hull contains zero
  grads = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1), jnp.float32)
  balancer = make_gradient(name, 5)
  update = jax.jit(balancer.update)
  _, state = update(grads, balancer.init(grads[0]))
  assert state.violation > 0.1
  _, state = update(grads + jnp.array([2.0, 0.0]), state)
  assert state.violation < 1e-4
