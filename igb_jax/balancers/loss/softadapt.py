"""SoftAdapt.

    w = K softmax(beta s),    s_k = L_k(t) - L_k(t - 1),    weighted loss_k = w_k L_k

so that what rises gets more weight. `normalized` divides s by sum_k |s_k|; with
`loss_weighted` the weights are those of the softmax times L_k, with the sum 1.
Reference: Heydari et al., "SoftAdapt: Techniques for Adaptive Loss Weighting of Neural
Networks with Multi-Part Loss Functions", 2019, Algorithm 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_bool, check_count, check_number
from igb_jax.balancers.common import (
  constant_float32,
  is_valid,
  softmax_shares,
  softmax_weights,
)
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class SoftAdaptState(NamedTuple):
  """State of `softadapt`.

  Attributes:
    previous: f32[K], the latest valid loss of each task.
    seen: bool[K], which tasks have had one.
    weights: f32[K], weights of the latest update.
  """

  previous: jax.Array
  seen: jax.Array
  weights: jax.Array


@method(
  "softadapt",
  "loss",
  paper="Heydari et al., 2019",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=False,
  equivariant=True,
  scale_invariant=False,
  takes_log=False,
  normalised=True,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
def softadapt(
  num_tasks: int,
  *,
  beta: jax.typing.ArrayLike = 0.1,
  normalized: bool = False,
  loss_weighted: bool = False,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """SoftAdapt: more weight to losses that rise.

  A task that had no valid loss before counts as one that neither rises nor falls.

  Args:
    num_tasks: K.
    beta: the factor in the softmax, in units of 1 / loss unless `normalized`. The
      larger it is, the less equal the weights; a negative one favours what falls.
    normalized: whether the changes are divided by the sum of their sizes.
    loss_weighted: whether a weight is proportional to the loss as well.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `SoftAdaptState`.

  Example:
    >>> balancer = softadapt(num_tasks=2, beta=1.0)
    >>> state = balancer.init()
    >>> for losses in ([2.0, 2.0], [1.0, 2.0]):
    ...   weighted, state = balancer.update(jnp.array(losses), state)
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.538', '1.462']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  beta = check_number("beta", beta)
  normalized = check_bool("normalized", normalized)
  loss_weighted = check_bool("loss_weighted", loss_weighted)

  def init(key: jax.Array | None = None) -> SoftAdaptState:
    del key
    return SoftAdaptState(
      previous=jnp.ones(num_tasks, jnp.float32),
      seen=jnp.zeros(num_tasks, bool),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  def update(
    losses: jax.Array, state: SoftAdaptState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, SoftAdaptState]:
    del extra
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    change = jnp.where(valid & state.seen, constant - state.previous, 0.0)
    if normalized:
      largest = jnp.max(jnp.abs(change))
      change /= jnp.where(largest > 0, largest, 1.0)  # whose sum may overflow
      change /= jnp.maximum(jnp.sum(jnp.abs(change)), 1.0)
    logits = beta * change
    if loss_weighted:
      counted = jnp.where(valid, constant, 1.0)  # those with no size do not differ
      logits += jnp.where(constant == 0, -jnp.inf, jnp.log(counted))
    weigh = softmax_shares if loss_weighted else softmax_weights
    weights = weigh(logits, present)
    return weights * losses, SoftAdaptState(
      previous=jnp.where(valid, constant, state.previous),
      seen=state.seen | valid,
      weights=weights,
    )

  return loss_balancer(num_tasks, init, update, absent)
