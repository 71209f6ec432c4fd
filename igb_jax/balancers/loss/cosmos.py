"""COSMOS: a weighted sum that is drawn towards a ray of preferences.

    f = r . L - penalty cos(r, L),    w_k = df/dL_k,    weighted loss_k = w_k L_k

    dcos/dL = (r / |r| - cos(r, L) L / |L|) / |L|

Reference: Ruchte and Grabocka, "Scalable Pareto Front Approximation for Deep
Multi-Objective Learning", ICDM 2021, equation 8. The full method also feeds r to the
network, which is not a balancer's work: sample preferences there, and make one balancer
a preference.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_positive
from igb_jax.balancers.common import constant_float32, is_known
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.loss.preference import check_preference, unit
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class CosmosState(NamedTuple):
  """State of `cosmos`.

  Attributes:
    weights: f32[K], weights of the latest update, which may be negative.
  """

  weights: jax.Array


@method(
  "cosmos",
  "loss",
  paper="Ruchte and Grabocka, ICDM 2021",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=False,
  equivariant=True,
  scale_invariant=False,
  takes_log=False,
  normalised=False,
  positive=False,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
def cosmos(
  num_tasks: int,
  preference: Any,
  *,
  penalty: jax.typing.ArrayLike = 1.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """COSMOS: losses in the proportions of a preference vector.

  Weights may be negative: a loss that is below its share is let rise. A loss that is
  not finite has the weight 0.

  Args:
    num_tasks: K.
    preference: float[K], 0 or more: r, how large the losses are to be beside each
      other.
    penalty: the penalty of the angle; 0 for the weighted sum alone.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `CosmosState`.

  Example:
    >>> balancer = cosmos(2, preference=[1.0, 1.0])
    >>> _, state = balancer.update(jnp.array([3.0, 4.0]), balancer.init())
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.977', '1.017']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  chosen = check_preference(preference, num_tasks)
  penalty = check_positive("penalty", penalty, or_zero=True)
  largest = float(jnp.finfo(jnp.float32).max) / num_tasks

  def init(key: jax.Array | None = None) -> CosmosState:
    del key
    return CosmosState(jnp.asarray(chosen, jnp.float32))

  def update(
    losses: jax.Array, state: CosmosState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, CosmosState]:
    del state, extra
    r, constant = jnp.asarray(chosen, jnp.float32), constant_float32(losses)
    known = is_known(constant, present)
    preferred, _ = unit(jnp.where(known, r, 0.0))
    current, norm = unit(jnp.where(known, constant, 0.0))
    turn = preferred - jnp.sum(preferred * current) * current
    turn = jnp.where(norm > 0, turn / jnp.maximum(norm, 1 / largest), 0.0)
    weights = jnp.where(known, jnp.clip(r - penalty * turn, -largest, largest), 0.0)
    return weights * losses, CosmosState(weights)

  return loss_balancer(num_tasks, init, update, absent)
