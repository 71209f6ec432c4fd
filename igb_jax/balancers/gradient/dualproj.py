"""DualProj: the mean gradient, projected so that it conflicts with no task.

    minimise  |d - mean_k g_k|^2   subject to  g_k . d >= 0 for every k

whose solution is d = sum_k v_k g_k with v = argmin |sum_k v_k g_k|^2 over v >= 1 / K.
Reference: Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning",
NIPS 2017, section 3, as TorchJD has it for tasks. TorchJD adds 1e-4 to the diagonal of
a Gramian of trace 1, so that its result conflicts with small gradients, and is the mean
where all are small; ours depends on no units. Where two gradients are opposed to within
1e-3 of their size, float32 does not leave enough of them for an exact result.
"""

import jax.numpy as jnp

from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.dual_cone import project


@method(
  "dualproj",
  "gradient",
  paper="Lopez-Paz and Ranzato, NIPS 2017",
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
def dualproj(
  num_tasks: int, *, shared: Shared = None, update_every: int = EVERY_STEP
) -> GradientBalancer:
  """Follows the vector nearest to the mean gradient that conflicts with no task.

  Args:
    num_tasks: K.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = dualproj(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[2.0, 0.0], [-4.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights.round(4))
    [1.  0.5]
  """

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    count = jnp.maximum(grads.num_present, 1)
    y, residual = project(gramian, gramian.norms, grads.shared)
    norms = jnp.where(gramian.nonzero, gramian.norms, 1.0)
    return Solution(jnp.where(gramian.nonzero, y / norms, 1.0) / count, residual)

  return weighting(num_tasks, rule, shared=shared, update_every=update_every)
