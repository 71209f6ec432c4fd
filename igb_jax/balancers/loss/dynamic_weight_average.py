"""Dynamic weight average (DWA).

    r_k = mean of L_k over the newer half of a window / mean over its older half
    w = K softmax(r / T)
    weighted loss_k = w_k L_k,    or w_k log(L_k + epsilon) in the log form

Reference: Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019,
section 3.3, equation 7.

The paper takes the means over the two latest epochs. Published code, followed here,
takes them over steps: the two halves of the last 2 x 25 loss vectors, the current
one included, with weights of 1 for the first 26 steps. The window holds ones at first,
which count in the ratios of steps 27 to 50.

That is fair only as long as all tasks have as many losses. Once one lacks a loss that
can be used, a task whose own window is not full of its losses has the ratio 1.
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
)
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class DynamicWeightAverageState(NamedTuple):
  """State of `dynamic_weight_average`.

  Attributes:
    step: i32[], number of updates so far.
    num_valid: i32[K], valid losses of every task so far.
    window: f32[2 window, K], the latest valid losses of every task, newest last.
    weights: f32[K], weights of the latest update; they sum to K, or to the number of
      tasks that were present.
  """

  step: jax.Array
  num_valid: jax.Array
  window: jax.Array
  weights: jax.Array


@method(
  "dwa",
  "loss",
  paper="Liu et al., CVPR 2019",
  fixed={"log": False},
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=True,
  equivariant=True,
  scale_invariant=False,
  takes_log=False,
  normalised=True,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
@method(
  "dwalog",
  "loss",
  paper="Liu et al., CVPR 2019",
  fixed={"log": True},
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
def dynamic_weight_average(
  num_tasks: int,
  *,
  window: int = 25,
  temperature: jax.typing.ArrayLike = 2.0,
  log: bool = False,
  epsilon: jax.typing.ArrayLike = 0.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Dynamic weight average: more weight to losses that fall more slowly.

  A loss that is not positive and finite does not enter the window of its task.

  Args:
    num_tasks: K.
    window: steps in each of the two halves that are compared.
    temperature: T; the larger, the more equal the weights.
    log: weigh the logarithms of the losses ("dwalog"). A loss that is not positive
      then gives NaN for its own task.
    epsilon: in the log form, added to every loss before its logarithm is taken, so that
      a loss may be 0 or come close to it.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `DynamicWeightAverageState`.

  Example:
    >>> import jax.numpy as jnp
    >>> balancer = dynamic_weight_average(num_tasks=2, window=1)
    >>> state = balancer.init()
    >>> for losses in ([8.0, 8.0], [4.0, 7.0], [2.0, 6.0]):
    ...   weighted, state = balancer.update(jnp.array(losses), state)

    The second falls more slowly:

    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.911', '1.089']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  window = check_count("window", window)
  epsilon = check_epsilon(epsilon, log=log)
  temperature = check_positive("temperature", temperature)

  def init(key: jax.Array | None = None) -> DynamicWeightAverageState:
    del key
    return DynamicWeightAverageState(
      step=jnp.zeros((), jnp.int32),
      num_valid=jnp.zeros(num_tasks, jnp.int32),
      window=jnp.ones((2 * window, num_tasks), jnp.float32),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  def update(
    losses: jax.Array,
    state: DynamicWeightAverageState,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[jax.Array, DynamicWeightAverageState]:
    del extra
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    step = increment(state.step)
    count = jnp.where(valid, increment(state.num_valid), state.num_valid)
    history = jnp.where(valid, jnp.vstack([state.window[1:], constant]), state.window)
    # of the largest, since sums of losses may overflow, and their means vanish
    relative = history / history.max(axis=0)
    older, newer = relative.reshape(2, window, num_tasks).sum(axis=1)
    # a task that never had a loss holds nobody back
    in_step = ((count == step) | (count == 0)).all()
    has_ratio = jnp.where(in_step, count > window + 1, count >= 2 * window)
    ratio = jnp.where(has_ratio, newer / older, 1.0)
    weights = jnp.where(
      has_ratio.any(), softmax_weights(ratio / temperature, present), 1.0
    )
    weighted = weights * (log_losses(losses, epsilon) if log else losses)
    return weighted, DynamicWeightAverageState(
      step=step, num_valid=count, window=history, weights=weights
    )

  return loss_balancer(num_tasks, init, update, absent)
