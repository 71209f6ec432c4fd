"""Aligned-MTL: task gradients made orthogonal and equally long, as near as possible.

    G = V diag(l) V^T,    B = V diag(sqrt(s / l)) V^T,    d = sum_k (B 1 / K)_k g_k

over the eigenvalues l of the Gramian that are not lost in rounding. s is the smallest
of these ("min"), the lower of their two middle ones ("median"), or their mean ("rmse",
the choice of the authors' first code). Reference: Senushkin et al., "Independent
Component Alignment for Multi-Task Learning", CVPR 2023, section 4. LibMTL's result is K
times as long.

In float32 an eigenvalue below 1e-7 K times the largest is rounding, and left out. Where
gradients differ by a factor of a thousand, float64 would keep it; with "min" the length
of the whole result follows the smallest one kept.
"""

from typing import Literal

import jax.numpy as jnp

from igb_jax.balancers.checks import check_one_of
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.linear import dot

_EPS = float(jnp.finfo(jnp.float32).eps)


@method(
  "aligned",
  "gradient",
  paper="Senushkin et al., CVPR 2023",
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
  fewest_tasks=1,
  needs=(),
)
def aligned_mtl(
  num_tasks: int,
  *,
  scale: Literal["min", "median", "rmse"] = "min",
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows the mean of the task gradients after they were made orthogonal.

  Weights may be negative.

  Args:
    num_tasks: K.
    scale: which eigenvalue of the Gramian all of them become.
    shared: see `weighting`; other leaves get the plain sum, since a head with a
      negative weight would ascend its loss.
    update_every: see `weighting`.

  Example:
    >>> balancer = aligned_mtl(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"].round(4), state.weights.round(4))
    [0.5 0.5] [0.5   0.125]
  """
  check_one_of("scale", scale, ("min", "median", "rmse"))

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    count = jnp.maximum(grads.num_present, 1)
    values, vectors = jnp.linalg.eigh(gramian.relative)
    kept = values > num_tasks * _EPS * values[-1]
    divisors = jnp.where(kept, values, 1.0)
    rank = kept.sum()
    smallest = num_tasks - rank  # eigenvalues ascend
    if scale == "rmse":
      s = jnp.sum(values, where=kept) / jnp.maximum(rank, 1)
    else:
      middle = smallest + jnp.maximum(rank - 1, 0) // 2
      s = values[middle if scale == "median" else jnp.minimum(smallest, num_tasks - 1)]
    factors = jnp.where(kept, jnp.sqrt(jnp.maximum(s, 0.0) / divisors), 0.0)
    aim = grads.here.astype(jnp.float32)
    aligned = dot(vectors * factors, dot(vectors.T, aim))
    return Solution(jnp.where(gramian.nonzero.any(), aligned, 1.0) / count)

  return weighting(
    num_tasks, rule, shared=shared, update_every=update_every, heads="summed"
  )
