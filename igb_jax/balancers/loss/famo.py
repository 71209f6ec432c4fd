"""Fast adaptive multitask optimisation (FAMO).

    z = softmax(s),    w_k = (z_k / L_k) / sum_i (z_i / L_i)

and the weighted losses are w_k L_k. After the step, with L' the losses of the same
batch, the logits s descend by an Adam of their own what makes the slowest task improve
fastest:

    d/ds_k = z_k (delta_k - sum_i z_i delta_i) + gamma s_k,  delta = log L - log L'

Reference: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023,
Algorithm 1.

L' takes one more forward pass, by `observe`. Where nobody calls it, or with `delayed`,
the losses of the next batch take the place of L', which is noisier. The published code
adds 1e-8 to every loss; here a loss that is not positive is left out instead, so that
no unit of a loss matters. The clipping of gradients in the paper is without effect in
the published code, and is left to the optimiser here.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_bool, check_count, check_positive
from igb_jax.balancers.common import constant_float32, is_valid, softmax_shares
from igb_jax.balancers.loss import descent
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class FAMOState(NamedTuple):
  """State of `famo`.

  Attributes:
    logits: f32[K], s.
    adam: optax state, one Adam a task (leading axis K).
    logs: f32[K], log L of the latest update.
    known: bool[K], which of them are to be compared with the losses after the step;
      none once they were.
    weights: f32[K], weights of the latest update.
  """

  logits: jax.Array
  adam: optax.OptState
  logs: jax.Array
  known: jax.Array
  weights: jax.Array


@method(
  "famo",
  "loss",
  paper="Liu et al., NeurIPS 2023",
  forward_passes=2,
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
def famo(
  num_tasks: int,
  *,
  learning_rate: jax.typing.ArrayLike = 0.025,
  weight_decay: jax.typing.ArrayLike = 1e-3,
  delayed: bool = False,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """FAMO: weights that make the losses fall at the same relative rate.

  The weights sum to 1. A loss that is not positive and finite has the weight 0, and
  says nothing to the logits.

  Args:
    num_tasks: K.
    learning_rate: the learning rate of the logits' Adam.
    weight_decay: gamma.
    delayed: whether the losses of the next batch are taken for those after the step, so
      that no second forward pass is needed.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `FAMOState`. It has `observe` unless `delayed`.

  Example:
    >>> balancer = famo(num_tasks=2)
    >>> state = balancer.init()
    >>> weighted, state = balancer.update(jnp.array([1.0, 3.0]), state)
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.750', '0.250']
    >>> state = balancer.observe(jnp.array([0.5, 3.0]), state)
    >>> [f"{logit:.3f}" for logit in state.logits]  # less for the one that has fallen
    ['-0.025', '0.025']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  delayed = check_bool("delayed", delayed)
  weight_decay = check_positive("weight_decay", weight_decay, or_zero=True)
  optimizer = descent.adam(learning_rate)

  def init(key: jax.Array | None = None) -> FAMOState:
    del key
    logits = jnp.zeros(num_tasks, jnp.float32)
    return FAMOState(
      logits=logits,
      adam=jax.vmap(optimizer.init)(logits),
      logs=jnp.copy(logits),
      known=jnp.zeros(num_tasks, bool),
      weights=jnp.full(num_tasks, 1 / num_tasks, jnp.float32),
    )

  def learn(
    losses: jax.Array, state: FAMOState, present: jax.Array | None
  ) -> FAMOState:
    constant = constant_float32(losses)
    known = state.known & is_valid(constant, present)
    delta = jnp.where(known, state.logs - _log(constant, known), 0.0)
    z = jax.nn.softmax(state.logits, where=known)
    gradient = z * (delta - jnp.sum(z * delta)) + weight_decay * state.logits
    usable = known & (known.sum() > 1)  # one alone is not compared
    logits, adam = descent.descend(
      optimizer, gradient, usable, state.logits, state.adam
    )
    return state._replace(logits=logits, adam=adam, known=jnp.zeros_like(known))

  def update(
    losses: jax.Array, state: FAMOState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, FAMOState]:
    del extra
    state = learn(losses, state, present)
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    logs = _log(constant, valid)
    weights = softmax_shares(state.logits - logs, valid)
    return weights * losses, state._replace(logs=logs, known=valid, weights=weights)

  return loss_balancer(
    num_tasks, init, update, absent, observe=None if delayed else learn
  )


def _log(losses: jax.Array, valid: jax.Array) -> jax.Array:
  return jnp.log(jnp.where(valid, losses, 1.0))
