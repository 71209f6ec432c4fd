"""Aligned-MTL against the authors' code, and what it is made to do."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import (
  FEWER,
  KINDS,
  assert_near,
  balanced,
  golden,
)

SCALES = {"min": "aligned", "median": "aligned_median", "rmse": "aligned_rmse"}


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize("scale", SCALES)
def test_matches_published_code(scale, num_tasks):
  results, states = balanced("methods.npz", "aligned", num_tasks, scale=scale)
  expected = golden("methods.npz", SCALES[scale], num_tasks)
  # float32 leaves out eigenvalues of "scaled" that float64 keeps
  usual = [index for index, kind in enumerate(KINDS) if kind != "scaled"]
  assert_near(results[usual], expected[usual], 1e-4)
  if scale == "min":
    summed = golden("methods.npz", "aligned_libmtl_w", num_tasks)
    assert_near(num_tasks * states.weights[usual], summed[usual], 1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_the_aligned_gradients_are_orthogonal_and_equally_long(scale):
  """Of gradients g + h and g - h the result is their mean after alignment."""
  g, h = np.array([3.0, 0.0]), np.array([0.0, 1.0])
  balancer = balancers.aligned_mtl(2, scale=scale)
  grads = np.stack([g + h, g - h]).astype(np.float32)
  result, state = balancer.update(grads, balancer.init(grads[0]))
  length = {"min": 1.0, "median": 1.0, "rmse": np.sqrt(5.0)}[scale]
  np.testing.assert_allclose(result, [length, 0.0], 1e-5, 1e-5)
  np.testing.assert_allclose(state.weights, [length / 6, length / 6], 1e-5)


def test_scales_are_checked():
  with pytest.raises(ValueError, match="scale must be 'min' or 'median' or"):
    balancers.aligned_mtl(2, scale="max")  # pyright: ignore[reportArgumentType]
