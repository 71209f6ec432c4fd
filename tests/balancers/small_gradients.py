"""The gradients of three tasks for a tree of few parameters."""

import jax
import jax.numpy as jnp

from tests.balancers.contract import make_gradient

NUM_TASKS = 3
LOSSES = jnp.ones(NUM_TASKS)
PARAMS = {"b": jnp.zeros(3), "w": jnp.ones((2, 3))}
SHARED = {"b": False, "w": True}
GRADS = jax.tree.map(
  lambda leaf: jax.random.normal(jax.random.key(leaf.ndim), (3, *leaf.shape)), PARAMS
)


def make(name: str, **options):
  """The method for the three tasks."""
  return make_gradient(name, NUM_TASKS, **options)
