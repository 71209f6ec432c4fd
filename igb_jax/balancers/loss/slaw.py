"""Scaled loss approximate weighting (SLAW).

    a <- beta a + (1 - beta) L^2,    b <- beta b + (1 - beta) L,    s = sqrt(a - b^2)

    w_k = (K / s_k) / sum_j (1 / s_j),    weighted loss_k = w_k L_k

so that every weighted loss has the same spread over the steps, for which the gradients
of a task are said to be about as long as its loss is spread. Reference: Crawshaw and
Kosecka, "SLAW: Scaled Loss Approximate Weighting for Efficient Multi-Task Learning",
2021, equations 8 to 10.

a - b^2 is what is left of two numbers that are nearly alike, so we keep s itself:

    s^2 <- beta (s^2 + (1 - beta) (L - b_old)^2)

which is the same number. And one loss that is 1,000 spreads away counts as that far, so
that one outlier, whose square is remembered, does not stop a task for good.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_fraction
from igb_jax.balancers.common import constant_float32, is_valid, softmax_weights
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer

_FARTHEST = 1e3  # spreads
_LEAST = 1e-6  # spread of a loss that does not move, as a share of it


class SLAWState(NamedTuple):
  """State of `slaw`.

  Attributes:
    num_valid: i32[K], valid losses of each task so far.
    mean: f32[K], b.
    spread: f32[K], s.
    weights: f32[K], weights of the latest update.
  """

  num_valid: jax.Array
  mean: jax.Array
  spread: jax.Array
  weights: jax.Array


@method(
  "slaw",
  "loss",
  paper="Crawshaw and Kosecka, 2021",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=True,
  equivariant=True,
  scale_invariant=True,
  takes_log=False,
  normalised=True,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
def slaw(
  num_tasks: int,
  *,
  decay: jax.typing.ArrayLike = 0.99,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """SLAW: weights that give every loss the same spread over the steps.

  A loss that is not positive and finite has the weight 0 and is not remembered.

  Args:
    num_tasks: K.
    decay: beta, of the moving means.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `SLAWState`.

  Example:
    >>> balancer = slaw(2)
    >>> state = balancer.init()
    >>> for losses in ([1.0, 10.0], [2.0, 20.0], [1.0, 10.0]):
    ...   weighted, state = balancer.update(jnp.array(losses), state)
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['1.818', '0.182']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  decay = check_fraction("decay", decay)
  largest = float(jnp.finfo(jnp.float32).max) / 10

  def init(key: jax.Array | None = None) -> SLAWState:
    del key
    return SLAWState(
      num_valid=jnp.zeros(num_tasks, jnp.int32),
      mean=jnp.zeros(num_tasks, jnp.float32),
      spread=jnp.zeros(num_tasks, jnp.float32),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  def update(
    losses: jax.Array, state: SLAWState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, SLAWState]:
    del extra
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    rest = 1 - jnp.float32(decay)
    # s without the zeros that it began with
    seen = 1 - jnp.float32(decay) ** jnp.maximum(state.num_valid, 1)
    unbiased = state.spread / jnp.sqrt(jnp.maximum(seen, _LEAST))
    farthest = jnp.minimum(
      _FARTHEST * jnp.maximum(unbiased, _LEAST * state.mean), largest
    )
    farthest = jnp.where(state.num_valid > 0, farthest, largest)
    change = jnp.clip(constant - state.mean, -farthest, farthest)
    spread = jnp.sqrt(1 - rest) * jnp.hypot(state.spread, jnp.sqrt(rest) * change)
    mean = state.mean + rest * change
    count, mean, spread = (
      jnp.where(valid, new, old)
      for new, old in (
        (state.num_valid + 1, state.num_valid),
        (mean, state.mean),
        (spread, state.spread),
      )
    )
    tiny = jnp.finfo(jnp.float32).tiny
    logits = -jnp.log(jnp.maximum(jnp.maximum(spread, _LEAST * jnp.abs(mean)), tiny))
    weights = softmax_weights(logits, valid)
    return weights * losses, SLAWState(count, mean, spread, weights)

  return loss_balancer(num_tasks, init, update, absent)
