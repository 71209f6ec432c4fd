"""Rounds of updates of the agent, at the steps at which one is due."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.common import all_finite
from igb_jax.balancers.sac.agent import Agent, AgentState, Noise
from igb_jax.balancers.sac.replay import Replay, sample


def rounds(
  agent: Agent,
  num_tasks: int,
  *,
  num_updates: int,
  batch_size: int,
  buffer_size: int,
) -> Callable[..., tuple[AgentState, jax.Array]]:
  """Makes the function that trains the agent at a step, if a round is due.

  With k = 1 + fill of the buffer it takes int(25 k) updates, each on int(128 k)
  transitions drawn with replacement; 25 and 128 are the defaults of IGBv2.

  Args:
    agent: what is trained.
    num_tasks: K.
    num_updates: the number of updates of a round with an empty buffer.
    batch_size: transitions of an update with an empty buffer.
    buffer_size: transitions that the buffer can hold.

  Returns:
    `learn_if(due, state, replay, key) -> (state, rejected)`: `due` is bool[], `key` a
    PRNG key, and `rejected`, i32[], how many updates were undone because a number was
    not finite.
  """

  def learn(
    state: AgentState, replay: Replay, key: jax.Array
  ) -> tuple[AgentState, jax.Array]:
    """One round of updates; returns the agent and how many had to be undone."""
    # int(25 k) and int(128 k), k = 1 + size / buffer_size, exactly
    updates = num_updates + num_updates * replay.size // buffer_size
    transitions = batch_size + batch_size * replay.size // buffer_size
    mask = (jnp.arange(2 * batch_size) < transitions).astype(jnp.float32)

    def body(index, carry):
      state, num_rejected = carry
      keys = jax.random.split(jax.random.fold_in(key, index), 3)
      batch = sample(replay, 2 * batch_size, keys[0])
      shape = (2 * batch_size, num_tasks)
      noise = Noise(*(jax.random.normal(key, shape, jnp.float32) for key in keys[1:]))
      proposed = agent.update(state, batch, noise, mask)
      good = all_finite(proposed)
      state = optax.tree.where(good, proposed, state)
      return state, num_rejected + ~good

    return jax.lax.fori_loop(0, updates, body, (state, jnp.zeros((), jnp.int32)))

  return _conditional(learn)


def _skip(state, replay, key):
  """What happens instead of `learn`: nothing."""
  del replay, key
  return state, jnp.zeros((), jnp.int32)


def _conditional(learn: Callable[..., Any], skip: Callable[..., Any] = _skip):
  """`learn_if(due, *operands)`: `learn` if due, else `skip`; under vmap a branch too.

  `jax.vmap` turns a `cond` on a mapped predicate into a select that always takes both
  ways; here the agents of all seeds learn if any is due, and only then. The rule calls
  itself, so that this holds under nested vmaps.
  """

  @jax.custom_batching.custom_vmap
  def learn_if(due, *operands):
    return jax.lax.cond(due, learn, skip, *operands)

  @learn_if.def_vmap
  def learn_if_any(axis_size, in_batched, *arguments):
    due, *operands = jax.tree.map(
      lambda leaf, batched: (
        leaf if batched else jnp.broadcast_to(leaf, (axis_size, *jnp.shape(leaf)))
      ),
      arguments,
      tuple(in_batched),
    )

    def learn_those_due(due, *operands):
      def learn_one(due, *operands):
        return optax.tree.where(due, learn(*operands), skip(*operands))

      return jax.vmap(learn_one)(due, *operands)

    def skip_all(due, *operands):
      del due
      return jax.vmap(skip)(*operands)

    outputs = _conditional(learn_those_due, skip_all)(due.any(), due, *operands)
    return outputs, jax.tree.map(lambda _: True, outputs)

  return learn_if
