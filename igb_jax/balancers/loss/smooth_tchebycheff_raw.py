"""Smooth Tchebycheff scalarisation of the losses as they are.

    f = mu log sum_k exp(lambda_k (L_k - z_k) / mu)

    w_k = lambda_k softmax(lambda (L - z) / mu)_k,    weighted loss_k = w_k L_k

with the preference lambda, 1 / K by default, and the reference point z, 0 by default.
Reference: Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective
Optimization", ICML 2024, equation 7. "stch" is the form of the authors' code, which
goes by the logarithms of the losses.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.common import (
  check_count,
  check_positive,
  check_vector,
  constant_float32,
  softmax_weights,
)
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class SmoothTchebycheffRawState(NamedTuple):
  """State of `smooth_tchebycheff_raw`.

  Attributes:
    weights: f32[K], weights of the latest update.
  """

  weights: jax.Array


@method(
  "stchraw",
  "loss",
  paper="Lin et al., ICML 2024",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  equivariant=True,
  scale_invariant=False,
  takes_log=False,
  normalised=False,
  ties_tasks=True,
)
def smooth_tchebycheff_raw(
  num_tasks: int,
  mu: jax.typing.ArrayLike,
  *,
  preference: jax.typing.ArrayLike | None = None,
  reference: jax.typing.ArrayLike | None = None,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Smooth Tchebycheff on the losses themselves: nearly all weight to the largest.

  A loss that is not finite has the weight 0.

  Args:
    num_tasks: K.
    mu: how smooth the maximum is, in units of a loss times lambda; the paper tries 0.01
      to 1.
    preference: lambda, float[K], positive; by default 1 / K, with K the number of tasks
      that are present.
    reference: z, float[K]; by default 0.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `SmoothTchebycheffRawState`.

  Example:
    >>> balancer = smooth_tchebycheff_raw(num_tasks=2, mu=0.5)
    >>> weighted, state = balancer.update(jnp.array([1.0, 2.0]), balancer.init())
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.134', '0.366']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  mu = check_positive("mu", mu)
  if preference is not None:
    preference = check_vector("preference", preference, num_tasks, positive=True)
  if reference is not None:
    reference = check_vector("reference", reference, num_tasks)

  def init(key: jax.Array | None = None) -> SmoothTchebycheffRawState:
    del key
    return SmoothTchebycheffRawState(jnp.full(num_tasks, 1 / num_tasks, jnp.float32))

  def update(
    losses: jax.Array,
    state: SmoothTchebycheffRawState,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[jax.Array, SmoothTchebycheffRawState]:
    del state, extra
    constant = constant_float32(losses)
    usable = jnp.isfinite(constant)
    if present is not None:
      usable &= present
    count = jnp.maximum(usable.sum(), 1).astype(jnp.float32)
    scale = 1 / count if preference is None else jnp.asarray(preference)
    distance = constant if reference is None else constant - reference
    logits = jnp.where(usable, scale * distance / mu, 0.0)
    weights = scale * softmax_weights(logits, usable) / count
    tiny = jnp.finfo(jnp.float32).tiny
    weights = jnp.where(usable, jnp.maximum(weights, tiny), 0.0)
    return weights * losses, SmoothTchebycheffRawState(weights)

  return loss_balancer(num_tasks, init, update, absent)
