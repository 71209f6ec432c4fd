"""A small multi-task problem to train on: K quadratics with a shared vector."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from igb_jax import balancers
from igb_jax.training.step import TrainState, init_state, make_train_step

TARGETS = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 1.0]], np.float32)
NAMES = ("one", "two", "three")
EQUAL = balancers.Balancer(balancers.equal(3), None)


def losses_of(params, batch: jax.Array) -> jax.Array:
  """f32[3]; `batch` is added, so that a test can choose what the losses are."""
  return jnp.mean((params["x"] - TARGETS) ** 2, axis=1) + batch


def make(
  spec: str = "ew",
  *,
  learning_rate: float = 0.1,
  patience: int = 2,
  scale: float = 1.0,
  max_skips: int = 0,
  **hyperparameters,
):
  """The jitted step, the initial state and the plateau transformation."""
  balancer = balancers.create(spec, num_tasks=3, steps_per_epoch=4, **hyperparameters)
  optimizer = optax.adam(learning_rate)
  plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=patience, rtol=1e-4)
  state = init_state(
    {"x": jnp.zeros(2)},
    balancer=balancer,
    optimizer=optimizer,
    plateau=plateau,
    key=jax.random.key(0),
  )
  return (
    make_train_step(
      lambda p, b: scale * losses_of(p, b), balancer, optimizer, max_skips=max_skips
    ),
    state,
    plateau,
  )


def batches(number: int = 4, bad: int | None = None, value=np.nan) -> Iterator:
  """Batches that add 0.1 to each loss; number `bad` adds `value` to task two's."""
  for index in range(number):
    batch = np.full(3, 0.1, np.float32)
    if index == bad:
      batch[1] = value
    yield batch


def copy(state: TrainState) -> TrainState:
  """A state that survives the donation of the original."""
  return jax.tree.map(jnp.copy, state)


def state_with(optimizer, *, x: float = 1.0, balancer=EQUAL) -> TrainState:
  """The initial state for an optimizer."""
  return init_state(
    {"x": jnp.full(2, x)},
    balancer=balancer,
    optimizer=optimizer,
    plateau=optax.contrib.reduce_on_plateau(),
    key=jax.random.key(0),
  )
