"""The projection on the dual cone of the task gradients, which conflicts with none.

    minimise  |sum_k v_k g_k|^2  over v >= a,    0 <= a

With y_k = v_k |g_k|, b_k = a_k |g_k| and z = y - b it is, with the cosines C,

    z >= 0,    C (b + z) >= 0,    one of the two zero for every task

so that the sum has no negative product with any gradient: of all such sums it is the
nearest to sum_k a_k g_k. Only cosines are solved with, so that no result depends on the
units of any task.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.solvers.complementarity import nonnegative
from igb_jax.balancers.solvers.gramian import Gramian, Solution
from igb_jax.balancers.solvers.linear import dot


def project(gramian: Gramian, lengths: jax.Array) -> Solution:
  """Projects a sum of unit gradients.

  Args:
    gramian: of the gradients.
    lengths: f32[K], b, not negative.

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
  z, _ = nonnegative(gramian, -products, products < 0)
  slack = gramian.product(b + z)
  terms = dot(jnp.abs(gramian.cosines), b + z)
  relative = slack / jnp.where(terms > 0, terms, 1.0)
  share = z / jnp.maximum(jnp.max(b + z), jnp.finfo(jnp.float32).tiny)
  residual = jnp.max(jnp.abs(jnp.minimum(share, relative)))
  return Solution(longest * (b + z), residual)
