"""Equal weighting: the losses themselves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.long_losses import distances_after_outliers
from tests.balancers.loss.published import TASK_COUNTS, assert_matches


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
def test_matches_published_code(num_tasks):
  assert_matches("ls", num_tasks)


@pytest.mark.parametrize("kind", [list, tuple, jnp.bfloat16, np.float64])
def test_array_likes_and_other_float_types_are_computed_in_float32(kind):
  losses: Any = (
    kind([1.0, 2.0]) if kind in (list, tuple) else np.array([1.0, 2.0], kind)
  )
  weighted, _ = balancers.equal(2).update(losses, balancers.equal(2).init())
  assert weighted.dtype == jnp.float32
  np.testing.assert_array_equal(weighted, [1.0, 2.0])


def test_losses_in_float64_pass_to_the_last_digit():
  losses = np.array([1e-50, 1e39])
  with jax.enable_x64(True):
    weighted, _ = balancers.equal(2).update(losses, balancers.equal(2).init())
    np.testing.assert_array_equal(weighted, losses)


def test_an_outlier_leaves_no_trace():
  assert distances_after_outliers("ew", 1e12) == [0, 0, 0]
