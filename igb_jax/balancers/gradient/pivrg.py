"""PIVRG: FairGrad for the tasks that have lost most against training alone.

    T = max((max_k s_k - min_k s_k) / log(bound), min_temperature)
    w = K softmax(s / T)
    d = K sum_k x_k g_k,    (G x)_k = (w_k / x_k)^(1/2),  x > 0

and the shared part of d is then clipped to the norm `max_norm`. s_k is by how many per
cent task k is behind a single-task network, at the end of the last epoch (zeros in the
first): no weight is more than `bound` times another. Reference: "Revisiting Fairness in
Multitask Learning: A Performance-Driven Approach for Variance Reduction", CVPR 2025, in
the form of the published code, whose least squares is an exact solution here.
"""

from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_positive
from igb_jax.balancers.common import softmax_weights
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.fairness import alpha_fair, unfairness


@method(
  "pivrg",
  "gradient",
  paper="CVPR 2025",
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
def pivrg(
  num_tasks: int,
  *,
  bound: jax.typing.ArrayLike = 2.0,
  min_temperature: jax.typing.ArrayLike = 10.0,
  max_norm: jax.typing.ArrayLike | None = 1.0,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows a fair direction with more weight for tasks that are behind.

  `update` takes the extra argument `scores`, f32[K]: s, in per cent, more for tasks
  that are further behind. Without it all tasks count alike, which is FairGrad.

  Args:
    num_tasks: K.
    bound: the largest ratio of two weights w, above 1; 1.8 in the published scripts of
      Cityscapes and QM9.
    min_temperature: the least temperature of the softmax; 20 for Cityscapes and 100
      for QM9.
    max_norm: norm to which the gradient in the shared leaves is clipped; None for no
      bound.
    shared: see `weighting`.
    update_every: see `weighting`.

  Raises:
    ValueError: `bound` is not above 1; or, by `update`, `scores` have another shape.

  Example:
    >>> balancer = pivrg(num_tasks=2, max_norm=None)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 1.0]])}
    >>> scores = jnp.array([20.0, 0.0])
    >>> gradient, state = balancer.update(task_grads, state, scores=scores)
    >>> print([f"{value:.3f}" for value in gradient["x"]])
    ['2.201', '1.747']
  """
  bound = check_positive("bound", bound)
  if isinstance(bound, float) and bound <= 1:
    raise ValueError(f"bound must be above 1, got {bound}.")
  min_temperature = check_positive("min_temperature", min_temperature)

  def log_weights(here: jax.Array, scores: Any) -> jax.Array:
    s = jnp.asarray([0.0] * num_tasks if scores is None else scores, jnp.float32)
    if s.shape != (num_tasks,):
      raise ValueError(f"scores must have the shape ({num_tasks},), got {s.shape}.")
    most = jnp.max(s, where=here, initial=-jnp.inf)
    span = most - jnp.min(s, where=here, initial=jnp.inf)
    temperature = jnp.maximum(span / jnp.log(bound), min_temperature)
    weights = softmax_weights(s / temperature, here)
    return jnp.where(here, jnp.log(jnp.where(here, weights, 1.0)), 0.0)

  def rule(grads: TaskGrads, gramian: Gramian, scores: Any = None) -> Solution:
    here = grads.here
    x, residual = alpha_fair(gramian, 2.0, log_weights(here, scores), grads.shared)
    return Solution(jnp.maximum(here.sum(), 1) * x, residual)

  def violation(
    grads: TaskGrads, gramian: Gramian, weights: jax.Array, scores: Any = None
  ) -> jax.Array:
    here = grads.here
    x = weights / jnp.maximum(here.sum(), 1)
    return unfairness(gramian, x, 2.0, log_weights(here, scores), grads.shared)

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    max_norm=max_norm,
    violation=violation,
    extra=("scores",),
  )
