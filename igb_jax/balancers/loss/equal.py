"""Equal weighting (EW), also called linear scalarisation (LS).

    weighted loss_k = L_k,    w_k = 1

The baseline of multi-task learning: the sum of the losses as they are.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class EqualState(NamedTuple):
  """State of `equal`.

  Attributes:
    weights: f32[K], ones; 0 for a task that was absent.
  """

  weights: jax.Array


@method(
  "ew",
  "loss",
  alias="ls",
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
  ties_tasks=False,
  needs=(),
)
def equal(num_tasks: int, *, absent: Absent = "leave_out") -> LossBalancer:
  """Equal weighting: the losses as they are.

  Args:
    num_tasks: K.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `EqualState`.

  Example:
    >>> import jax.numpy as jnp
    >>> balancer = equal(num_tasks=3)
    >>> weighted, state = balancer.update(jnp.array([3.0, 1.0, 2.0]), balancer.init())
    >>> print(weighted)
    [3. 1. 2.]
  """
  num_tasks = check_count("num_tasks", num_tasks)

  def init(key: jax.Array | None = None) -> EqualState:
    del key
    return EqualState(weights=jnp.ones(num_tasks, jnp.float32))

  def update(
    losses: jax.Array, state: EqualState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, EqualState]:
    del state, present, extra
    return losses, init()

  return loss_balancer(num_tasks, init, update, absent)
