"""IMTL-L: published numbers, and what a loss that is not positive does."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.loss.published import (
  CALLS,
  METHODS,
  assert_has_coefficients,
)
from tests.balancers.losses import run_each


@pytest.mark.parametrize("num_tasks", CALLS)
def test_matches_published_code(num_tasks):
  assert_has_coefficients("imtll", num_tasks, rtol=1e-3)
  losses = METHODS[f"losses_{num_tasks}"]
  run = run_each(balancers.imtl_l(num_tasks), {"": (losses, 0)})[""]
  np.testing.assert_allclose(
    run.states.logits, METHODS[f"imtll_s_{num_tasks}"], 1e-3, 1e-4
  )
  np.testing.assert_allclose(
    run.weighted.sum(axis=1), METHODS[f"imtll_total_{num_tasks}"], 1e-3
  )


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_loss_that_is_not_positive_does_not_move_its_weight(value):
  balancer = balancers.imtl_l(2)
  state = balancer.init()
  for _ in range(20):
    _, state = balancer.update(jnp.array([value, 0.5]), state)
  assert state.weights[0] == 1
  assert state.weights[1] > 1.2
