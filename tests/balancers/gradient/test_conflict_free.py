"""ConFIG against the published code."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import FEWER, assert_published


@pytest.mark.parametrize("num_tasks", FEWER)
def test_matches_published_code(num_tasks):
  assert_published("config", "config", num_tasks)


@pytest.mark.parametrize(
  "others",
  [
    [[-1.324, 0.236, -1.472], [0.172, -0.158, -0.198], [-0.152, 0.048, 0.159]],
    [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 2.0, 0.0]],
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
  ],
)
def test_a_task_without_a_gradient_has_a_positive_weight_for_its_head(others):
  grads = jnp.array([*others, [0.608, 0.109, 0.831], [0.0, 0.0, 0.0]])
  balancer = balancers.conflict_free(5)
  _, state = balancer.update(grads, balancer.init(grads[0]))
  norms = np.linalg.norm(grads, axis=1)
  assert (np.asarray(state.weights)[norms == 0] > 0).all()
