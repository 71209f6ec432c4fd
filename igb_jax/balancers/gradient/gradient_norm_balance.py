"""Gradient-norm balance: weights that make all weighted gradients equally long.

    w^_k = sum_j |g_j| / |g_k|,    w_k <- a w_k + (1 - a) w^_k

every 1,000 steps. Reference: Wang et al., "An Expert's Guide to Training
Physics-informed Neural Networks", 2023, Algorithm 1. A common JAX code takes the mean
of the norms in the place of their sum: `reduce="mean"`.
"""

from typing import Literal, cast

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_one_of
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.moving_weights import moving_weights
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian

_SMALLEST = 1e-5  # of the mean norm: what a zero gradient counts as
# 1,000, but no Python int: see EVERY_STEP
_EVERY_THOUSAND_STEPS = cast(int, jnp.dtype("int64").type(1000))


@method(
  "gradbal",
  "gradient",
  paper="Wang et al., 2023",
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
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def gradient_norm_balance(
  num_tasks: int,
  *,
  decay: jax.typing.ArrayLike = 0.9,
  reduce: Literal["sum", "mean"] = "sum",
  shared: Shared = None,
  update_every: int = _EVERY_THOUSAND_STEPS,
) -> GradientBalancer:
  """Follows a weighted sum in which every task gradient becomes equally long.

  A zero gradient counts as 1e-5 times the mean norm. `memory` is w, f32[K].

  Args:
    num_tasks: K.
    decay: a, how much of the weights stays at an update, from 0 to 1.
    reduce: whether w^ has the sum of the norms or their mean.
    shared: see `weighting`; other leaves get the sum with the same weights.
    update_every: see `weighting`.

  Example:
    >>> balancer = gradient_norm_balance(num_tasks=2, decay=0.0)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights, gradient["x"])
    [5.   1.25] [5. 5.]
  """
  check_one_of("reduce", reduce, ("sum", "mean"))

  def estimate(
    grads: TaskGrads, gramian: Gramian, weights: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    del weights
    lengths = gramian.lengths
    total, count = lengths.sum(), jnp.maximum(grads.num_present, 1)
    divisors = jnp.where(gramian.nonzero, lengths, _SMALLEST * total / count)
    # what is lost in the rounding of the longest is longer than nothing
    divisors = jnp.maximum(divisors, jnp.finfo(jnp.float32).tiny)
    aim = total if reduce == "sum" else total / count
    return aim / divisors, jnp.full(num_tasks, gramian.nonzero.any())

  return moving_weights(
    num_tasks,
    estimate,
    decay,
    shared=shared,
    update_every=update_every,
    gramian_only=True,
  )
