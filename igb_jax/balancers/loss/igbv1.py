"""Improvable gap balancing, heuristic form (IGBv1).

After the base epoch, task k of K weighs

    w = K softmax(min(L / L_base, max_gap)),    weighted loss_k = w_k log(L_k + epsilon)

with L_base the mean losses of the base epoch: L / L_base is the improvable gap, how
far a task still is from a loss of zero. Before that, w = 1. Reference: Dai et al.,
"Improvable Gap Balancing for Multi-Task Learning", UAI 2023, Algorithm 1.

The paper has neither `max_gap` nor `epsilon`, and by default they change nothing. Where
a loss rises far above its base, the softmax gives its task all the weight: base losses
of 1 and 1e-3 that become 1 and 5e-2 have gaps of 1 and 50, and weights of 1e-21 and 2.
A physics-informed net is such a case, which starts near a trivial solution that fulfils
its boundary terms. A `max_gap` of 2, say, bounds the ratio of two weights by e^2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_epsilon, check_positive
from igb_jax.balancers.common import (
  constant_float32,
  increment,
  is_valid,
  log_losses,
  softmax_weights,
  update_mean,
)
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class IGBv1State(NamedTuple):
  """State of `igbv1`.

  Attributes:
    step: i32[], number of updates so far.
    base_count: i32[K], valid losses seen in the base epoch.
    base_losses: f32[K], their mean so far; L_base once the base epoch has ended.
    weights: f32[K], weights of the latest update.
  """

  step: jax.Array
  base_count: jax.Array
  base_losses: jax.Array
  weights: jax.Array


@method(
  "igbv1",
  "loss",
  paper="Dai et al., UAI 2023",
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
  ties_tasks=True,
  needs=(),
)
def igbv1(
  num_tasks: int,
  steps_per_epoch: int,
  *,
  base_epoch: int = 1,
  max_gap: jax.typing.ArrayLike | None = None,
  epsilon: jax.typing.ArrayLike = 0.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Improvable gap balancing by a softmax of the gaps.

  A loss for which L + epsilon is not positive gives NaN for its own task, which has the
  weight 0 at that step. One that is not positive never enters the base losses. A task
  without a valid loss in the whole base epoch (its `base_count` is 0) counts with a gap
  of 1.

  Args:
    num_tasks: K.
    steps_per_epoch: number of updates that make an epoch.
    base_epoch: the epoch, from 0, over which the base losses are averaged.
    max_gap: the largest L / L_base that counts; None for no limit, as in the paper.
    epsilon: added to every loss before its logarithm is taken, so that a loss may be 0
      or come close to it.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `IGBv1State`.

  Example:
    >>> import jax.numpy as jnp
    >>> balancer = igbv1(num_tasks=2, steps_per_epoch=1)
    >>> state = balancer.init()
    >>> for losses in ([3.0, 3.0], [2.0, 2.0], [1.0, 2.0]):
    ...   weighted, state = balancer.update(jnp.array(losses), state)

    The first task has half of its gap left, the second all of it:

    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.755', '1.245']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
  base_epoch = check_count("base_epoch", base_epoch, minimum=0)
  if max_gap is not None:
    max_gap = check_positive("max_gap", max_gap)
  epsilon = check_epsilon(epsilon)
  base_start = base_epoch * steps_per_epoch
  base_end = base_start + steps_per_epoch

  def init(key: jax.Array | None = None) -> IGBv1State:
    del key
    return IGBv1State(
      step=jnp.zeros((), jnp.int32),
      base_count=jnp.zeros(num_tasks, jnp.int32),
      base_losses=jnp.zeros(num_tasks, jnp.float32),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  def update(
    losses: jax.Array, state: IGBv1State, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, IGBv1State]:
    del extra
    constant = constant_float32(losses)
    valid = is_valid(constant, present)

    in_base_epoch = (state.step >= base_start) & (state.step < base_end)
    base_losses, base_count = update_mean(
      state.base_losses, state.base_count, constant, in_base_epoch & valid
    )
    gap = jnp.where(base_count > 0, constant / base_losses, 1.0)
    if max_gap is not None:
      gap = jnp.minimum(gap, max_gap)
    weighable = is_valid(constant + epsilon, present)
    weights = jnp.where(state.step >= base_end, softmax_weights(gap, weighable), 1.0)
    return weights * log_losses(losses, epsilon), IGBv1State(
      step=increment(state.step),
      base_count=base_count,
      base_losses=base_losses,
      weights=weights,
    )

  return loss_balancer(num_tasks, init, update, absent)
