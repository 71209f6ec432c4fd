"""Multi-Krum: the mean of the task gradients that are nearest to the others.

    s_i = sum of the K - f - 2 smallest |g_i - g_j| over j != i
    d = mean of the m gradients g_i with the smallest s_i

where up to f gradients may be arbitrary. It was made for workers, some of whom may be
faulty, rather than for tasks. Reference: Blanchard et al., "Machine Learning with
Adversaries: Byzantine Tolerant Gradient Descent", NIPS 2017, section 4, with distances
in the place of their squares, as TorchJD has it.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution


@method(
  "krum",
  "gradient",
  paper="Blanchard et al., NIPS 2017",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=False,
  gramian_only=True,
  solves=False,
  avoids_conflict=False,
  heads="summed",
  fewest_tasks=3,
  needs=(),
)
def krum(
  num_tasks: int,
  *,
  num_byzantine: int = 0,
  num_selected: int = 1,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows the mean of the task gradients that are nearest to the others.

  The distances come from the Gramian: those below 1e-3 of the gradients' norms are
  rounding. Of two with the same score the shorter gradient is taken. Where each is
  compared with one other alone, as with three tasks, two always have the same score,
  and the first is taken; so there the order of the tasks matters. A gradient that is
  not finite is not left out, but shows. Where so many tasks are absent that none would
  be compared, each is compared with the nearest other.

  Args:
    num_tasks: K, at least f + 3.
    num_byzantine: f, how many gradients may be arbitrary, 0 or more.
    num_selected: m, from 1 to K.
    shared: see `weighting`; other leaves get the plain sum, or the heads of tasks that
      are not selected would learn nothing.
    update_every: see `weighting`.

  Raises:
    ValueError: K is below f + 3, or m above K.

  Example:
    >>> balancer = krum(num_tasks=3)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [1.0, 0.5], [-9.0, 9.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"], state.weights)
    [1. 0.] [1. 0. 0.]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  num_byzantine = check_count("num_byzantine", num_byzantine, minimum=0)
  num_selected = check_count("num_selected", num_selected)
  if num_tasks < num_byzantine + 3:
    raise ValueError(
      f"krum needs num_tasks of at least num_byzantine + 3 = {num_byzantine + 3}, got "
      f"{num_tasks}."
    )
  if num_selected > num_tasks:
    raise ValueError(
      f"num_selected must be at most num_tasks = {num_tasks}, got {num_selected}."
    )

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    here = grads.here
    count = here.sum()
    pairs = here[:, None] & here & ~jnp.eye(num_tasks, dtype=bool)
    nearest_first = jnp.sort(jnp.where(pairs, _distances(gramian), jnp.inf), axis=1)
    compared = jnp.arange(num_tasks) < jnp.maximum(count - num_byzantine - 2, 1)
    scores = jnp.sum(nearest_first, axis=1, where=compared)
    # equal but for rounding, unless each is compared with one other
    shorter_first = jnp.where(compared.sum() > 1, gramian.norms, 0.0)
    order = jnp.lexsort((shorter_first, scores, ~here))  # stable
    selected = jnp.arange(num_tasks) < jnp.minimum(num_selected, count)
    share = selected.astype(jnp.float32) / jnp.clip(count, 1, num_selected)
    return Solution(jnp.zeros(num_tasks).at[order].set(share))

  return weighting(
    num_tasks, rule, shared=shared, update_every=update_every, heads="summed"
  )


def _distances(gramian: Gramian) -> jax.Array:
  """f32[K, K]: distances of the gradients, relative to the largest norm."""
  norms, cosines = gramian
  longer = jnp.maximum(norms, norms[:, None])
  ratio = jnp.minimum(norms, norms[:, None]) / jnp.where(longer > 0, longer, 1.0)
  # neither of the terms is negative
  squares = (1 - ratio) ** 2 + 2 * ratio * jnp.maximum(1 - cosines, 0.0)
  largest = norms.max()
  distances = longer / jnp.where(largest > 0, largest, 1.0) * jnp.sqrt(squares)
  return jnp.maximum(distances, distances.T)  # or rounding breaks ties
