"""NTKMTL against the published code."""

import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import FEWER, assert_published


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize(
  ("key", "options"),
  [
    ("ntkmtl", {}),
    ("ntkmtl75", {"exponent": 0.75}),
    ("ntkmtl_noclip", {"max_norm": None}),
  ],
)
def test_matches_published_code(key, options, num_tasks):
  assert_published(key, "ntkmtl", num_tasks, **options)


def test_numbers_are_checked():
  with pytest.raises(ValueError, match=r"exponent must be .* got -1"):
    balancers.ntkmtl(2, exponent=-1)
