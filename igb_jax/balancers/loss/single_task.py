"""Single-task learning (STL): one task of the K.

    weighted loss_k = L_k if k = task else 0,    w = one-hot of the task

K such runs, one per task, are the baseline of delta_m.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_index
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class SingleTaskState(NamedTuple):
  """State of `single_task`.

  Attributes:
    weights: f32[K], one for the task, unless it was absent; zero for the others.
  """

  weights: jax.Array


@method(
  "stl",
  "loss",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=False,
  equivariant=False,
  scale_invariant=True,
  takes_log=False,
  normalised=False,
  positive=False,
  recovers=True,
  ties_tasks=False,
  needs=(),
)
def single_task(
  num_tasks: int, task: int, *, absent: Absent = "leave_out"
) -> LossBalancer:
  """Trains one task alone.

  The weighted losses of the others are 0 even where the losses are NaN. Their gradients
  are multiplied by 0, which leaves NaN where a gradient is NaN itself.

  Args:
    num_tasks: K.
    task: which task to train, from 0 to K - 1.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `SingleTaskState`.

  Example:
    >>> import jax.numpy as jnp
    >>> balancer = single_task(num_tasks=3, task=1)
    >>> losses = jnp.array([jnp.nan, 5.0, 2.0])
    >>> weighted, state = balancer.update(losses, balancer.init())
    >>> print(weighted)
    [0. 5. 0.]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  task = check_index("task", task, num_tasks)

  def init(key: jax.Array | None = None) -> SingleTaskState:
    del key
    return SingleTaskState(weights=jax.nn.one_hot(task, num_tasks, dtype=jnp.float32))

  def update(
    losses: jax.Array, state: SingleTaskState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, SingleTaskState]:
    del state, present, extra
    return jnp.where(jnp.arange(num_tasks) == task, losses, 0.0), init()

  return loss_balancer(num_tasks, init, update, absent)
