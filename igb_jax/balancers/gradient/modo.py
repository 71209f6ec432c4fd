"""Multi-objective gradient with double sampling (MoDo).

    w <- the point of the simplex nearest to w - gamma (A w + rho w),    A = J_1 J_2^T
    d = sum_k w_k g_k

with J_1 and J_2 the task gradients of two batches, which make A w free of bias; with
one batch A is its Gramian. Reference: Chen et al., "Three-Way Trade-Off in
Multi-Objective Learning: Optimization, Generalization and Conflict-Avoidance", NeurIPS
2023, Algorithm 1.

gamma and rho are those of LibMTL. gamma is absolute: how fast w moves depends on the
units of the losses.
"""

from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_positive
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.second_batch import cross_products
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.linear import dot
from igb_jax.balancers.solvers.simplex import descend, shares, times


@method(
  "modo",
  "gradient",
  paper="Chen et al., NeurIPS 2023",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=None,
  scale_invariant=False,
  gramian_only=True,
  solves=False,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def modo(
  num_tasks: int,
  *,
  step_size: jax.typing.ArrayLike = 1e-3,
  rho: jax.typing.ArrayLike = 0.1,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows a weighted sum whose weights descend like MGDA's, a little a step.

  `update` takes an extra argument for a second batch: `task_grads_2`, stacked like the
  first, or `cross_gramian`, f32[K, K], the inner products <g_i, h_j> of the first
  batch's gradients with the second's, which alone is for gradients in features
  (`trunk=`). What is summed is `task_grads`. For the paper's form with two batches,
  pass the mean of their gradients as `task_grads`, and `cross_gramian`. For three, pass
  the third and the `cross_gramian` of the others. `memory` is w, f32[K].

  Args:
    num_tasks: K.
    step_size: gamma, of the weights.
    rho: how strongly the weights are drawn to be equal, 0 or more.
    shared: see `weighting`; other leaves get the sum with the weights w.
    update_every: see `weighting`.

  Raises:
    ValueError: by `update`, both extra arguments are given, or have another shape.

  Example:
    >>> balancer = modo(num_tasks=2, step_size=0.1, rho=0.0)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print([f"{value:.3f}" for value in gradient["x"]])
    ['0.575', '0.850']
  """
  step_size = check_positive("step_size", step_size)
  rho = check_positive("rho", rho, or_zero=True)

  def rule(
    grads: TaskGrads,
    gramian: Gramian,
    *,
    memory: jax.Array,
    task_grads_2: Any = None,
    cross_gramian: Any = None,
  ) -> tuple[Solution, jax.Array]:
    here = grads.here
    products = cross_products(grads, shared, task_grads_2, cross_gramian)
    w, total = shares(memory, here)
    slope = times(gramian, w) if products is None else dot(products, w)
    w = descend(w, step_size * (slope + rho * w), here)
    return Solution(w), jnp.where(here, total * w, memory)

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    memory=lambda *_: jnp.full(num_tasks, 1 / num_tasks, jnp.float32),
    extra=("task_grads_2", "cross_gramian"),
  )
