"""Replay: a ring buffer of transitions, as arrays in the state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Transitions(NamedTuple):
  """N transitions, or one where the leading axis is missing.

  Attributes:
    losses: f32[N, K], the states s.
    weights: f32[N, K], the actions a taken there.
    reward: f32[N], r.
    next_losses: f32[N, K], the states s' that followed.
  """

  losses: jax.Array
  weights: jax.Array
  reward: jax.Array
  next_losses: jax.Array


class Replay(NamedTuple):
  """A ring buffer; the oldest transition makes room for the newest.

  Attributes:
    transitions: `Transitions` with N the capacity.
    size: i32[], how many of them are there.
    next_slot: i32[], where the next one goes.
  """

  transitions: Transitions
  size: jax.Array
  next_slot: jax.Array


def empty(capacity: int, num_tasks: int) -> Replay:
  """A buffer without transitions.

  Args:
    capacity: how many transitions it can hold.
    num_tasks: K.
  """
  return Replay(
    Transitions(
      losses=jnp.zeros((capacity, num_tasks), jnp.float32),
      weights=jnp.zeros((capacity, num_tasks), jnp.float32),
      reward=jnp.zeros(capacity, jnp.float32),
      next_losses=jnp.zeros((capacity, num_tasks), jnp.float32),
    ),
    size=jnp.zeros((), jnp.int32),
    next_slot=jnp.zeros((), jnp.int32),
  )


def add(replay: Replay, transition: Transitions, condition: jax.Array) -> Replay:
  """Stores one transition where a condition holds.

  Args:
    replay: the buffer.
    transition: one transition, without the leading axis.
    condition: bool[], whether to store it.

  Returns:
    The buffer, changed in place where the old one is donated or carried.
  """
  capacity = len(replay.transitions.reward)
  slot = replay.next_slot

  def store(buffer: jax.Array, value: jax.Array) -> jax.Array:
    return buffer.at[slot].set(jnp.where(condition, value, buffer[slot]))

  return Replay(
    transitions=jax.tree.map(store, replay.transitions, transition),
    size=jnp.where(condition, jnp.minimum(replay.size + 1, capacity), replay.size),
    next_slot=jnp.where(condition, (slot + 1) % capacity, slot),
  )


def sample(replay: Replay, number: int, key: jax.Array) -> Transitions:
  """Draws transitions uniformly with replacement.

  Args:
    replay: the buffer, not empty.
    number: N, how many to draw.
    key: PRNG key.

  Returns:
    `Transitions` with the leading axis N.
  """
  indices = jax.random.randint(key, (number,), 0, replay.size)
  return jax.tree.map(lambda buffer: buffer[indices], replay.transitions)
