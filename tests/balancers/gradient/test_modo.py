"""MoDo against the published code, with one batch and with three."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import (
  FEWER,
  assert_near,
  golden,
  one_call_at_a_time,
)


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize(("key", "three"), [("modo", False), ("modo3", True)])
def test_modo_matches_published_code(key, three, num_tasks):
  balancer = balancers.modo(num_tasks)
  results, w, recorded = one_call_at_a_time(balancer, num_tasks, key, three)
  assert_near(results, golden("methods.npz", key, num_tasks), 1e-4)
  np.testing.assert_allclose(w, recorded, 1e-4, 1e-5)
