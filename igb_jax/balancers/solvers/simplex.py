"""Weights that descend a quadratic form and stay in the simplex.

w <- the point of the simplex nearest to w - step (G w)
"""

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.solvers.gramian import Gramian
from igb_jax.balancers.solvers.linear import dot

_LARGEST = 1e30  # beyond it a step ends in a corner of the simplex anyway


def nearest_in_simplex(point: jax.Array, here: jax.Array) -> jax.Array:
  """f32[K]: not negative, with the sum 1, and 0 for tasks that are not here.

  Args:
    point: f32[K].
    here: bool[K].

  Example:
    >>> print(nearest_in_simplex(jnp.array([0.9, 0.5, 7.0]), jnp.array([1, 1, 0]) == 1))
    [0.7 0.3 0. ]
  """
  highest = jnp.max(point, where=here, initial=-jnp.inf)
  # what all have in common does not matter, and 1 would drown in it
  centred = jnp.where(here, point - highest, -_LARGEST)
  nearest = optax.projections.projection_simplex(centred)
  return jnp.where(here, nearest, 0.0).astype(point.dtype)  # float64 has come in


def descend(w: jax.Array, slope: jax.Array, here: jax.Array) -> jax.Array:
  """f32[K]: the weights after a step.

  Args:
    w: f32[K], weights.
    slope: f32[K], the gradient times the step size.
    here: bool[K], tasks that are present.
  """
  return nearest_in_simplex(w - jnp.clip(slope, -_LARGEST, _LARGEST), here)


def shares(w: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Weights of the tasks that are here, made to sum to 1, and what they summed to.

  Args:
    w: f32[K], not negative.
    here: bool[K].

  Returns:
    f32[K], equal where all were zero, and f32[].
  """
  total = jnp.sum(w, where=here)
  scaled = jnp.where(here, w / jnp.where(total > 0, total, 1.0), 0.0)
  equal = here.astype(w.dtype) / jnp.maximum(here.sum(), 1)
  return jnp.where(total > 0, scaled, equal), total


def times(gramian: Gramian, w: jax.Array) -> jax.Array:
  """f32[K]: G w.

  Args:
    gramian: G.
    w: f32[K].
  """
  norms, cosines = gramian
  return norms * dot(cosines, norms * w)
