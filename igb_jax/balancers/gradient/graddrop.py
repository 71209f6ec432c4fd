"""Gradient sign dropout (GradDrop).

In every coordinate, with g_k the entries of the K task gradients,

    P = (1 + sum_k g_k / sum_k |g_k|) / 2,    U ~ Uniform(0, 1),
    d = sum_k m_k g_k,    m_k = 1 where g_k > 0 and P > U, or g_k < 0 and P < U; else 0

so that one sign is kept at random, and the likelier the more of it there is. With a
leak l every m_k is l + (1 - l) m_k. Reference: Chen et al., "Just Pick a Sign:
Optimizing Deep Multitask Models with Gradient Sign Dropout", NeurIPS 2020, Algorithm 1.

The paper drops entries of the gradients in the shared activations; here they are those
in the shared parameters, as in the library TorchJD. A coordinate without any gradient
stays 0; the paper adds 1e-7 to the denominator instead.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from igb_jax.balancers.checks import check_fraction, check_numbers
from igb_jax.balancers.common import split_key_data
from igb_jax.balancers.gradient.base import (
  Combined,
  GradientBalancer,
  GradientState,
  gradient_balancer,
)
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers.products import sum_of_terms


@method(
  "graddrop",
  "gradient",
  paper="Chen et al., NeurIPS 2020",
  forward_passes=1,
  backward_passes="K",
  draws=True,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=False,
  gramian_only=False,
  solves=False,
  avoids_conflict=False,
  heads="summed",
  fewest_tasks=1,
  needs=(),
)
def graddrop(
  num_tasks: int,
  *,
  leak: jax.typing.ArrayLike | Sequence[float] = 0.0,
  shared: Shared = None,
) -> GradientBalancer:
  """Keeps one sign in every coordinate, at random, and drops the other.

  The result is not a weighted sum of the task gradients: `weights` in the state are 1.

  Args:
    num_tasks: K.
    leak: share of what is dropped that passes all the same, from 0 to 1; or float[K],
      one for each task.
    shared: see `weighting`; other leaves get the plain sum.

  Example:
    >>> balancer = graddrop(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)}, jax.random.key(0))
    >>> task_grads = {"x": jnp.array([[1.0, 2.0], [-1.0, 3.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"])
    [1. 5.]
  """
  shares = _leaks(leak, num_tasks)

  def combine(grads: TaskGrads, state: GradientState, **extra: Any) -> Combined:
    del extra
    assert state.key is not None
    key, draw = split_key_data(state.key)
    leaves = grads.all
    keys = jax.random.split(draw, len(leaves))
    kept = [
      drop_signs(leaf, jax.random.uniform(key, leaf.shape[1:]), shares)
      for leaf, key in zip(leaves, keys, strict=True)
    ]
    ones = jnp.ones(num_tasks, jnp.float32)
    state = state._replace(weights=ones, gramian=grads.gramian(), key=key)
    return Combined(kept, ones, state)

  return gradient_balancer(num_tasks, combine, shared=shared, draws=True)


def drop_signs(
  leaf: jax.Array, uniform: jax.Array, leak: jax.typing.ArrayLike = 0.0
) -> jax.Array:
  """The sum of what is kept of the gradients in one leaf.

  Args:
    leaf: float[K, ...].
    uniform: f32[...], U.
    leak: float[], or float[K].

  Example:
    >>> leaf = jnp.array([[1.0], [-3.0]])  # P is 0.25
    >>> print(drop_signs(leaf, jnp.array([0.2])), drop_signs(leaf, jnp.array([0.3])))
    [1.] [-3.]
  """
  # halves, so that the sum of two of the largest numbers is one
  total, size = sum_of_terms(leaf, lambda _, g: (g / 2, jnp.abs(g / 2)))
  share = (1 + total / jnp.where(size > 0, size, 1.0)) / 2

  leaks = jnp.broadcast_to(jnp.asarray(leak), len(leaf))

  def kept(task: int | jax.Array, g: jax.Array) -> jax.Array:
    keep = jnp.where(g > 0, share > uniform, share < uniform)
    return jnp.where(keep, 1.0, leaks[task]).astype(g.dtype) * g

  return sum_of_terms(leaf, kept).astype(leaf.dtype)


def _leaks(leak: Any, num_tasks: int) -> Any:
  """The checked `leak`: a number, or a tuple or array of K."""
  if not (isinstance(leak, list | tuple) or getattr(leak, "ndim", 0)):
    return check_fraction("leak", leak)
  if isinstance(leak, Tracer) and leak.shape == (num_tasks,):
    return leak
  leaks = check_numbers("leak", leak, num_tasks)
  return jnp.array([check_fraction("leak", each) for each in leaks], jnp.float32)
