"""Weights of any gradient balancer that weighs, smoothed over the steps (CRMOGM).

    lambda_t = a lambda_{t-1} + (1 - a) w_t,    lambda_0 = w_0

    d = sum_k lambda_k g_k

Reference: Zhou et al., "On the Convergence of Stochastic Multi-Objective Gradient
Manipulation and Beyond", NeurIPS 2022, Algorithm 1. There a rises to 1 as the learning
rate falls; here it is constant.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_fraction
from igb_jax.balancers.gradient.base import GradientBalancer, check_weighs
from igb_jax.balancers.gradient.stacked import TaskGrads


class SmoothedMemory(NamedTuple):
  """What `smooth_weights` keeps beside, second in `GradientState.memory`.

  Attributes:
    weights: f32[K], lambda.
    known: bool[K], which tasks have had a weight.
  """

  weights: jax.Array
  known: jax.Array


def smooth_weights(
  balancer: GradientBalancer, decay: jax.typing.ArrayLike = 0.9
) -> GradientBalancer:
  """The same gradient balancer with a moving mean of its weights.

  The result may conflict with a task even where that of the balancer never does. The
  mean of a task that is absent stays as it is.

  Args:
    balancer: one that weighs the task gradients, see `igb_jax.balancers.weighting`.
    decay: a, from 0 to 1.

  Raises:
    TypeError: `balancer` is not a gradient balancer.
    ValueError: it has no weights of task gradients; or `decay` is not from 0 to 1.

  Example:
    >>> from igb_jax.balancers import mgda
    >>> balancer = smooth_weights(mgda(num_tasks=2), decay=0.5)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> for scale in (1.0, 3.0):
    ...   task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, scale]])}
    ...   gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights)  # of 1, 1 and then 1.8, 0.2
    [1.4 0.6]
  """
  decay = check_fraction("decay", decay)
  if not isinstance(balancer, GradientBalancer):
    raise TypeError(
      "smooth_weights takes a gradient balancer, got "
      f"{type(balancer).__name__}; pass .gradient of what create returns."
    )
  rewrap = check_weighs("smooth_weights", balancer)

  def smooth(
    weights: jax.Array, grads: TaskGrads, memory: SmoothedMemory
  ) -> tuple[jax.Array, SmoothedMemory]:
    mean = decay * memory.weights + (1 - decay) * weights
    mean = jnp.where(memory.known, mean, weights).astype(jnp.float32)
    known = jnp.ones_like(memory.known)
    if grads.present is not None:
      mean = jnp.where(grads.present, mean, memory.weights)
      known = memory.known | grads.present
    return mean, SmoothedMemory(mean, known)

  def start() -> SmoothedMemory:
    ones = jnp.ones(balancer.num_tasks, jnp.float32)
    return SmoothedMemory(ones, jnp.zeros(balancer.num_tasks, bool))

  return rewrap(smooth, start)
