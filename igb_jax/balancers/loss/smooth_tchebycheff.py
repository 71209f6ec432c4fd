"""Smooth Tchebycheff scalarisation (STCH).

Until the end of the epoch `warmup_epochs` the losses are weighed as in "si". With N_k
the mean loss of task k over that epoch, and afterwards

    f = K mu log sum_k exp(log(L_k / N_k) / mu)

    w = K softmax(log(L / N) / mu),    weighted loss_k = w_k log(L_k)

whose gradients are those of f: a smooth maximum of the tasks' progress. Reference: Lin
et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024,
equation 10, with the nadir and the logarithm of the authors' code.
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


class SmoothTchebycheffState(NamedTuple):
  """State of `smooth_tchebycheff`.

  Attributes:
    step: i32[], number of updates so far.
    num_valid: i32[K], valid losses seen in the last epoch of the warm-up.
    nadir: f32[K], their mean so far; N once that epoch has ended.
    weights: f32[K], weights of the latest update.
  """

  step: jax.Array
  num_valid: jax.Array
  nadir: jax.Array
  weights: jax.Array


@method(
  "stch",
  "loss",
  paper="Lin et al., ICML 2024",
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
def smooth_tchebycheff(
  num_tasks: int,
  steps_per_epoch: int,
  *,
  mu: jax.typing.ArrayLike = 1.0,
  warmup_epochs: int = 4,
  epsilon: jax.typing.ArrayLike = 0.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Smooth Tchebycheff: more weight to losses that have fallen least.

  A loss for which L + epsilon is not positive gives NaN for its own task, which has the
  weight 0 at that step. A task without a valid loss in the last epoch of the warm-up
  counts as one that has not fallen.

  Args:
    num_tasks: K.
    steps_per_epoch: number of updates that make an epoch.
    mu: how smooth the maximum is; the smaller, the more weight has the worst task.
    warmup_epochs: the epoch, from 0, over which the nadir is averaged, and after which
      the weights begin.
    epsilon: added to every loss before its logarithm is taken, so that a loss may be 0
      or come close to it.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `SmoothTchebycheffState`.

  Example:
    >>> balancer = smooth_tchebycheff(2, steps_per_epoch=1, warmup_epochs=0)
    >>> state = balancer.init()
    >>> for losses in ([2.0, 2.0], [1.0, 2.0]):
    ...   weighted, state = balancer.update(jnp.array(losses), state)
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.667', '1.333']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
  warmup_epochs = check_count("warmup_epochs", warmup_epochs, minimum=0)
  mu, epsilon = check_positive("mu", mu), check_epsilon(epsilon)
  start = warmup_epochs * steps_per_epoch
  end = start + steps_per_epoch

  def init(key: jax.Array | None = None) -> SmoothTchebycheffState:
    del key
    return SmoothTchebycheffState(
      step=jnp.zeros((), jnp.int32),
      num_valid=jnp.zeros(num_tasks, jnp.int32),
      nadir=jnp.zeros(num_tasks, jnp.float32),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  def update(
    losses: jax.Array,
    state: SmoothTchebycheffState,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[jax.Array, SmoothTchebycheffState]:
    del extra
    constant = constant_float32(losses)
    in_epoch = (state.step >= start) & (state.step < end)
    nadir, count = update_mean(
      state.nadir, state.num_valid, constant, in_epoch & is_valid(constant, present)
    )
    weighable = is_valid(constant + epsilon, present)
    logs = jnp.log(jnp.where(weighable, constant + epsilon, 1.0))
    progress = jnp.where(count > 0, logs - jnp.log(nadir), 0.0)
    weights = softmax_weights(progress / mu, weighable)
    weights = jnp.where(state.step >= end, weights, 1.0)
    return weights * log_losses(losses, epsilon), SmoothTchebycheffState(
      step=increment(state.step), num_valid=count, nadir=nadir, weights=weights
    )

  return loss_balancer(num_tasks, init, update, absent)
