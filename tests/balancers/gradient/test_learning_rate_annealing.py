"""Learning-rate annealing against its formula in float64."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import FEWER, assert_weights_follow


def formula(g, w):
  estimate = np.abs(g[0]).max() / np.abs(w[:, None] * g).mean(axis=1)
  new = 0.9 * w + 0.1 * estimate
  new[0] = 1
  return new


@pytest.mark.parametrize("num_tasks", FEWER)
def test_weights_follow_the_formula(num_tasks):
  assert_weights_follow(formula, "annealing", num_tasks)


def test_the_index_of_the_residual_is_checked():
  with pytest.raises(ValueError, match="residual must be below num_tasks = 2, got 5"):
    balancers.learning_rate_annealing(2, residual=5)
