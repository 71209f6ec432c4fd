"""ConFIG against the published code."""

import pytest

from tests.balancers.gradient.published import FEWER, assert_published


@pytest.mark.parametrize("num_tasks", FEWER)
def test_matches_published_code(num_tasks):
  assert_published("config", "config", num_tasks)
