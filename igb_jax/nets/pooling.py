"""Max pooling that knows where its values came from, and its inverse."""

import jax
import jax.numpy as jnp


def _is_chosen(position: jax.Array) -> jax.Array:
  """One-hot bool[B, h, 2, w, 2, C] of positions [B, h, w, C] in 2x2 windows."""
  places = jnp.arange(4, dtype=position.dtype).reshape(2, 1, 2, 1)
  return position[:, :, None, :, None] == places


def max_pool(features: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest of each 2x2 window, and where in the window it was.

  Among equals the first counts, row by row; the gradient goes to it alone. A NaN
  counts as the largest.

  Args:
    features: f32[B, H, W, C] (or any float), H and W even.

  Returns:
    The maxima, [B, H/2, W/2, C], and their positions, u8[B, H/2, W/2, C]: 0 and 1 in
    the window's first row, 2 and 3 in the second.

  Raises:
    ValueError: if H or W is odd.

  Example:
    >>> image = jnp.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1)
    >>> pooled, position = max_pool(image)
    >>> float(pooled.item()), position.item()
    (5.0, 1)
    >>> jax.grad(lambda x: max_pool(x)[0].sum())(image)[0, :, :, 0].tolist()
    [[0.0, 1.0], [0.0, 0.0]]
  """
  batch, height, width, channels = features.shape
  if height % 2 or width % 2:
    raise ValueError(f"height and width must be even, got {height} x {width}")
  windows = features.reshape(batch, height // 2, 2, width // 2, 2, channels)
  values = jax.lax.stop_gradient(windows)
  largest = values[:, :, 0, :, 0]
  position = jnp.zeros(largest.shape, jnp.uint8)
  for place in range(1, 4):
    value = values[:, :, place // 2, :, place % 2]
    is_larger = (value > largest) | jnp.isnan(value)
    largest = jnp.where(is_larger, value, largest)
    position = jnp.where(is_larger, jnp.uint8(place), position)
  # a sum over one number and three zeros, for its gradient
  pooled = jnp.where(_is_chosen(position), windows, 0).sum(axis=(2, 4))
  return pooled, position


def unpool(pooled: jax.Array, position: jax.Array) -> jax.Array:
  """Puts each value back to its place in a 2x2 window of zeros.

  Args:
    pooled: f32[B, h, w, C] (or any float).
    position: u8[B, h, w, C], as `max_pool` gives it.

  Returns:
    [B, 2 h, 2 w, C] of the type of `pooled`.

  Raises:
    ValueError: if the two shapes differ.

  Example:
    >>> position = jnp.full((1, 1, 1, 1), 2, jnp.uint8)
    >>> unpool(jnp.full((1, 1, 1, 1), 7.0), position)[0, :, :, 0].tolist()
    [[0.0, 0.0], [7.0, 0.0]]
  """
  if pooled.shape != position.shape:
    raise ValueError(f"values are {pooled.shape} but positions {position.shape}")
  batch, height, width, channels = pooled.shape
  windows = jnp.where(_is_chosen(position), pooled[:, :, None, :, None], 0)
  return windows.reshape(batch, 2 * height, 2 * width, channels)
