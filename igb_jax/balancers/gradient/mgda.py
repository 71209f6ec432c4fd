"""Multiple gradient descent algorithm (MGDA).

    w = argmin |sum_k w_k g_k|^2  over w >= 0, sum_k w_k = 1,    d = sum_k K w_k g_k

-d lowers every loss, or is zero where none can fall without another's rise. References:
Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization",
Comptes Rendus Mathématique 2012; Sener and Koltun, "Multi-Task Learning as
Multi-Objective Optimization", NeurIPS 2018.

The published code stops its Frank-Wolfe iteration early, above all where the answer is
one task alone; this solves the problem exactly. The factor K, by which the weights
compare with those of a plain sum, is that of the code of IGB and Nash-MTL.
"""

from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution, min_norm


@method(
  "mgda",
  "gradient",
  paper="Sener and Koltun, NeurIPS 2018",
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
def mgda(
  num_tasks: int, *, shared: Shared = None, update_every: int = EVERY_STEP
) -> GradientBalancer:
  """Follows the shortest vector in the convex hull of the task gradients.

  The weights sum to K, which counts the tasks that are present. Tasks whose shared
  gradient is zero share the whole weight.

  Args:
    num_tasks: K.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> import jax.numpy as jnp
    >>> balancer = mgda(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"], state.weights)
    [1.6 0.8] [1.6 0.4]
  """

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    solution = min_norm(gramian, grads.present, grads.shared)
    return solution._replace(weights=grads.num_present * solution.weights)

  return weighting(num_tasks, rule, shared=shared, update_every=update_every)
