"""UPGrad: the mean of the task gradients, each turned until it conflicts with none.

    d = mean_k p_k,    p_k = argmin |p - g_k|^2  subject to  g_j . p >= 0 for every j

p_k = sum_j v_j g_j with v = argmin |sum_j v_j g_j|^2 over v >= e_k. Reference: Quinton
and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, section 3. The
published code (TorchJD) adds 1e-4 to the diagonal of a Gramian of trace 1, so that its
result conflicts with small gradients, and is the mean where all are small; ours solves
with the cosines, exactly and at any scale.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, LARGEST_WEIGHT, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.dual_cone import project


@method(
  "upgrad",
  "gradient",
  paper="Quinton and Rey, 2024",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=False,
  gramian_only=True,
  solves=True,
  avoids_conflict=True,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def upgrad(
  num_tasks: int, *, shared: Shared = None, update_every: int = EVERY_STEP
) -> GradientBalancer:
  """Follows the mean of the task gradients, each turned until it conflicts with none.

  Args:
    num_tasks: K.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = upgrad(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[2.0, 0.0], [-2.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"].round(4), state.weights.round(4))
    [0.5 1.5] [1.   0.75]
  """

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    count = jnp.maximum(grads.num_present, 1)
    nonzero = gramian.nonzero
    turned, residuals = jax.vmap(lambda one: project(gramian, one))(
      jnp.diag(nonzero.astype(jnp.float32))
    )
    norms = jnp.where(nonzero, gramian.norms, 1.0)
    # turned[k, j]: of the unit gradient j in the projection of the unit gradient k
    weights = jnp.sum(turned * (norms[:, None] / norms), axis=0)
    weights = jnp.where(nonzero, jnp.minimum(weights, LARGEST_WEIGHT), 1.0) / count
    return Solution(weights, jnp.max(jnp.asarray(residuals)))

  return weighting(num_tasks, rule, shared=shared, update_every=update_every)
