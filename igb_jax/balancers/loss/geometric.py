"""Geometric loss strategy (GLS).

    f = (prod_k L_k)^(1/K),    w_k = df/dL_k = f / (K L_k)

the geometric mean of the losses, so that every weighted loss is f / K. Its gradient has
the direction of that of the sum of the logarithms ("si"), and its length falls with the
losses. Reference: Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and
Geometric Loss Strategy for Multi-Task Learning", CVPR Workshops 2019, equation 2.

The published code multiplies the losses, which over- or underflows; here f is the
exponential of the mean logarithm. A loss of 0, where f has no derivative, counts as the
smallest normal float32.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count
from igb_jax.balancers.common import constant_float32
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class GeometricState(NamedTuple):
  """State of `geometric`.

  Attributes:
    weights: f32[K], weights of the latest update.
  """

  weights: jax.Array


@method(
  "gls",
  "loss",
  paper="Chennupati et al., CVPR Workshops 2019",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=True,
  equivariant=True,
  scale_invariant=True,
  takes_log=False,
  normalised=False,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
def geometric(num_tasks: int, *, absent: Absent = "leave_out") -> LossBalancer:
  """Geometric loss strategy: the geometric mean of the losses.

  A loss that is negative or not finite is left out of the mean and has the weight 0.

  Args:
    num_tasks: K.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `GeometricState`.

  Example:
    >>> balancer = geometric(num_tasks=2)
    >>> weighted, state = balancer.update(jnp.array([1.0, 4.0]), balancer.init())
    >>> print(weighted, state.weights)
    [1. 1.] [1.   0.25]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  limits = jnp.finfo(jnp.float32)
  tiny, largest = float(limits.tiny), float(limits.max)

  def init(key: jax.Array | None = None) -> GeometricState:
    del key
    return GeometricState(weights=jnp.ones(num_tasks, jnp.float32))

  def update(
    losses: jax.Array, state: GeometricState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, GeometricState]:
    del state, extra
    constant = constant_float32(losses)
    usable = jnp.isfinite(constant) & (constant >= 0)
    if present is not None:
      usable &= present
    logs = jnp.log(jnp.where(usable, jnp.maximum(constant, tiny), 1.0))
    count = jnp.maximum(usable.sum(), 1)
    weights = jnp.exp(jnp.sum(logs) / count - logs) / count
    weights = jnp.where(usable, jnp.clip(weights, tiny, largest), 0.0)
    return weights * losses, GeometricState(weights)

  return loss_balancer(num_tasks, init, update, absent)
