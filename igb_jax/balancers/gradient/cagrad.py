"""Conflict-averse gradient descent (CAGrad).

    d = argmax  min_k <d, g_k>  over |d - g_0| <= c |g_0|,    g_0 = sum_k g_k / K

and the result is K d / (1 + c^2). With g_w = sum_k w_k g_k,

    w = argmin  <g_w, g_0> + c |g_0| |g_w|  over w >= 0, sum_k w_k = 1,
    d = g_0 + c |g_0| g_w / |g_w|

Reference: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
NeurIPS 2021, Algorithm 1.

The published code hands w to SciPy's SLSQP, which stays where it started when the
gradients are small; this solves the problem exactly at any scale. Where g_w is zero
(the gradients' hull contains zero) the direction g_w / |g_w| is undefined, and d is the
vector nearest to g_0 that conflicts with no task. Products with g_0 are taken from the
gradients themselves, not from their Gramian, where gradients that nearly cancel leave
little but rounding.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_positive
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Mean, Solution, trust_region


@method(
  "cagrad",
  "gradient",
  paper="Liu et al., NeurIPS 2021",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=False,
  gramian_only=True,
  solves=True,
  avoids_conflict=False,
  heads="summed",
  fewest_tasks=1,
  needs=(),
)
def cagrad(
  num_tasks: int,
  *,
  c: jax.typing.ArrayLike = 0.4,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Improves the worst task as far as a ball round the mean gradient allows.

  Args:
    num_tasks: K.
    c: radius of the ball in units of |g_0|; 0 gives the plain sum.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = cagrad(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print([f"{value:.3f}" for value in gradient["x"]])
    ['1.633', '1.724']
  """
  c = check_positive("c", c, or_zero=True)

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    mean = Mean.of(grads.shared, gramian, grads.present)
    # c may be traced; the problem has no ball where it is 0
    radius = jnp.where(c > 0, c, 1.0).astype(jnp.float32)
    solution = trust_region(gramian, mean, radius, grads.present, grads.shared)
    w = jnp.where(c > 0, solution.weights, 0.0)
    return Solution(
      weights=(1 + grads.num_present * w) / (1 + c**2),
      residual=jnp.where(c > 0, solution.residual, 0.0),
    )

  return weighting(
    num_tasks, rule, shared=shared, update_every=update_every, heads="summed"
  )
