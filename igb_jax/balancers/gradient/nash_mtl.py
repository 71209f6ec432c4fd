"""Nash-MTL: the task gradients bargain for a common direction.

    d = sum_k a_k g_k,    G a = 1 / a,  a > 0,    |d| = sqrt(K)

and the shared part of d is then clipped to the norm `max_norm`. Reference: Navon et
al., "Multi-Task Learning as a Bargaining Game", ICML 2022, equation 2, Algorithm 1.

The published code approaches a by 20 rounds of a convex solver on the host, from the
weights of the step before, and returns what it has when they do not converge; here
Newton's method solves the equation at every update, so that the start is of no
consequence. G is scaled to cosines for the solver, there divided by its Frobenius norm;
the weights are those of G itself in both.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Combination, Gramian, nash


@method(
  "nashmtl",
  "gradient",
  paper="Navon et al., ICML 2022",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=0,
  scale_invariant=True,
  gramian_only=True,
  solves=True,
  avoids_conflict=True,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def nash_mtl(
  num_tasks: int,
  *,
  max_norm: jax.typing.ArrayLike = 1.0,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows the Nash bargaining solution of the task gradients.

  The weights in the state are those before clipping. Where no weights solve the
  equation (the hull of the gradients contains zero, or one of them is zero) the
  residual is small all the same, but the state's `violation`, the largest
  |a_k (G a)_k - 1| over the tasks that are present, is of the order of 1.
  `igb_jax.balancers.solvers.nash` says which weights a zero gradient gets.

  Args:
    num_tasks: K.
    max_norm: norm to which the gradient in the shared leaves is clipped.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = nash_mtl(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights, gradient["x"])
    [1.   0.25] [0.70710677 0.70710677]
  """
  return weighting(
    num_tasks,
    lambda grads, gramian: nash(gramian, grads.shared),
    shared=shared,
    update_every=update_every,
    max_norm=max_norm,
    violation=_violation,
  )


def _violation(grads: TaskGrads, gramian: Gramian, weights: jax.Array) -> jax.Array:
  y = weights * gramian.norms
  products = y * Combination.of(y, gramian, grads.shared).products
  return jnp.max(jnp.abs(products - 1), where=grads.present, initial=0.0)
