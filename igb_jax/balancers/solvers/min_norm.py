"""The shortest vector in the convex hull of the task gradients.

    minimise  w^T G w   over w >= 0, sum w = 1

With y_k = w_k |g_k|, the weights of the unit gradients, the conditions of optimality
are those of

    minimise  y^T C y / 2 - q^T y   over y >= 0,   q_k = 1 / |g_k|

up to a factor of y, which the sum of the weights fixes at the end.
"""

from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.solvers.combination import Combination, refine
from igb_jax.balancers.solvers.complementarity import nonnegative
from igb_jax.balancers.solvers.gramian import Gramian, Solution
from igb_jax.balancers.solvers.linear import dot, pseudo_inverse


def min_norm(
  gramian: Gramian,
  present: jax.Array | None = None,
  leaves: list[Any] | None = None,
) -> Solution:
  """The weights of the shortest vector in the convex hull.

  Args:
    gramian: the Gramian of the K gradients. Zero gradients share the weight evenly: the
      shortest vector is then zero.
    present: bool[K], all by default; the gradients of the others must be zero, and
      have no part in the hull.
    leaves: arrays float[K, ...], the leaves of the stacked gradients, to refine the
      solution with; see `igb_jax.balancers.solvers.combination`.

  Returns:
    Weights that are not negative and sum to 1. The residual is the largest
    max(0, |d|^2 - <g_k, d>) / |g_k| over tasks, d being the shortest vector, relative
    to sum_k w_k |g_k|.

  Example:
    >>> solution = min_norm(Gramian.of([jnp.array([[1.0, 0.0], [0.0, 2.0]])]))
    >>> print(solution.weights)
    [0.8 0.2]
  """
  nonzero = gramian.nonzero
  smallest = jnp.min(gramian.norms, where=nonzero, initial=jnp.inf)
  q = jnp.where(nonzero, smallest / gramian.norms, 0.0)

  y, support = nonnegative(gramian, q, nonzero)
  inverse = pseudo_inverse(gramian.cosines, support, damped=True)

  def improve(y: jax.Array) -> tuple[Solution, jax.Array]:
    products = Combination.of(y, gramian, leaves).products
    # sum_k y_k slack_k = 0, so that slacks that are not negative prove optimality
    slack = products - q * dot(y, products) / dot(y, q)
    residual = jnp.max(-slack, where=nonzero, initial=0.0) / y.sum()
    change = dot(inverse, q - products)
    return Solution(y, residual), jnp.maximum(y + change, 0.0)

  y, residual = refine(y, improve)

  weights = y * q
  zero = ~nonzero if present is None else ~nonzero & present
  share = zero.astype(jnp.float32) / jnp.maximum(zero.sum(), 1)
  return Solution(
    weights=jnp.where(zero.any(), share, weights / weights.sum()),
    residual=jnp.where(zero.any(), 0.0, residual),
  )
