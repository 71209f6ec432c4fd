"""PBI against published numbers."""

import pytest

from tests.balancers.loss.published import METHODS, TASK_COUNTS, assert_has_coefficients


@pytest.mark.parametrize("num_tasks", [*TASK_COUNTS, 5])
def test_matches_published_code(num_tasks):
  preference = METHODS[f"pref_{num_tasks}"]
  assert_has_coefficients("pbi", num_tasks, preference=preference)
