"""Relative loss balancing with random lookback (ReLoBRaLo).

    b(t, t') = K softmax(L(t) / (T L(t')))
    w(t) = a (rho w(t-1) + (1 - rho) b(t, 0)) + (1 - a) b(t, t-1),    w(0) = 1

with rho drawn at each step, 1 with the probability `lookback` and else 0; the weighted
losses are w_k L_k. What has fallen least since the step before, and now and then since
the first, gets more weight. Reference: Bischof and Kraus, "Multi-Objective Loss
Balancing for Physics-Informed Deep Learning", 2021, equations 14 and 15.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_fraction, check_positive
from igb_jax.balancers.common import (
  constant_float32,
  is_valid,
  key_data,
  softmax_weights,
  split_key_data,
)
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class ReLoBRaLoState(NamedTuple):
  """State of `relobralo`.

  Attributes:
    key: u32[2], data of the threefry key of the next draw.
    first: f32[K], the first valid loss of each task, L(0).
    previous: f32[K], the latest, L(t-1).
    seen: bool[K], which tasks have had one.
    averages: f32[K], w(t-1) of all tasks.
    weights: f32[K], weights of the latest update.
  """

  key: jax.Array
  first: jax.Array
  previous: jax.Array
  seen: jax.Array
  averages: jax.Array
  weights: jax.Array


@method(
  "relobralo",
  "loss",
  paper="Bischof and Kraus, 2021",
  forward_passes=1,
  backward_passes="1",
  draws=True,
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
def relobralo(
  num_tasks: int,
  *,
  decay: jax.typing.ArrayLike = 0.999,
  temperature: jax.typing.ArrayLike = 1.0,
  lookback: jax.typing.ArrayLike = 0.999,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """ReLoBRaLo: more weight to losses that have fallen least, with random lookback.

  A loss that is not positive and finite leaves the average of its task as it was. Its
  `init` needs a key.

  Args:
    num_tasks: K.
    decay: a, from 0 to 1, of the average.
    temperature: T; the larger, the more equal the weights.
    lookback: from 0 to 1, how often the average goes on from the step before instead of
      from the ratio to the first losses.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `ReLoBRaLoState`.

  Example:
    >>> balancer = relobralo(num_tasks=2, decay=0.5)
    >>> state = balancer.init(jax.random.key(0))
    >>> for losses in ([2.0, 2.0], [1.0, 2.0]):
    ...   weighted, state = balancer.update(jnp.array(losses), state)
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.878', '1.122']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  decay = check_fraction("decay", decay)
  temperature = check_positive("temperature", temperature)
  lookback = check_fraction("lookback", lookback)

  def init(key: jax.Array | None = None) -> ReLoBRaLoState:
    ones = jnp.ones((4, num_tasks), jnp.float32)
    return ReLoBRaLoState(
      key=key_data(key, "relobralo"),
      first=ones[0],
      previous=ones[1],
      seen=jnp.zeros(num_tasks, bool),
      averages=ones[2],
      weights=ones[3],
    )

  def update(
    losses: jax.Array, state: ReLoBRaLoState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, ReLoBRaLoState]:
    del extra
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    key, draw = split_key_data(state.key)
    rho = jax.random.bernoulli(draw, lookback)
    known = valid & state.seen

    def balance(reference: jax.Array) -> jax.Array:
      return softmax_weights(constant / reference / temperature, known)

    kept = jnp.where(rho, state.averages, balance(state.first))
    mixed = decay * kept + (1 - decay) * balance(state.previous)
    tiny = jnp.finfo(jnp.float32).tiny
    averages = jnp.where(known, jnp.maximum(mixed, tiny), state.averages)
    here = jnp.ones(num_tasks, bool) if present is None else present
    share = here.sum() / jnp.maximum(jnp.sum(averages, where=here), tiny)
    weights = jnp.maximum(share * averages, tiny)
    return weights * losses, ReLoBRaLoState(
      key=key,
      first=jnp.where(valid & ~state.seen, constant, state.first),
      previous=jnp.where(valid, constant, state.previous),
      seen=state.seen | valid,
      averages=averages,
      weights=weights,
    )

  return loss_balancer(num_tasks, init, update, absent)
