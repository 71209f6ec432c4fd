"""Vectors of one number per task, chosen by the user: preferences, and ideal losses."""

from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_numbers


def check_preference(value: Any, num_tasks: int) -> tuple[float, ...]:
  """Returns a preference as K floats; only directions of it matter.

  Args:
    value: float[K], how much each task counts.
    num_tasks: K.

  Raises:
    TypeError: it holds no real numbers.
    ValueError: it does not have the shape (K,), or a number is not finite or negative,
      or all are zero.
  """
  vector = check_numbers("preference", value, num_tasks)
  if min(vector) < 0 or max(vector) == 0:
    raise ValueError(
      "preference must be positive, or zero for some tasks, one number per task, got "
      f"{list(vector)}."
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
