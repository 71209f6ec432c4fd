"""PBI against published numbers."""

import pytest

from tests.balancers.loss.published import CALLS, METHODS, assert_has_coefficients


@pytest.mark.parametrize("num_tasks", CALLS)
def test_matches_published_code(num_tasks):
  preference = METHODS[f"pref_{num_tasks}"]
  assert_has_coefficients("pbi", num_tasks, preference=preference)
