"""Sums of unit gradients, v = sum_k y_k u_k, measured on the gradients themselves.

u_k = g_k / |g_k| are the unit gradients. Where gradients nearly cancel, what is left of
them is lost in the rounding of their cosines: a product with v is off by 1e-7 of
sum_k |y_k| there, but only by 1e-7 of |v| if it is taken with the gradients. So a
solver works on the cosines, and `refine` then corrects its answer by what the gradients
say. Without the gradients it does what the cosines allow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from igb_jax.balancers.solvers.gramian import Gramian, Solution
from igb_jax.balancers.solvers.linear import dot
from igb_jax.balancers.solvers.products import (
  accumulator,
  inner_products,
  weighted_sum,
)

_State = TypeVar("_State")
# Norms outside these would let the float32 products below over- or underflow.
_SMALLEST, _LARGEST = 1e-25, 1e25


class Combination(NamedTuple):
  """A sum of unit gradients, v = sum_k y_k u_k.

  Attributes:
    norm: f32[], |v|.
    products: f32[K], <u_k, v>; 0 for a zero gradient.
  """

  norm: jax.Array
  products: jax.Array

  @classmethod
  def of(
    cls, y: jax.Array, gramian: Gramian, leaves: list[Any] | None = None
  ) -> "Combination":
    """Measures a sum of unit gradients.

    Args:
      y: f32[K], the weights of the unit gradients; 0 for zero gradients.
      gramian: the Gramian of the K gradients.
      leaves: arrays float[K, ...], the leaves of the stacked gradients. Without them,
        or where a norm is not within 1e-25 to 1e25, the Gramian has to do.
    """
    products = gramian.product(y)
    norm = jnp.sqrt(jnp.maximum(dot(y, products), 0.0))
    if leaves is None:
      return cls(norm, products)
    norms = gramian.norms
    fits = (norms > _SMALLEST) & (norms < _LARGEST)
    # the weights are divided, not the gradients, of which that would make a copy
    scale = jnp.where(fits, 1 / jnp.where(fits, norms, 1.0), 0.0)
    square, measured = jnp.zeros((), jnp.float32), jnp.zeros(len(norms), jnp.float32)
    for leaf in leaves:
      v = _sum_of(y * scale, leaf)[None]
      square += inner_products(v, v)[0, 0].astype(jnp.float32)
      measured += inner_products(leaf, v)[:, 0].astype(jnp.float32)
    all_fit = (fits | ~gramian.nonzero).all()
    return cls(
      norm=jnp.where(all_fit, jnp.sqrt(square), norm),
      products=jnp.where(all_fit, scale * measured, products),
    )


def _sum_of(weights: jax.Array, leaf: jax.Array) -> jax.Array:
  if leaf.dtype != accumulator(leaf):
    return weighted_sum(weights, leaf)
  # of a leaf that needs no conversion this makes no copy either, and is compiled faster
  return jnp.tensordot(
    weights.astype(leaf.dtype), leaf, 1, precision=jax.lax.Precision.HIGHEST
  )


class Mean(NamedTuple):
  """The mean of the task gradients, g_0 = sum_k g_k / K.

  Attributes:
    norm: f32[], |g_0| relative to the largest norm of a task gradient.
    cosines: f32[K], of its angles to the task gradients.
  """

  norm: jax.Array
  cosines: jax.Array

  @classmethod
  def of(
    cls,
    leaves: list[Any] | None,
    gramian: Gramian,
    present: jax.Array | None = None,
  ) -> "Mean":
    """The mean of stacked gradients, from the gradients themselves.

    Args:
      leaves: arrays float[K, ...], the leaves of the stacked task gradients; without
        them the Gramian has to do.
      gramian: the Gramian of the same gradients.
      present: bool[K], all by default; the gradients of the others must be zero, and
        are not counted.
    """
    norm, products = Combination.of(mean_weights(gramian, present), gramian, leaves)
    cosines = products / jnp.where(norm > 0, norm, 1.0)
    return cls(norm, jnp.where(norm > 0, cosines, 0.0))


def mean_weights(gramian: Gramian, present: jax.Array | None = None) -> jax.Array:
  """f32[K]: the mean gradient in unit gradients, relative to the largest norm.

  Args:
    gramian: the Gramian of the K gradients.
    present: bool[K], all by default; the others are not counted.
  """
  nonzero = gramian.nonzero
  count = len(nonzero) if present is None else present.sum()
  return jnp.where(nonzero, gramian.norms / gramian.norms.max(), 0.0) / count


def refine(
  start: _State,
  improve: Callable[[_State], tuple[Solution, _State]],
  *,
  num_points: int = 3,
) -> Solution:
  """The best of some points, each of which corrects the one before.

  Args:
    start: the first point.
    improve: `improve(point) -> (the solution that it stands for, next point)`.
    num_points: how many points to judge. A loop goes over them, so that what `improve`
      does with every leaf of the gradients is compiled once.
  """

  def judge(point: _State, _: None) -> tuple[_State, Solution]:
    solution, following = improve(point)
    return following, solution

  _, tried = jax.lax.scan(judge, start, length=num_points)
  best = jnp.argmin(jnp.where(jnp.isnan(tried.residual), jnp.inf, tried.residual))
  return jax.tree.map(lambda values: values[best], tried)
