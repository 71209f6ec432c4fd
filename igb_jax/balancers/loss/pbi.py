"""Penalty-based boundary intersection (PBI).

    u = r / |r|,    d = (L - z) . u,    p = L - z - d u

    f = d + theta sqrt(|p|^2 + 1e-12)

    w_k = df/dL_k = u_k + theta p_k / sqrt(|p|^2 + 1e-12),  weighted loss_k = w_k L_k

the way along a ray of preferences, and theta times the distance from it. Reference:
Zhang and Li, "MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition",
IEEE Transactions on Evolutionary Computation, 2007, equation 5, as TorchJD has it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_positive
from igb_jax.balancers.common import constant_float32, is_known
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.loss.preference import check_preference, check_reference, unit
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer

_SMOOTHING = 1e-6  # of the distance, whose gradient has no value on the ray


class PBIState(NamedTuple):
  """State of `pbi`.

  Attributes:
    weights: f32[K], weights of the latest update, which may be negative.
  """

  weights: jax.Array


@method(
  "pbi",
  "loss",
  paper="Zhang and Li, 2007",
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
def pbi(
  num_tasks: int,
  preference: Any,
  *,
  theta: jax.typing.ArrayLike = 5.0,
  reference: Any = None,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """PBI: down a ray of preferences, with a penalty for leaving it.

  Weights may be negative: a loss that is below its share is let rise. A loss that is
  not finite has the weight 0.

  Args:
    num_tasks: K.
    preference: float[K], 0 or more: r, how large the losses are to be beside each
      other.
    theta: the factor of the distance from the ray.
    reference: float[K], z, what the losses could be at best; None for zeros.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `PBIState`.

  Example:
    >>> balancer = pbi(2, preference=[1.0, 1.0], theta=0.5)
    >>> _, state = balancer.update(jnp.array([3.0, 4.0]), balancer.init())
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.354', '1.061']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  chosen = check_preference(preference, num_tasks)
  ideal = check_reference(reference, num_tasks)
  theta = check_positive("theta", theta, or_zero=True)

  def init(key: jax.Array | None = None) -> PBIState:
    del key
    return PBIState(unit(jnp.asarray(chosen, jnp.float32))[0])

  def update(
    losses: jax.Array, state: PBIState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, PBIState]:
    del state, extra
    constant = constant_float32(losses)
    known = is_known(constant, present)
    ray, _ = unit(jnp.where(known, jnp.asarray(chosen, jnp.float32), 0.0))
    way, length = unit(
      jnp.where(known, constant - jnp.asarray(ideal, jnp.float32), 0.0)
    )
    aside, sine = unit(way - jnp.sum(way * ray) * ray)
    distance = length * sine
    share = distance / jnp.hypot(distance, _SMOOTHING)
    weights = jnp.where(known, ray + theta * share * aside, 0.0)
    return weights * losses, PBIState(weights)

  return loss_balancer(num_tasks, init, update, absent)
