"""UPGrad without what the published code (TorchJD) adds to the Gramian."""

import pytest

from tests.balancers.gradient.published import FEWER, assert_published


@pytest.mark.parametrize("num_tasks", FEWER)
def test_matches_published_code(num_tasks):
  assert_published("upgrad_exact", "upgrad", num_tasks)
