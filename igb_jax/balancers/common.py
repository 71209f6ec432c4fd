"""What the balancers share: checks of arguments, and a few small formulas."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

LARGEST_LOG = 80.0  # of a weight: e^80 is near the end of float32


def _is_array(value: Any) -> bool:
  """Whether a value is an array, of NumPy too, and no number of Python or NumPy."""
  return hasattr(type(value), "dtype") and not isinstance(value, numbers.Number)


def check_count(name: str, value: Any, *, minimum: int = 1) -> int:
  """Returns `value` if it is a Python integer of at least `minimum`.

  Args:
    name: what the value is called in the error.
    value: the number to check.
    minimum: the least value that is allowed.

  Raises:
    TypeError: `value` is no integer.
    ValueError: `value` is below `minimum`.
  """
  # optax.inject_hyperparams makes arrays of all numbers, which outside of jit are known
  is_known = _is_array(value) and not isinstance(value, Tracer) and not value.shape
  if is_known and jnp.issubdtype(value.dtype, jnp.integer):
    value = int(value)
  if _is_array(value):
    raise TypeError(
      f"{name} must be a Python integer, got an array, {value}: it is part of the "
      f"program. With optax.inject_hyperparams, add {name!r} to static_args."
    )
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    raise TypeError(f"{name} must be an integer, got {value!r}.")
  if value < minimum:
    raise ValueError(f"{name} must be at least {minimum}, got {value}.")
  return int(value)


def check_index(name: str, value: Any, num_tasks: int) -> int:
  """Returns the index of a task.

  Args:
    name: of the argument, for the error.
    value: the index.
    num_tasks: K.

  Raises:
    TypeError: it is no integer.
    ValueError: it is negative, or not below K.
  """
  index = check_count(name, value, minimum=0)
  if index >= num_tasks:
    raise ValueError(f"{name} must be below num_tasks = {num_tasks}, got {index}.")
  return index


def check_positive(
  name: str, value: Any, *, or_zero: bool = False
) -> float | jax.Array:
  """Returns `value` if it is a finite positive number.

  Of an array, which may be traced, only the shape and dtype are checked.

  Args:
    name: what the value is called in the error.
    value: the number to check.
    or_zero: whether 0 is allowed too.

  Returns:
    A Python float, or f32[] of an array.

  Raises:
    TypeError: `value` is no real number, nor an array of one.
    ValueError: `value` is not finite or not positive.
  """
  if _is_array(value):
    is_real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(
      value.dtype, jnp.integer
    )
    if value.shape or not is_real:
      raise TypeError(
        f"{name} must be a number, or an array of the shape () with one, got "
        f"{value.dtype}{list(value.shape)}."
      )
    return jnp.asarray(value, jnp.float32)
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    raise TypeError(f"{name} must be a number, got {value!r}.")
  number = float(value)
  if not (math.isfinite(number) and (number > 0 or (or_zero and number == 0))):
    allowed = "positive, or zero" if or_zero else "positive"
    raise ValueError(f"{name} must be finite and {allowed}, got {value}.")
  return number


def check_fraction(name: str, value: Any) -> float | jax.Array:
  """Returns `value` if it is a number from 0 to 1; see `check_positive`.

  Args:
    name: what the value is called in the error.
    value: the number to check.

  Raises:
    TypeError: `value` is no real number, nor an array of one.
    ValueError: `value` is not from 0 to 1.
  """
  number = check_positive(name, value, or_zero=True)
  if isinstance(number, float) and number > 1:
    raise ValueError(f"{name} must be from 0 to 1, got {value}.")
  return number


def check_bool(name: str, value: Any) -> bool:
  """Returns `value` if it is True or False.

  Args:
    name: what the value is called in the error.
    value: the value to check.

  Raises:
    TypeError: it is neither.
  """
  if not isinstance(value, bool):
    raise TypeError(f"{name} must be True or False, got {value!r}.")
  return value


def check_one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
  """Returns `value` if it is one of the words that are allowed.

  Args:
    name: what the value is called in the error.
    value: the word to check.
    allowed: the words.

  Raises:
    ValueError: `value` is none of them.
  """
  if not isinstance(value, str) or value not in allowed:
    words = " or ".join(map(repr, allowed))
    raise ValueError(f"{name} must be {words}, got {value!r}.")
  return value


def check_losses(losses: jax.typing.ArrayLike, num_tasks: int) -> jax.Array:
  """Returns the losses as an array; runs while tracing, so it costs no step time.

  Args:
    losses: float[K], one loss a task.
    num_tasks: K.

  Returns:
    f32[K], or f64[K] if they have that many digits.

  Raises:
    TypeError: the losses are a mapping, or not floating-point numbers.
    ValueError: the losses have not the shape (num_tasks,).
  """
  if isinstance(losses, Mapping):
    raise TypeError(
      f"losses must be one array of the shape ({num_tasks},), one scalar a task, got "
      f"{type(losses).__name__} with the keys {', '.join(map(repr, losses))}; stack "
      "them with jnp.stack(list(losses.values()))."
    )
  losses = jnp.asarray(losses)
  if losses.shape != (num_tasks,):
    raise ValueError(
      f"losses must have the shape ({num_tasks},), one scalar a task, got "
      f"{losses.shape}; stack them with jnp.stack."
    )
  if not jnp.issubdtype(losses.dtype, jnp.floating):
    raise TypeError(f"losses must be floating-point numbers, got {losses.dtype}.")
  return losses.astype(jnp.promote_types(losses.dtype, jnp.float32))


def check_present(present: jax.typing.ArrayLike, num_tasks: int) -> jax.Array:
  """Returns the mask of the tasks that are present as bool[K]; runs while tracing.

  Args:
    present: bool[K].
    num_tasks: K.

  Raises:
    TypeError: the mask does not hold bools.
    ValueError: the mask has not the shape (num_tasks,).
  """
  present = jnp.asarray(present)
  if present.shape != (num_tasks,):
    raise ValueError(
      f"present must have the shape ({num_tasks},), one bool a task, got "
      f"{present.shape}."
    )
  if present.dtype != bool:
    raise TypeError(
      f"present must hold bools, True where a task has a loss, got {present.dtype}."
    )
  return present


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


def check_epsilon(epsilon: Any, *, log: bool = True) -> Any:
  """Returns what a log method adds to a loss before it takes the logarithm.

  Args:
    epsilon: the number to check; 0 adds nothing.
    log: whether the method takes logarithms at all.

  Raises:
    TypeError: `epsilon` is no real number.
    ValueError: it is not finite, or negative, or not 0 though nothing takes logarithms.
  """
  epsilon = check_positive("epsilon", epsilon, or_zero=True)
  if not log and not (isinstance(epsilon, float) and epsilon == 0):
    raise ValueError(
      "epsilon is added to a loss before its logarithm is taken, and without log=True "
      f"none is; leave it out or take the log form, got {epsilon}."
    )
  return epsilon


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


def softmax_shares(logits: jax.Array, valid: jax.Array) -> jax.Array:
  """The same, but summing to 1.

  Args:
    logits: f32[K]; not NaN where valid.
    valid: bool[K]; the other tasks get 0.
  """
  shares = softmax_weights(logits, valid) / jnp.maximum(valid.sum(), 1)
  return jnp.where(valid, jnp.maximum(shares, jnp.finfo(jnp.float32).tiny), 0.0)


def update_mean(
  mean: jax.Array, count: jax.Array, values: jax.Array, include: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Takes one more value a task into running means.

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
