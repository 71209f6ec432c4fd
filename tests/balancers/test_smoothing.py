"""Smoothed weights against CRMOGM's, and what cannot be smoothed."""

import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import (
  TASK_COUNTS,
  assert_near,
  balanced_by,
  golden,
)


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
def test_smoothed_weights_are_those_of_crmogm(num_tasks):
  balancer = balancers.smooth_weights(balancers.upgrad(num_tasks))
  results, states = balanced_by(balancer, "methods.npz", num_tasks)
  expected = golden("methods.npz", "crmogm_upgrad", num_tasks)
  assert_near(results, expected, 1e-4)
  assert states.memory[0] is None


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: balancers.smooth_weights(balancers.graddrop(2)), "does not; see"),
    (lambda: balancers.smooth_weights(balancers.mgda(2), 1.5), "decay must be from 0"),
  ],
)
def test_numbers_are_checked(make, message):
  with pytest.raises(ValueError, match=message):
    make()
