"""FairGrad: a common direction that is alpha-fair to the tasks.

    d = K sum_k x_k g_k,    (G x)_k = x_k^(-1/alpha),  x > 0

and the shared part of d is then clipped to the norm `max_norm`. x_k^(-1/alpha) is the
progress g_k . d of task k, up to K: alpha = 1 is Nash-MTL's equation, larger ones give
more progress to the tasks that have least. Reference: Ban and Ji, "Fair Resource
Allocation in Multi-Task Learning", ICML 2024, equation 5. The published code minimises
the residual by least squares from x = 1 / K, near which it stays for small gradients;
here the equation is solved. The weights in the state are K x.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_positive
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.fairness import alpha_fair, unfairness


@method(
  "fairgrad",
  "gradient",
  paper="Ban and Ji, ICML 2024",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=None,
  scale_invariant=False,
  gramian_only=True,
  solves=True,
  avoids_conflict=True,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def fairgrad(
  num_tasks: int,
  *,
  alpha: jax.typing.ArrayLike = 2.0,
  max_norm: jax.typing.ArrayLike | None = 1.0,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows the alpha-fair solution of the task gradients.

  The weights in the state are those before clipping. Gradients whose hull contains zero
  have no solution; their weights are large, and the state's `violation` is of the order
  of 1 though the residual is small. It is tested for alpha up to 5.

  Args:
    num_tasks: K.
    alpha: 2 in the published scripts; 0 gives the mean gradient, whose progress summed
      over the tasks is greatest.
    max_norm: norm to which the gradient in the shared leaves is clipped; None for no
      bound.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = fairgrad(num_tasks=2, max_norm=None)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 8.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights.round(3), gradient["x"].round(3))
    [2.    0.125] [2. 1.]
  """
  alpha = check_positive("alpha", alpha, or_zero=True)
  is_mean = alpha == 0
  # what is solved then does not matter
  solved = alpha if is_mean is False else jnp.where(is_mean, 1.0, alpha)

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    count = grads.num_present
    x, residual = alpha_fair(gramian, solved, leaves=grads.shared)
    mean = grads.here / jnp.maximum(count, 1)
    return Solution(
      jnp.where(is_mean, mean, count * x), jnp.where(is_mean, 0.0, residual)
    )

  def violation(grads: TaskGrads, gramian: Gramian, weights: jax.Array) -> jax.Array:
    count = jnp.maximum(grads.num_present, 1)
    missed = unfairness(gramian, weights / count, solved, leaves=grads.shared)
    return jnp.where(is_mean, 0.0, missed)

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    max_norm=max_norm,
    violation=violation,
  )
