"""ConFIG: a direction that has the same angle to every task gradient.

    U = rows g_k / |g_k|,    v = U^+ 1,    u = v / |v|,    d = (sum_k g_k . u) u

with the pseudo-inverse U^+ = U^T (U U^T)^+, so that v is a sum of unit gradients with
the weights C^+ 1, C their cosines. Where no gradient depends on the others, all angles
are equal and below 90 degrees. Reference: Liu et al., "ConFIG: Towards Conflict-free
Training of Physics Informed Neural Networks", ICLR 2025, equation 2.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, LARGEST_WEIGHT, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Combination, Gramian, Solution
from igb_jax.balancers.solvers.combination import refine
from igb_jax.balancers.solvers.linear import dot, pseudo_inverse


@method(
  "config",
  "gradient",
  paper="Liu et al., ICLR 2025",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=True,
  gramian_only=True,
  solves=False,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def conflict_free(
  num_tasks: int, *, shared: Shared = None, update_every: int = EVERY_STEP
) -> GradientBalancer:
  """Follows the direction with equal angles to all task gradients.

  Where gradients depend on each other, equal angles may be impossible; the result is
  then the least-squares solution, and may conflict with a task. Unit gradients that
  cancel give zero. Weights may be negative.

  Args:
    num_tasks: K.
    shared: see `weighting`; other leaves get the sum with the same weights.
    update_every: see `weighting`.

  Example:
    >>> balancer = conflict_free(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 3.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"].round(4))
    [2. 2.]
  """

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    nonzero = gramian.nonzero
    inverse = pseudo_inverse(gramian.cosines, nonzero)
    aim = nonzero.astype(jnp.float32)

    def improve(y: jax.Array) -> tuple[Solution, jax.Array]:
      products = Combination.of(y, gramian, grads.shared).products
      change = dot(inverse, aim - products)
      return Solution(y, jnp.max(jnp.abs(change))), y + change

    y = refine(dot(inverse, aim), improve).weights
    norm, products = Combination.of(y, gramian, grads.shared)
    length = dot(gramian.norms, products)
    share = jnp.where(norm > 0, length / jnp.where(norm > 0, norm, 1.0) ** 2, 0.0)
    weights = share * y / gramian.divisors
    # a zero gradient is weighed, for its head, like a unit gradient with y of 1
    of_zero = jnp.where(share != 0, jnp.abs(share) / gramian.divisors, 1.0)
    weights = jnp.where(nonzero, weights, of_zero)
    return Solution(jnp.clip(weights, -LARGEST_WEIGHT, LARGEST_WEIGHT))

  return weighting(num_tasks, rule, shared=shared, update_every=update_every)
