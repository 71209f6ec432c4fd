"""Impartial multi-task learning, gradient part (IMTL-G).

    d = sum_k a_k g_k,  sum_k a_k = 1,  <d, u_k> the same for all k,  u_k = g_k / |g_k|

With y_k = a_k |g_k| the projections are C y, C being the cosines: y is C^-1 1 up to the
factor that makes the a_k sum to 1. Reference: Liu et al., "Towards Impartial
Multi-task Learning", ICLR 2021, equation 4, where it reads

    a_{2..K} = g_1 U^T (D U^T)^-1,  D = g_1 - g_{2..K},  U = u_1 - u_{2..K}

Where C has no inverse, y is the shortest solution: C^+ 1 with the pseudo-inverse, or,
where no weights make the projections on dependent gradients equal but those that make
them zero, the part of 1 in the null space of C.

The published code inverts D U^T, whose entries differ by the scales of the gradients;
the cosines have none. Both have weights of either sign, and grow without bound where
sum_k y_k / |g_k| is zero; here that sum counts as no smaller than 1e-6 of its terms.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import (
  Combination,
  Gramian,
  Solution,
  pseudo_inverse,
  refine,
)
from igb_jax.balancers.solvers.linear import dot

_SMALLEST_SUM = 1e-6
_ROUNDING = 5e-6  # of differences of projections, relative to sum_k |y_k|


@method(
  "imtlg",
  "gradient",
  paper="Liu et al., ICLR 2021",
  alias="imtl",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=True,
  gramian_only=True,
  solves=True,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def imtl_g(
  num_tasks: int, *, shared: Shared = None, update_every: int = EVERY_STEP
) -> GradientBalancer:
  """Follows the direction with equal projections on all task gradients.

  The weights sum to 1, or to less where they would grow without bound. Tasks whose
  shared gradient is zero share the whole weight, the limit of a gradient that becomes
  small. The residual is the largest minus the smallest <d, u_k>, relative to
  sum_k |a_k| |g_k|.

  Args:
    num_tasks: K.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = imtl_g(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 3.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"], state.weights)
    [0.75 0.75] [0.75 0.25]
  """
  return weighting(
    num_tasks, _equal_projections, shared=shared, update_every=update_every
  )


def _equal_projections(grads: TaskGrads, gramian: Gramian) -> Solution:
  """The weights a, and by how much the projections differ."""
  nonzero, present = gramian.nonzero, grads.present

  def residual_of(y: jax.Array, projections: jax.Array) -> jax.Array:
    spread = jnp.max(projections, where=nonzero, initial=-jnp.inf) - jnp.min(
      projections, where=nonzero, initial=jnp.inf
    )
    return spread / jnp.abs(y).sum()

  ones = nonzero.astype(jnp.float32)
  inverse = pseudo_inverse(gramian.cosines, nonzero)
  y = dot(inverse, ones)
  projections = gramian.product(y)
  # all equal to 1, or to 0
  solvable = residual_of(y, projections) <= _ROUNDING  # not where y is 0
  aim = jnp.where(solvable, ones, 0.0)

  def improve(y: jax.Array) -> tuple[Solution, jax.Array]:
    projections = Combination.of(y, gramian, grads.shared).products
    solution = Solution(y, residual_of(y, projections))
    return solution, y + dot(inverse, aim - projections)

  y, residual = refine(jnp.where(solvable, y, ones - projections), improve)
  smallest = jnp.min(gramian.norms, where=nonzero, initial=jnp.inf)
  weights = jnp.where(nonzero, y * (smallest / gramian.norms), 0.0)
  total = weights.sum()
  least = _SMALLEST_SUM * jnp.abs(weights).sum()
  weights /= jnp.where(total < 0, jnp.minimum(total, -least), jnp.maximum(total, least))

  zero = ~nonzero if present is None else ~nonzero & present
  share = zero.astype(jnp.float32) / jnp.maximum(zero.sum(), 1)
  return Solution(
    weights=jnp.where(zero.any(), share, weights),
    residual=jnp.where(zero.any(), 0.0, residual),
  )
