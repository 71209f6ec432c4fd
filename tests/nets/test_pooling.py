"""Pooling, unpooling and upsampling against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.nets import mtan, pooling


def pool_by_loop(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Maxima, positions, and the gradient of their weighted sum, window by window."""
  batch, height, width, channels = features.shape
  pooled = np.empty((batch, height // 2, width // 2, channels), features.dtype)
  position = np.empty(pooled.shape, np.uint8)
  gradient = np.zeros_like(features)
  for b, h, w, c in np.ndindex(pooled.shape):
    window = features[b, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2, c]
    place = window.argmax()  # the first of equals, row by row
    position[b, h, w, c], pooled[b, h, w, c] = place, window.flat[place]
    gradient[b, 2 * h + place // 2, 2 * w + place % 2, c] = 1 + c
  return pooled, position, gradient


@pytest.mark.parametrize("number_of_values", [1, 3, 1000])
def test_pooling_equals_a_loop(number_of_values):
  generator = np.random.default_rng(0)
  features = generator.integers(number_of_values, size=(2, 6, 8, 3)) - 1.0
  features = features.astype(np.float32)
  pooled, position, gradient = pool_by_loop(features)

  ours = pooling.max_pool(jnp.asarray(features))
  np.testing.assert_array_equal(ours[0], pooled)
  np.testing.assert_array_equal(ours[1], position)
  weights = jnp.arange(1.0, 4.0)
  ours = jax.grad(lambda x: (weights * pooling.max_pool(x)[0]).sum())(features)
  np.testing.assert_array_equal(ours, gradient)

  values = jnp.broadcast_to(weights, pooled.shape)
  np.testing.assert_array_equal(pooling.unpool(values, position), gradient)
  ours = jax.grad(lambda v: (features * pooling.unpool(v, position)).sum())(values)
  np.testing.assert_array_equal(ours, pooled)


def test_pooling_keeps_nan():
  features = jnp.zeros((1, 2, 8, 1)).at[0, 0, 0].set(jnp.nan).at[0, 1, 3].set(jnp.nan)
  pooled, position = pooling.max_pool(features)
  np.testing.assert_array_equal(jnp.isnan(pooled).ravel(), [True, True, False, False])
  np.testing.assert_array_equal(position.ravel(), [0, 3, 0, 0])


def test_pooling_checks_shapes():
  with pytest.raises(ValueError, match="got 3 x 4"):
    pooling.max_pool(jnp.zeros((1, 3, 4, 1)))
  with pytest.raises(ValueError, match="positions"):
    pooling.unpool(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 1, 1), jnp.uint8))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_upsampling_has_corners_on_corners(size):
  generator = np.random.default_rng(0)
  features = generator.normal(size=(1, size, 3, 2))
  places = np.linspace(0, size - 1, 2 * size), np.linspace(0, 2, 6)
  expected = features
  for axis, place in zip((1, 2), places, strict=True):
    expected = np.apply_along_axis(
      lambda row, place=place: np.interp(place, np.arange(len(row)), row),
      axis,
      expected,
    )
  np.testing.assert_allclose(mtan.upsample(jnp.asarray(features)), expected, 1e-5, 1e-6)
  with jax.enable_x64(True):
    exact = mtan.upsample(jnp.asarray(features, jnp.float64))
  np.testing.assert_allclose(exact, expected, 1e-13, 1e-14)
