"""Smooth Tchebycheff against published numbers."""

import pytest

from tests.balancers.loss.published import CALLS, METHODS, assert_has_coefficients

STEPS_PER_EPOCH = int(METHODS["steps_per_epoch"])


@pytest.mark.parametrize("num_tasks", CALLS)
@pytest.mark.parametrize(("key", "mu"), [("stch", 1.0), ("stch02", 0.2)])
def test_matches_published_code(key, mu, num_tasks):
  assert_has_coefficients(
    key,
    num_tasks,
    spec="stch",
    mu=mu,
    warmup_epochs=1,
    steps_per_epoch=STEPS_PER_EPOCH,
  )
