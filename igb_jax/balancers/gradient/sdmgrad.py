"""Stochastic direction-oriented multi-objective gradient (SDMGrad).

    w = argmin over the simplex of (w + lambda / K)^T A (w + lambda / K)
    d = (sum_k w_k g_k + lambda mean_k g_k) / (1 + lambda)

With A the Gramian of the gradients this is the shortest vector in the convex hull of
g_k + lambda mean_j g_j, and is solved as that. Reference: Xiao, Ban and Ji,
"Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
Algorithms", NeurIPS 2023, equation 6.

With `steps=` w comes from the published loop instead, which starts where the last call
ended and descends with momentum 0.5; with published step sizes it does not converge
where tasks agree little. There A may also be J_1 J_2^T of two batches, which is free of
bias and no Gramian.
"""

from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_positive
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.second_batch import cross_products
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.linear import dot
from igb_jax.balancers.solvers.min_norm import min_norm
from igb_jax.balancers.solvers.simplex import descend, shares

_MOMENTUM = 0.5


@method(
  "sdmgrad",
  "gradient",
  paper="Xiao, Ban and Ji, NeurIPS 2023",
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
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def sdmgrad(
  num_tasks: int,
  *,
  regularisation: jax.typing.ArrayLike = 0.3,
  learning_rate: jax.typing.ArrayLike = 10.0,
  steps: int | None = None,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows the shortest vector in the convex hull, drawn to the mean gradient.

  With `steps`, `update` takes an extra argument for a second batch: `task_grads_2`,
  stacked like the first, or `cross_gramian`, f32[K, K], the inner products <g_i, h_j>
  of two batches, which alone is for gradients in features (`trunk=`). `task_grads`,
  which is summed, may then be a third. `memory` is w, f32[K]; None without `steps`.

  Args:
    num_tasks: K.
    regularisation: lambda, 0 or more; 0 is MGDA.
    learning_rate: the learning rate of the published loop, so only with `steps`; 5 in
      LibMTL.
    steps: the number of steps of the published loop, 20 there; None for the exact
      solution.
    shared: see `weighting`; other leaves get the sum with the same weights.
    update_every: see `weighting`.

  Raises:
    ValueError: by `update`, both extra arguments are given, or one without `steps`, or
      one has another shape.

  Example:
    >>> balancer = sdmgrad(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print([f"{value:.2f}" for value in gradient["x"]])
    ['0.80', '0.40']
  """
  lam = check_positive("regularisation", regularisation, or_zero=True)
  learning_rate = check_positive("learning_rate", learning_rate)
  if steps is not None:
    steps = check_count("steps", steps)

  def mixed(w: jax.Array, here: jax.Array) -> jax.Array:
    equal = here.astype(jnp.float32) / jnp.maximum(here.sum(), 1)
    return (w + lam * equal) / (1 + lam)

  def exact(
    grads: TaskGrads, gramian: Gramian, *, task_grads_2: Any, cross_gramian: Any
  ) -> Solution:
    if task_grads_2 is not None or cross_gramian is not None:
      raise ValueError(
        "the exact solution is that of one batch; with task_grads_2 or cross_gramian "
        "make the balancer with steps=20, the published loop."
      )
    here = grads.here
    if isinstance(lam, float) and lam == 0:
      drawn = gramian
    else:
      drawn = _drawn_to_the_mean(gramian, lam, here)
    w, residual = min_norm(drawn, here)
    return Solution(mixed(w, here), residual)

  def loop(
    grads: TaskGrads,
    gramian: Gramian,
    *,
    memory: jax.Array,
    task_grads_2: Any,
    cross_gramian: Any,
  ) -> tuple[Solution, jax.Array]:
    here = grads.here
    count = jnp.maximum(here.sum(), 1)
    products = cross_products(grads, shared, task_grads_2, cross_gramian)
    products = gramian.relative if products is None else products
    mean = jnp.sum(jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0.0))) / count
    divisor = jnp.where(mean > 0, mean, 1.0)
    products = products / divisor / divisor
    pull = lam * jnp.sum(products, axis=1) / count
    start, total = shares(memory, here)

    def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
      w, momentum = carry
      momentum = _MOMENTUM * momentum + dot(products, w) + pull
      return descend(w, learning_rate * momentum, here), momentum

    zero = jnp.zeros_like(pull)
    w, _ = jax.lax.fori_loop(0, steps or 0, step, (start + zero, zero))
    return Solution(mixed(w, here)), jnp.where(here, total * w, memory)

  return weighting(
    num_tasks,
    exact if steps is None else loop,
    shared=shared,
    update_every=update_every,
    memory=None
    if steps is None
    else lambda *_: jnp.full(num_tasks, 1 / num_tasks, jnp.float32),
    extra=("task_grads_2", "cross_gramian"),
  )


def _drawn_to_the_mean(gramian: Gramian, lam: Any, here: jax.Array) -> Gramian:
  """The Gramian of g_k + lambda mean_j g_j, in units of the largest norm.

  Args:
    gramian: the Gramian of the g_k.
    lam: lambda, f32[].
    here: bool[K], the tasks that are present; the others are zero.
  """
  products = gramian.relative
  added = lam * jnp.sum(products, axis=1) / jnp.maximum(here.sum(), 1)
  square = lam * jnp.sum(added) / jnp.maximum(here.sum(), 1)
  products += added[:, None] + added + square
  norms = jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0.0))
  norms = jnp.where(here, norms, 0.0)
  nonzero = norms > 0
  divisors = jnp.where(nonzero, norms, 1.0)
  # where a gradient and the drawn mean cancel, rounding is all that is left
  cosines = jnp.clip(products / divisors[:, None] / divisors, -1.0, 1.0)
  cosines = jnp.where(nonzero[:, None] & nonzero, cosines, 0.0)
  return Gramian(norms, jnp.where(jnp.diag(nonzero), 1.0, cosines))
