"""Random loss weighting (RLW).

    w = K softmax(z),  z ~ N(0, I) fresh at every step
    weighted loss_k = w_k L_k,    or w_k log(L_k + epsilon) in the log form

Reference: Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test
for Multi-Task Learning", TMLR 2022, section 3, with the normal distribution.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_epsilon
from igb_jax.balancers.common import (
  key_data,
  log_losses,
  softmax_weights,
  split_key_data,
)
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class RandomLossWeightingState(NamedTuple):
  """State of `random_loss_weighting`.

  Attributes:
    key: u32[2], data of the threefry key of the next draw.
    weights: f32[K], weights of the latest update; they sum to K, or to the number of
      tasks that were present.
  """

  key: jax.Array
  weights: jax.Array


@method(
  "rlw",
  "loss",
  paper="Lin et al., TMLR 2022",
  fixed={"log": False},
  forward_passes=1,
  backward_passes="1",
  draws=True,
  needs_positive=False,
  equivariant=False,
  scale_invariant=False,
  takes_log=False,
  normalised=True,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
@method(
  "rlwlog",
  "loss",
  paper="Lin et al., TMLR 2022",
  fixed={"log": True},
  forward_passes=1,
  backward_passes="1",
  draws=True,
  needs_positive=True,
  equivariant=False,
  scale_invariant=True,
  takes_log=True,
  normalised=True,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
def random_loss_weighting(
  num_tasks: int,
  *,
  log: bool = False,
  epsilon: jax.typing.ArrayLike = 0.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Random loss weighting: fresh random weights at every step.

  Args:
    num_tasks: K.
    log: weigh the logarithms of the losses ("rlwlog"). A loss that is not positive
      then gives NaN for its own task.
    epsilon: in the log form, added to every loss before its logarithm is taken, so that
      a loss may be 0 or come close to it.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `RandomLossWeightingState`. Its `init` needs a key and
    raises ValueError without one.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> balancer = random_loss_weighting(num_tasks=3)
    >>> state = balancer.init(jax.random.key(0))
    >>> weighted, state = balancer.update(jnp.ones(3), state)
    >>> print(f"{weighted.sum():.3f}")
    3.000
  """
  num_tasks = check_count("num_tasks", num_tasks)
  epsilon = check_epsilon(epsilon, log=log)

  def init(key: jax.Array | None = None) -> RandomLossWeightingState:
    return RandomLossWeightingState(
      key=key_data(key, "random_loss_weighting"),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  def update(
    losses: jax.Array,
    state: RandomLossWeightingState,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[jax.Array, RandomLossWeightingState]:
    del extra
    carry, key = split_key_data(state.key)
    logits = jax.random.normal(key, (num_tasks,), jnp.float32)
    weights = softmax_weights(logits, present)
    weighted = weights * (log_losses(losses, epsilon) if log else losses)
    return weighted, RandomLossWeightingState(key=carry, weights=weights)

  return loss_balancer(num_tasks, init, update, absent)
