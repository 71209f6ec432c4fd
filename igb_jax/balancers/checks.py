"""Checks of what balancers are given, with errors that say what to do."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer


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
    TypeError: `value` is not an integer.
    ValueError: `value` is below `minimum`.
  """
  # optax.inject_hyperparams makes arrays of all numbers, which outside of jit are known
  is_known = _is_array(value) and not isinstance(value, Tracer) and not value.shape
  if is_known and jnp.issubdtype(value.dtype, jnp.integer):
    value = int(value)
  if _is_array(value):
    raise TypeError(
      f"{name} must be a Python int, because it is fixed at compile time; got an array "
      f"({value}). With optax.inject_hyperparams, add {name!r} to static_args."
    )
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    raise TypeError(f"{name} must be an integer, got {value!r}.")
  if value < minimum:
    raise ValueError(f"{name} must be at least {minimum}, got {value}.")
  return int(value)


def check_index(name: str, value: Any, num_tasks: int) -> int:
  """Returns the index of a task.

  Args:
    name: the name of the argument, for the error.
    value: the index.
    num_tasks: K.

  Raises:
    TypeError: it is not an integer.
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
    TypeError: `value` is not a real number, nor an array of one.
    ValueError: `value` is not finite or not positive.
  """
  allowed = "finite and positive, or zero" if or_zero else "finite and positive"
  number = check_number(name, value, allowed)
  is_known = isinstance(number, float)
  if is_known and not (number > 0 or (or_zero and number == 0)):
    raise ValueError(f"{name} must be {allowed}, got {value}.")
  return number


def check_number(name: str, value: Any, allowed: str = "finite") -> float | jax.Array:
  """Returns `value` if it is a finite number, as `check_positive` does.

  Args:
    name: what the value is called in the error.
    value: the number to check.
    allowed: what it must be, for the error.

  Raises:
    TypeError: `value` is not a real number, nor an array of one.
    ValueError: `value` is not finite.
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
  if not math.isfinite(value):
    raise ValueError(f"{name} must be {allowed}, got {value}.")
  return float(value)


def check_fraction(name: str, value: Any) -> float | jax.Array:
  """Returns `value` if it is a number from 0 to 1; see `check_positive`.

  Args:
    name: what the value is called in the error.
    value: the number to check.

  Raises:
    TypeError: `value` is not a real number, nor an array of one.
    ValueError: `value` is not from 0 to 1.
  """
  number = check_positive(name, value, or_zero=True)
  if isinstance(number, float) and number > 1:
    raise ValueError(f"{name} must be from 0 to 1, got {value}.")
  return number


def check_numbers(name: str, value: Any, num_tasks: int) -> tuple[float, ...]:
  """Returns numbers as K floats.

  Args:
    name: what they are called in the error.
    value: float[K].
    num_tasks: K.

  Raises:
    TypeError: they are not real numbers.
    ValueError: they do not have the shape (K,), or one is not finite.
  """
  try:
    numbers = [float(number) for number in value]
  except (TypeError, ValueError) as error:
    raise TypeError(
      f"{name} must hold numbers, one per task, known when the balancer is made; got "
      f"{value!r}."
    ) from error
  if len(numbers) != num_tasks:
    raise ValueError(
      f"{name} must have the shape ({num_tasks},), one number per task, got "
      f"({len(numbers)},)."
    )
  if not all(map(math.isfinite, numbers)):
    raise ValueError(f"{name} must be finite, got {numbers}.")
  return tuple(numbers)


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
    losses: float[K], one loss per task.
    num_tasks: K.

  Returns:
    f32[K], or f64[K] if they have that many digits.

  Raises:
    TypeError: the losses are a mapping, or not floating-point numbers.
    ValueError: the losses do not have the shape (num_tasks,).
  """
  if isinstance(losses, Mapping):
    raise TypeError(
      f"losses must be one array of the shape ({num_tasks},), one scalar per task, got "
      f"{type(losses).__name__} with the keys {', '.join(map(repr, losses))}; stack "
      "them with jnp.stack(list(losses.values()))."
    )
  losses = jnp.asarray(losses)
  if losses.shape != (num_tasks,):
    raise ValueError(
      f"losses must have the shape ({num_tasks},), one scalar per task, got "
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
    ValueError: the mask does not have the shape (num_tasks,).
  """
  present = jnp.asarray(present)
  if present.shape != (num_tasks,):
    raise ValueError(
      f"present must have the shape ({num_tasks},), one bool per task, got "
      f"{present.shape}."
    )
  if present.dtype != bool:
    raise TypeError(
      f"present must hold bools, True where a task has a loss, got {present.dtype}."
    )
  return present


def check_epsilon(epsilon: Any, *, log: bool = True) -> Any:
  """Returns what a log method adds to a loss before it takes the logarithm.

  Args:
    epsilon: the number to check; 0 adds nothing.
    log: whether the method takes logarithms at all.

  Raises:
    TypeError: `epsilon` is not a real number.
    ValueError: it is not finite, or negative, or not 0 though nothing takes logarithms.
  """
  epsilon = check_positive("epsilon", epsilon, or_zero=True)
  if not log and not (isinstance(epsilon, float) and epsilon == 0):
    raise ValueError(
      "epsilon only applies with log=True; leave it out, or use the log form, got "
      f"{epsilon}."
    )
  return epsilon
