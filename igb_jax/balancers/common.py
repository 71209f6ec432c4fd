"""A few small formulas that balancers share."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

LARGEST_LOG = 80.0  # of a weight: e^80 is near the end of float32


def constant_float32(losses: jax.Array) -> jax.Array:
  """f32[K]: the losses as weights and histories see them, without a derivative.

  Losses in float64 that are beyond the range of float32 become the nearest number in
  it, zero and numbers that are not finite excepted.

  Args:
    losses: float[K].
  """
  losses = jax.lax.stop_gradient(losses)
  if losses.dtype == jnp.float32:
    return losses
  limits = jnp.finfo(jnp.float32)
  clipped = jnp.clip(losses, float(limits.min), float(limits.max))
  clipped = jnp.where(losses > 0, jnp.maximum(clipped, float(limits.tiny)), clipped)
  return jnp.where(jnp.isfinite(losses), clipped, losses).astype(jnp.float32)


def is_valid(losses: jax.Array, present: jax.Array | None = None) -> jax.Array:
  """bool[K]: which losses a history may use: positive, finite and present.

  A subnormal number counts as zero, as it does where devices compute with it.

  Args:
    losses: f32[K].
    present: bool[K], all by default.
  """
  valid = jnp.isfinite(losses) & (losses >= jnp.finfo(jnp.float32).tiny)
  return valid if present is None else valid & present


def is_known(losses: jax.Array, present: jax.Array | None = None) -> jax.Array:
  """bool[K]: which losses are finite and present; they may be zero or negative.

  Args:
    losses: f32[K].
    present: bool[K], all by default.
  """
  known = jnp.isfinite(losses)
  return known if present is None else known & present


def is_inexact(leaf: jax.Array) -> bool:
  """Whether an array holds numbers that may not be finite; a PRNG key holds none."""
  return jnp.issubdtype(leaf.dtype, jnp.inexact)


def all_finite(tree: Any) -> jax.Array:
  """bool[]: whether every number is finite; a norm would overflow before they do.

  Args:
    tree: a pytree of arrays.
  """
  leaves = filter(is_inexact, jax.tree.leaves(tree))
  of_leaves = jnp.stack([jnp.ones((), bool), *(jnp.isfinite(x).all() for x in leaves)])
  # Without the barrier XLA makes a chain of `and` of this and, on CPU, copies the chain
  # to every user of the result: the step of a net of 400 leaves compiles for minutes.
  return jax.lax.optimization_barrier(of_leaves).all()


def log_losses(losses: jax.Array, epsilon: jax.typing.ArrayLike = 0.0) -> jax.Array:
  """float[K]: log(L + epsilon), and NaN where that has no logarithm.

  Zero gives NaN too, and never -inf, which would hide it.

  Args:
    losses: float[K].
    epsilon: float[], what is added to every loss.
  """
  shifted = losses + epsilon
  return jnp.where(shifted > 0, jnp.log(shifted), jnp.nan)


def softmax_weights(logits: jax.Array, valid: jax.Array | None = None) -> jax.Array:
  """K softmax(logits), positive in float32 too.

  Args:
    logits: f32[K]; not NaN where valid.
    valid: bool[K], all by default; the other tasks get the weight 0, and the valid
      ones are weighed as if the others did not exist.

  Returns:
    f32[K], the weights, which sum to the number of valid tasks. A weight that would
    underflow is the smallest normal float32 instead of zero.
  """
  if valid is None:
    valid = jnp.ones(logits.shape, bool)
  limits = jnp.finfo(jnp.float32)
  softmax = jax.nn.softmax(jnp.clip(logits, limits.min, limits.max), where=valid)
  return jnp.where(valid, jnp.maximum(jnp.sum(valid) * softmax, limits.tiny), 0.0)


def softmax_shares(logits: jax.Array, valid: jax.Array | None = None) -> jax.Array:
  """The same, but summing to 1.

  Args:
    logits: f32[K]; not NaN where valid.
    valid: bool[K], all by default; the other tasks get 0.
  """
  if valid is None:
    valid = jnp.ones(logits.shape, bool)
  shares = softmax_weights(logits, valid) / jnp.maximum(valid.sum(), 1)
  return jnp.where(valid, jnp.maximum(shares, jnp.finfo(jnp.float32).tiny), 0.0)


def update_mean(
  mean: jax.Array, count: jax.Array, values: jax.Array, include: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Takes one more value per task into running means.

  Args:
    mean: f32[K], means so far.
    count: i32[K], how many values are in them.
    values: f32[K], the values to take in.
    include: bool[K], which of them count; the others may be NaN.

  Returns:
    The new means and counts.
  """
  count = count + include
  change = jnp.where(include, values - mean, 0.0) / jnp.maximum(count, 1)
  return mean + change, count


def increment(step: jax.Array) -> jax.Array:
  """i32[]: step + 1, which stays at the largest integer instead of wrapping round."""
  return jnp.asarray(optax.safe_increment(step))


def key_data(key: jax.Array | None, method: str) -> jax.Array:
  """u32[2]: a threefry key drawn from `key`, as plain integers that checkpoint.

  Args:
    key: a PRNG key of any implementation, typed or raw.
    method: the method that needs it, for the error.

  Raises:
    ValueError: `key` is None.
  """
  if key is None:
    raise ValueError(
      f"{method} draws random numbers: init needs a key, e.g. "
      "init(jax.random.key(0)), got None."
    )
  return jax.random.bits(key, (2,), jnp.uint32)


def split_key_data(data: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the next u32[2] for the state, and a typed key to use now.

  Args:
    data: u32[2], what `key_data` or the previous call returned.
  """
  carry, key = jax.random.split(jax.random.wrap_key_data(data, impl="threefry2x32"))
  return jax.random.key_data(carry), key
