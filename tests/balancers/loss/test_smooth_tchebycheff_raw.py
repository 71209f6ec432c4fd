"""Smooth Tchebycheff on raw losses against published numbers."""

import pytest

from igb_jax import balancers
from tests.balancers.loss.published import CALLS, METHODS, assert_has_coefficients


@pytest.mark.parametrize("num_tasks", CALLS)
@pytest.mark.parametrize("key", ["stch_raw", "stch_raw_pref"])
def test_matches_published_code(key, num_tasks):
  options = {}
  if key == "stch_raw_pref":
    options["preference"] = METHODS[f"pref_{num_tasks}"]
    options["reference"] = 0.1 * METHODS[f"losses_{num_tasks}"].min(axis=0)
  assert_has_coefficients(key, num_tasks, spec="stchraw", mu=0.1, **options)


@pytest.mark.parametrize("name", ["preference", "reference"])
def test_vectors_are_checked(name):
  def make(value):
    return balancers.smooth_tchebycheff_raw(2, mu=1.0, **{name: value})

  with pytest.raises(
    ValueError, match=rf"{name} must have the shape \(2,\), .* \(3,\)"
  ):
    make([1.0, 2.0, 3.0])
  with pytest.raises(ValueError, match=f"{name} must be finite"):
    make([1.0, float("nan")])
  with pytest.raises(TypeError, match=f"{name} must hold numbers"):
    make(["a", "b"])
