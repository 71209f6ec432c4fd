"""Impartial multi-task learning, loss part (IMTL-L).

    weighted loss_k = e^{s_k} L_k - s_k,    w_k = e^{s_k}

The s start at 0 and descend the gradient of the sum of the weighted losses by an Adam
of their own:

    d/ds_k = e^{s_k} L_k - 1

so that every e^s L approaches 1, where w_k = 1 / L_k as in "si". The weights are used
first, then updated. Reference: Liu et al., "Towards Impartial Multi-task Learning",
ICLR 2021, equation 8; with the gradient part it is "imtll+imtlg".

The published code leaves the s to the optimiser of the model. Here outliers among the
derivatives are clipped, see `igb_jax.balancers.loss.descent`; a loss that is not
positive, for which s would rise for ever, leaves s as it was; and s <= log(max_weight).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_count
from igb_jax.balancers.common import LARGEST_LOG
from igb_jax.balancers.loss import descent
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class IMTLLState(NamedTuple):
  """State of `imtl_l`.

  Attributes:
    logits: f32[K], s.
    adam: optax state, one Adam a task (leading axis K).
    weights: f32[K], weights e^s of the latest update.
  """

  logits: jax.Array
  adam: optax.OptState
  weights: jax.Array


@method(
  "imtll",
  "loss",
  paper="Liu et al., ICLR 2021",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=True,
  equivariant=True,
  scale_invariant=False,
  takes_log=False,
  normalised=False,
  positive=True,
  recovers=True,
  ties_tasks=False,
  needs=(),
)
def imtl_l(
  num_tasks: int,
  *,
  learning_rate: jax.typing.ArrayLike = 0.025,
  max_weight: jax.typing.ArrayLike = 1e6,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """IMTL-L: a learnt factor per task that brings every loss to 1.

  A loss that cannot be used (not positive, or not finite) or is absent leaves the
  factor of its task and that task's Adam as they were.

  Args:
    num_tasks: K.
    learning_rate: the learning rate of the Adam of the s.
    max_weight: the largest weight e^s.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `IMTLLState`.

  Example:
    >>> balancer = imtl_l(num_tasks=2)
    >>> state = balancer.init()
    >>> for _ in range(3):
    ...   weighted, state = balancer.update(jnp.array([4.0, 0.25]), state)
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.951', '1.051']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  highest = descent.check_max_weight(max_weight)
  optimizer = descent.adam(learning_rate)

  def init(key: jax.Array | None = None) -> IMTLLState:
    del key
    logits = jnp.full(num_tasks, jnp.minimum(highest(), 0.0))
    return IMTLLState(logits, jax.vmap(optimizer.init)(logits), jnp.exp(logits))

  def update(
    losses: jax.Array, state: IMTLLState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, IMTLLState]:
    del extra
    s = state.logits
    weights = jnp.exp(s)
    gradient = jax.lax.stop_gradient(weights * losses - 1)
    usable = jnp.isfinite(gradient) & (losses > 0)
    if present is not None:
      usable &= present
    new, adam = descent.descend(optimizer, gradient, usable, s, state.adam)
    new = jnp.clip(new, -LARGEST_LOG, highest())
    return weights * losses - s, IMTLLState(new, adam, weights)

  return loss_balancer(num_tasks, init, update, absent)
