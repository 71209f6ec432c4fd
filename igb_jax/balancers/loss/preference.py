"""Vectors with one number a task that a user chooses: preferences, and ideal losses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def check_preference(value: Any, num_tasks: int) -> np.ndarray:
  """Returns a preference as f32[K], on the host; only directions of it matter.

  Args:
    value: float[K], how much each task counts.
    num_tasks: K.

  Raises:
    TypeError: it holds no real numbers.
    ValueError: it has not the shape (K,), or a number is not finite and positive.
  """
  vector = check_numbers("preference", value, num_tasks)
  if not (vector > 0).all():
    raise ValueError(
      f"preference must be positive, one number a task, got {vector.tolist()}."
    )
  return vector


def check_reference(value: Any, num_tasks: int) -> np.ndarray:
  """Returns the ideal losses as f32[K], on the host; None stands for zeros.

  Args:
    value: float[K], what the losses could be at best, or None.
    num_tasks: K.

  Raises:
    TypeError: it holds no real numbers.
    ValueError: it has not the shape (K,), or a number is not finite.
  """
  if value is None:
    return np.zeros(num_tasks, np.float32)
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


def check_numbers(name: str, value: Any, num_tasks: int) -> np.ndarray:
  """Returns numbers as f32[K], on the host.

  Args:
    name: what they are called in the error.
    value: float[K].
    num_tasks: K.

  Raises:
    TypeError: they are no real numbers.
    ValueError: they have not the shape (K,), or one is not finite.
  """
  if isinstance(value, Tracer):
    raise TypeError(
      f"{name} must be known when the balancer is made, got a traced array; pass "
      "numbers."
    )
  vector = np.asarray(value)
  if vector.dtype == bool or not np.issubdtype(vector.dtype, np.number):
    raise TypeError(f"{name} must hold numbers, one a task, got {value!r}.")
  if np.iscomplexobj(vector):
    raise TypeError(f"{name} must hold real numbers, one a task, got {value!r}.")
  if vector.shape != (num_tasks,):
    raise ValueError(
      f"{name} must have the shape ({num_tasks},), one number a task, got "
      f"{vector.shape}."
    )
  vector = vector.astype(np.float32)
  if not np.isfinite(vector).all():
    raise ValueError(f"{name} must be finite, got {vector.tolist()}.")
  return vector
