"""Vectors of one number per task, chosen by the user: preferences, and ideal losses."""

import math
from typing import Any

import jax
import jax.numpy as jnp


def check_preference(value: Any, num_tasks: int) -> tuple[float, ...]:
  """Returns a preference as K floats; only directions of it matter.

  Args:
    value: float[K], how much each task counts.
    num_tasks: K.

  Raises:
    TypeError: it holds no real numbers.
    ValueError: it does not have the shape (K,), or a number is not finite and positive.
  """
  vector = check_numbers("preference", value, num_tasks)
  if min(vector) <= 0:
    raise ValueError(
      f"preference must be positive, one number per task, got {list(vector)}."
    )
  return vector


def check_reference(value: Any, num_tasks: int) -> tuple[float, ...]:
  """Returns the ideal losses as K floats; None stands for zeros.

  Args:
    value: float[K], what the losses could be at best, or None.
    num_tasks: K.

  Raises:
    TypeError: it holds no real numbers.
    ValueError: it does not have the shape (K,), or a number is not finite.
  """
  if value is None:
    return (0.0,) * num_tasks
  return check_numbers("reference", value, num_tasks)


def unit(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The unit vector and the norm, without overflow; zeros for zeros.

  Args:
    vector: f32[K].
  """
  most = jnp.abs(vector).max()
  scaled = vector / jnp.where(most > 0, most, 1.0)
  norm = jnp.sqrt(jnp.sum(scaled**2))
  return scaled / jnp.where(norm > 0, norm, 1.0), norm * most


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
