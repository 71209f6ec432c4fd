"""Inverse Dirichlet weights against their formula in float64."""

import pytest

from tests.balancers.gradient.published import FEWER, assert_weights_follow


def formula(g, w):
  deviations = g.std(axis=1)
  return 0.5 * w + 0.5 * deviations.max() / deviations


@pytest.mark.parametrize("num_tasks", FEWER)
def test_weights_follow_the_formula(num_tasks):
  assert_weights_follow(formula, "inverse_dirichlet", num_tasks)
