"""Smooth Tchebycheff scalarisation of the losses themselves.

    f = mu log sum_k exp(lambda_k (L_k - z_k) / mu)

    w = lambda softmax(lambda (L - z) / mu),    weighted loss_k = w_k L_k

with a preference lambda, 1/K by default, and ideal losses z, 0 by default. As `mu` goes
to 0 all the weight goes to the task that is worst by lambda_k (L_k - z_k).

Reference: Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective
Optimization", ICML 2024, equation 5. `smooth_tchebycheff` is the form of the authors'
code, which compares the tasks' progress and so does not depend on their units.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_positive
from igb_jax.balancers.common import constant_float32, is_known, softmax_shares
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.loss.preference import check_preference, check_reference
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
  needs_positive=False,
  equivariant=True,
  scale_invariant=False,
  takes_log=False,
  normalised=False,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
def smooth_tchebycheff_raw(
  num_tasks: int,
  *,
  mu: jax.typing.ArrayLike,
  preference: Any = None,
  reference: Any = None,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Smooth Tchebycheff on raw losses: the worst task has the most weight.

  A loss that is not finite has the weight 0.

  Args:
    num_tasks: K.
    mu: how smooth the maximum is, in units of the losses; the paper tries 0.01 to 1.
    preference: float[K], 0 or more: lambda; None for 1 / K, K being the number of tasks
      that are present.
    reference: float[K], z, what the losses could be at best; None for zeros.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `SmoothTchebycheffRawState`.

  Example:
    >>> balancer = smooth_tchebycheff_raw(2, mu=0.5)
    >>> _, state = balancer.update(jnp.array([1.0, 2.0]), balancer.init())
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.134', '0.366']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  mu = check_positive("mu", mu)
  ideal = check_reference(reference, num_tasks)
  chosen = None if preference is None else check_preference(preference, num_tasks)
  tiny = float(jnp.finfo(jnp.float32).tiny)

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
    known = is_known(constant, present)
    count = jnp.maximum(known.sum(), 1)
    preferences = jnp.float32(1) / count
    if chosen is not None:
      preferences = jnp.asarray(chosen, jnp.float32)
    excess = jnp.where(known, constant, 0.0) - jnp.asarray(ideal, jnp.float32)
    logits = preferences * excess / mu
    weights = preferences * softmax_shares(logits, known)
    weights = jnp.where(known, jnp.maximum(weights, tiny), 0.0)
    return weights * losses, SmoothTchebycheffRawState(weights)

  return loss_balancer(num_tasks, init, update, absent)
