"""Trimmed mean: in every coordinate the mean without its largest and smallest entries.

    d_p = mean of g_kp over k, without the b largest and the b smallest

It was made for workers, some of whom may be faulty, rather than for tasks. Reference:
Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
ICML 2018, definition 2.
"""

from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count
from igb_jax.balancers.gradient.base import (
  Combined,
  GradientBalancer,
  GradientState,
  gradient_balancer,
)
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers.products import accumulator, beside


@method(
  "trimmed",
  "gradient",
  paper="Yin et al., ICML 2018",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=False,
  gramian_only=False,
  solves=False,
  avoids_conflict=False,
  heads="summed",
  fewest_tasks=3,
  needs=(),
)
def trimmed_mean(
  num_tasks: int, *, trim: int = 1, shared: Shared = None
) -> GradientBalancer:
  """Follows the mean of the task gradients without the extremes of each coordinate.

  The result is not a sum of the task gradients, so the weights in the state are ones.
  Where tasks are absent, as many entries are trimmed as leave one. A number that is not
  finite is not trimmed, but shows in the result. Sorting takes the memory of K
  gradients of the largest leaf.

  Args:
    num_tasks: K, at least 2 b + 1.
    trim: b, how many entries are left out at either end, 0 or more.
    shared: see `weighting`; other leaves get the plain sum.

  Raises:
    ValueError: K is below 2 b + 1.

  Example:
    >>> balancer = trimmed_mean(num_tasks=3)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [2.0, 5.0], [-9.0, 9.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"])
    [1. 5.]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  trim = check_count("trim", trim, minimum=0)
  if num_tasks < 2 * trim + 1:
    raise ValueError(
      f"trimmed_mean needs num_tasks of at least 2 trim + 1 = {2 * trim + 1}, got "
      f"{num_tasks}."
    )

  def combine(grads: TaskGrads, state: GradientState, **extra: Any) -> Combined:
    del extra
    count = jnp.maximum(grads.num_present, 1)
    trimmed = jnp.minimum(trim, (count - 1) // 2)
    position = jnp.arange(num_tasks)
    share = (position >= trimmed) & (position < count - trimmed)
    share = share / (count - 2 * trimmed).astype(jnp.float32)

    def mean(leaf: jax.Array) -> jax.Array:
      dtype = accumulator(leaf)
      finite = jnp.isfinite(leaf).all(axis=0)
      if grads.present is not None:  # the absent stand last, where the share is 0
        leaf = jnp.where(beside(grads.present, leaf), leaf, jnp.finfo(leaf.dtype).max)
      terms = beside(share.astype(dtype), leaf) * jnp.sort(leaf, axis=0)
      return jnp.where(finite, terms.sum(axis=0), jnp.nan).astype(leaf.dtype)

    leaves = [mean(leaf) for leaf in grads.all]
    if grads.present is not None:
      leaves = [jnp.where(grads.present.any(), leaf, 0) for leaf in leaves]
    ones = jnp.ones(num_tasks, jnp.float32)
    return Combined(leaves, ones, state._replace(weights=ones, gramian=grads.gramian()))

  return gradient_balancer(num_tasks, combine, shared=shared)
