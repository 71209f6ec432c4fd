"""NTKMTL: tasks by the size of their neural tangent kernels.

    w_k = (sum_j |g_j|^2 / |g_k|^2)^exponent,    d = K sum_k w_k g_k

and the shared part of d is then clipped to the norm `max_norm`. With the exponent 0.5
it is the sum of unit gradients, whose length the clipping decides. Reference: Qin et
al., "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent
Kernel Perspective", NeurIPS 2025, section 4.2, with one chunk, as all of its
experiments have it: the kernel of a task is then |g_k|^2. The paper has the mean of the
squares in the place of their sum, and no clipping; we do as its code does.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_positive
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.unit_gradients import inverse_norms
from igb_jax.balancers.gradient.weighting import EVERY_STEP, LARGEST_WEIGHT, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution


@method(
  "ntkmtl",
  "gradient",
  paper="Qin et al., NeurIPS 2025",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=None,
  scale_invariant=True,
  gramian_only=True,
  solves=False,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def ntkmtl(
  num_tasks: int,
  *,
  exponent: jax.typing.ArrayLike = 0.5,
  max_norm: jax.typing.ArrayLike | None = 1.0,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows the task gradients, divided by their norms.

  The weights in the state are those before clipping, with the factor K. They are at
  most 1e34; a zero gradient gets that of the smallest that is not.

  Args:
    num_tasks: K.
    exponent: 0.5; the paper's script for NYUv2 has 0.75.
    max_norm: norm to which the gradient in the shared leaves is clipped; None for no
      bound.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = ntkmtl(num_tasks=2, max_norm=None)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[3.0, 0.0], [0.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"])
    [10. 10.]
  """
  exponent = check_positive("exponent", exponent)

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    inverse, most = inverse_norms(gramian)
    trace = jnp.sum((gramian.norms / most) ** 2)
    logs = exponent * (2 * jnp.log(inverse) + jnp.log(jnp.maximum(trace, 1e-30)))
    weights = jnp.exp(jnp.minimum(logs, jnp.log(LARGEST_WEIGHT)))
    return Solution(jnp.minimum(grads.num_present * weights, LARGEST_WEIGHT))

  return weighting(
    num_tasks, rule, shared=shared, update_every=update_every, max_norm=max_norm
  )
