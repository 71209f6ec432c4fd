"""The projection on the dual cone of the task gradients, which conflicts with none.

    minimise  |sum_k v_k g_k|^2  over v >= a,    0 <= a

With y_k = v_k |g_k|, b_k = a_k |g_k| and z = y - b it is, with the cosines C,

    z >= 0,    C (b + z) >= 0,    one of the two zero for every task

so that the sum has no negative product with any gradient: of all such sums it is the
nearest to sum_k a_k g_k. Only cosines are solved with, so that no result depends on the
units of any task.
"""

from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.solvers.combination import Combination, refine
from igb_jax.balancers.solvers.complementarity import nonnegative
from igb_jax.balancers.solvers.gramian import Gramian, Solution
from igb_jax.balancers.solvers.linear import dot, solve


def project(
  gramian: Gramian, lengths: jax.Array, leaves: list[Any] | None = None
) -> Solution:
  """Projects a sum of unit gradients.

  Args:
    gramian: the Gramian of the gradients.
    lengths: f32[K], b, not negative.
    leaves: arrays float[K, ...], the leaves of the stacked gradients, to refine the
      solution with; see `igb_jax.balancers.solvers.combination`.

  Returns:
    y, the weights of the unit gradients. The residual is the largest violation over
    tasks of the conditions, relative to their terms.

  Example:
    >>> gradients = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
    >>> solution = project(Gramian.of([gradients]), jnp.array([1.0, 0.0]))
    >>> print(solution.weights.round(4))
    [1.     0.7071]
  """
  longest = lengths.max()
  b = lengths / jnp.where(longest > 0, longest, 1.0)
  products = gramian.product(b)
  z, support = nonnegative(gramian, -products, products < 0)

  def improve(y: jax.Array) -> tuple[Solution, jax.Array]:
    slack = Combination.of(y, gramian, leaves).products
    terms = dot(jnp.abs(gramian.cosines), y)
    relative = slack / jnp.where(terms > 0, terms, 1.0)
    share = (y - b) / jnp.maximum(jnp.max(y), jnp.finfo(jnp.float32).tiny)
    residual = jnp.max(jnp.abs(jnp.minimum(share, relative)))
    return Solution(y, residual), jnp.maximum(
      y - solve(gramian.cosines, slack, support), b
    )

  y, residual = refine(b + z, improve)
  return Solution(longest * y, residual)
