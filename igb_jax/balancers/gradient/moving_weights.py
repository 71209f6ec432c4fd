"""Balancers whose weights follow an estimate, as physics-informed nets use them.

    w_k <- a w_k + (1 - a) w^_k,    w_k = 1 before the first update
    d = sum_k w_k g_k

A method's file says what w^ is.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_fraction
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import LARGEST_WEIGHT, weighting
from igb_jax.balancers.solvers import Gramian, Solution

# `estimate(grads, gramian, weights) -> (w^ f32[K], where it is known bool[K])`
Estimate = Callable[[TaskGrads, Gramian, jax.Array], tuple[jax.Array, jax.Array]]


def moving_weights(
  num_tasks: int,
  estimate: Estimate,
  decay: jax.typing.ArrayLike,
  *,
  shared: Shared,
  update_every: int,
  gramian_only: bool = False,
) -> GradientBalancer:
  """Makes a gradient balancer of an estimate of the weights.

  `memory` is w, f32[K]; that of a task stays as it is where its estimate is not known,
  or the task is absent.

  Args:
    num_tasks: K.
    estimate: see `Estimate`.
    decay: a, from 0 to 1.
    shared: see `weighting`.
    update_every: see `weighting`.
    gramian_only: see `weighting`.

  Raises:
    ValueError: `decay` is not from 0 to 1.
  """
  decay = check_fraction("decay", decay)

  def rule(
    grads: TaskGrads, gramian: Gramian, *, memory: jax.Array
  ) -> tuple[Solution, jax.Array]:
    estimated, known = estimate(grads, gramian, memory)
    if grads.present is not None:
      known = known & grads.present
    moved = decay * memory + (1 - decay) * jnp.minimum(estimated, LARGEST_WEIGHT)
    weights = jnp.where(known, moved, memory).astype(jnp.float32)
    return Solution(weights), weights

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    gramian_only=gramian_only,
    holds_absent=True,
    memory=lambda *_: jnp.ones(num_tasks, jnp.float32),
  )
