"""Smooth Tchebycheff, in both forms, against published numbers."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.loss.published import METHODS, TASK_COUNTS, assert_has_coefficients

STEPS_PER_EPOCH = int(METHODS["steps_per_epoch"])


@pytest.mark.parametrize("num_tasks", [*TASK_COUNTS, 5])
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


@pytest.mark.parametrize("num_tasks", [*TASK_COUNTS, 5])
def test_the_raw_form_matches_published_code(num_tasks):
  assert_has_coefficients("stch_raw", num_tasks, spec="stchraw", mu=0.1)
  losses = METHODS[f"losses_{num_tasks}"]
  assert_has_coefficients(
    "stch_raw_pref",
    num_tasks,
    spec="stchraw",
    mu=0.1,
    preference=METHODS[f"pref_{num_tasks}"],
    reference=0.1 * losses.min(axis=0),
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"preference": [1.0, 2.0, 3.0]}, r"preference must have the shape \(2,\)"),
    (
      {"preference": [1.0, 0.0]},
      r"preference must be finite and positive, got \[1.0, 0",
    ),
    ({"reference": [np.nan, 0.0]}, "reference must be finite, got"),
  ],
)
def test_preferences_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    balancers.smooth_tchebycheff_raw(2, 0.1, **options)
