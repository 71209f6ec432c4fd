"""Uncertainty weighting with a softmax (UW-SO).

    w = softmax(1 / (T L)),    weighted loss_k = w_k L_k

The optimal weights of uncertainty weighting are 1 / L; a softmax with a temperature
takes them the place in which they are not so extreme. Reference: Kirchdorfer et al.,
"Analytical Uncertainty-Based Loss Weighting in Multi-Task Learning", GCPR 2024,
equation 9.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_positive
from igb_jax.balancers.common import constant_float32, is_valid, softmax_shares
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class UncertaintySoftmaxState(NamedTuple):
  """State of `uncertainty_softmax`.

  Attributes:
    weights: f32[K], weights of the latest update.
  """

  weights: jax.Array


@method(
  "uwso",
  "loss",
  paper="Kirchdorfer et al., GCPR 2024",
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
  ties_tasks=True,
  needs=(),
)
def uncertainty_softmax(
  num_tasks: int,
  *,
  temperature: jax.typing.ArrayLike = 1.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """UW-SO: more weight to small losses, which are held to be certain.

  The weights sum to 1. Tune the temperature: where 1 / (T L) differs by 10 between
  tasks, that with the larger loss is hardly trained. A loss that is not positive and
  finite has the weight 0.

  Args:
    num_tasks: K.
    temperature: T, in units of 1 / loss; the larger, the more equal the weights.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `UncertaintySoftmaxState`.

  Example:
    >>> balancer = uncertainty_softmax(2)
    >>> _, state = balancer.update(jnp.array([0.5, 1.0]), balancer.init())
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.731', '0.269']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  temperature = check_positive("temperature", temperature)

  def init(key: jax.Array | None = None) -> UncertaintySoftmaxState:
    del key
    return UncertaintySoftmaxState(jnp.full(num_tasks, 1 / num_tasks, jnp.float32))

  def update(
    losses: jax.Array,
    state: UncertaintySoftmaxState,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[jax.Array, UncertaintySoftmaxState]:
    del state, extra
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    logits = 1 / (temperature * jnp.where(valid, constant, 1.0))
    weights = softmax_shares(logits, valid)
    return weights * losses, UncertaintySoftmaxState(weights)

  return loss_balancer(num_tasks, init, update, absent)
