"""Scale-invariant loss (SI): the sum of the logarithms of the losses.

    weighted loss_k = log(L_k + epsilon),    w_k = 1

Its gradient is that of L_k divided by L_k + epsilon. With an epsilon of 0, the default,
the unit of a loss does not matter. Reference: the baseline "SI" of Navon et al.,
"Multi-Task Learning as a Bargaining Game", ICML 2022, section 5; the first part of IGB
(Dai et al., UAI 2023, section 3.1).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_epsilon
from igb_jax.balancers.common import log_losses
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class ScaleInvariantState(NamedTuple):
  """State of `scale_invariant`.

  Attributes:
    weights: f32[K], ones; 0 for a task that was absent.
  """

  weights: jax.Array


@method(
  "si",
  "loss",
  paper="Navon et al., ICML 2022",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=True,
  equivariant=True,
  scale_invariant=True,
  takes_log=True,
  normalised=True,
  positive=True,
  recovers=True,
  ties_tasks=False,
  needs=(),
)
def scale_invariant(
  num_tasks: int,
  *,
  epsilon: jax.typing.ArrayLike = 0.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Scale-invariant weighting: the logarithm of every loss.

  A loss that is not positive has no logarithm: its weighted loss is NaN. As a loss goes
  to 0 its gradient, divided by the loss, outgrows all others; `epsilon` bounds that.

  Args:
    num_tasks: K.
    epsilon: added to every loss before its logarithm is taken, so that a loss may be 0
      or come close to it.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `ScaleInvariantState`.

  Example:
    >>> import jax.numpy as jnp
    >>> balancer = scale_invariant(num_tasks=2)
    >>> weighted, state = balancer.update(jnp.array([1.0, 0.0]), balancer.init())
    >>> print(weighted)
    [ 0. nan]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  epsilon = check_epsilon(epsilon)

  def init(key: jax.Array | None = None) -> ScaleInvariantState:
    del key
    return ScaleInvariantState(weights=jnp.ones(num_tasks, jnp.float32))

  def update(
    losses: jax.Array,
    state: ScaleInvariantState,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[jax.Array, ScaleInvariantState]:
    del state, present, extra
    return log_losses(losses, epsilon), init()

  return loss_balancer(num_tasks, init, update, absent)
