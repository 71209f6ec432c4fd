"""One task alone."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.long_losses import distances_after_outliers


@pytest.mark.parametrize(
  ("task", "message"),
  [(2, "below num_tasks = 2, got 2"), (-1, "task must be at least 0, got -1")],
)
def test_the_task_must_be_there(task, message):
  with pytest.raises(ValueError, match=message):
    balancers.single_task(2, task)


def test_the_others_have_no_weight_whatever_their_losses_are():
  balancer = balancers.single_task(3, task=1)
  weighted, state = balancer.update(
    np.array([np.nan, 2.0, np.inf], np.float32), balancer.init()
  )
  assert weighted.tolist() == [0, 2, 0]
  assert state.weights.tolist() == [0, 1, 0]


def test_an_outlier_leaves_no_trace():
  assert distances_after_outliers("stl", 1e12) == [0, 0, 0]
