"""Projecting conflicting gradients (PCGrad).

Every task gradient g_i, over the other tasks j in random order:

    where <g_i, g_j> < 0:    g_i <- g_i - <g_i, g_j> / |g_j|^2 g_j

with g_j as it was given; the result is the sum of the g_i. All of it happens within the
span of the task gradients, so that their Gramian is enough. Reference: Yu et al.,
"Gradient Surgery for Multi-Task Learning", NeurIPS 2020, Algorithm 1.
"""

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.common import check_count, key_data, split_key_data
from igb_jax.balancers.gradient.stacked import (
  Shared,
  TaskGrads,
  check_shared,
  transformation,
)
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian


class PCGradState(NamedTuple):
  """State of `pcgrad`.

  Attributes:
    key: u32[2], data of the threefry key of the next orders.
    weights: f32[K], of the gradients in the result, for the shared leaves; 0 for a
      task that was absent.
    gramian: of the latest shared gradients.
  """

  key: jax.Array
  weights: jax.Array
  gramian: Gramian


@method(
  "pcgrad",
  "gradient",
  paper="Yu et al., NeurIPS 2020",
  draws=True,
  solves=False,
  avoids_conflict=False,
  heads="summed",
)
def pcgrad(
  num_tasks: int, *, key: jax.Array | int = 0, shared: Shared = None
) -> optax.GradientTransformationExtraArgs:
  """Takes from every task gradient what conflicts with the others, and adds them up.

  Args:
    num_tasks: K, the number of tasks.
    key: PRNG key of the orders, or a seed.
    shared: which leaves enter the Gramian: a predicate on the key path, a pytree of
      bools like the parameters or a prefix of one, or None for all. The other leaves
      get the plain sum.

  Returns:
    An optax transformation of task gradients, leaves float[K, ...], into one gradient;
    state `PCGradState`.

  Raises:
    TypeError: `num_tasks` is no integer, `key` no key, or a part of `shared` no bool.
    ValueError: `num_tasks` is below 1, `shared` does not fit or shares nothing, or a
      leaf has no leading axis K.

  Example:
    >>> balancer = pcgrad(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"])
    [0.5 1.5]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  initial_key = _check_key(key)

  def init(params: optax.Params) -> PCGradState:
    check_shared(shared, params)
    return PCGradState(
      key=key_data(initial_key, "pcgrad"),
      weights=jnp.ones(num_tasks, jnp.float32),
      gramian=Gramian.zeros(num_tasks),
    )

  def update(
    task_grads: optax.Updates,
    state: PCGradState,
    params: optax.Params | None,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[optax.Updates, PCGradState]:
    del extra
    grads = TaskGrads.of(task_grads, num_tasks, shared, present, params)
    gramian = grads.gramian()
    data, order_key = split_key_data(state.key)
    orders = jax.vmap(lambda key: jax.random.permutation(key, num_tasks))(
      jax.random.split(order_key, num_tasks)
    )
    weights = project_conflicts(gramian, orders)
    return grads.sum(weights, jnp.ones_like(weights)), PCGradState(
      data, weights, gramian
    )

  return transformation(num_tasks, init, update)


def _check_key(key: jax.Array | int) -> jax.Array:
  if isinstance(key, numbers.Integral) and not isinstance(key, bool):
    return jax.random.key(int(key))
  if hasattr(key, "dtype") and not isinstance(key, float):
    key = jnp.asarray(key)
    is_seed = key.shape == () and jnp.issubdtype(key.dtype, jnp.integer)
    return jax.random.key(key) if is_seed else key
  raise TypeError(f"key must be a PRNG key or an integer seed, got {key!r}.")


def project_conflicts(gramian: Gramian, orders: jax.Array) -> jax.Array:
  """The surgery, for given orders.

  Args:
    gramian: of the K gradients.
    orders: i32[K, K], row i the order in which g_i meets the tasks; itself it passes.

  Returns:
    f32[K], the weights of the original gradients in the sum of the projected ones.

  Example:
    >>> gramian = Gramian.of([jnp.array([[1.0, 0.0], [-1.0, 1.0]])])
    >>> print(project_conflicts(gramian, jnp.array([[0, 1], [0, 1]])))
    [2.  1.5]
  """
  norms, cosines = gramian
  tasks = jnp.arange(len(norms))

  def meet(position: jax.Array, parts: jax.Array) -> jax.Array:
    # parts[i, j] |g_i| u_j sum to g_i as it is by now
    others = orders[:, position]
    dots = jnp.sum(parts * cosines[others], axis=1)
    conflict = (dots < 0) & (others != tasks)
    return parts.at[tasks, others].add(jnp.where(conflict, -dots, 0.0))

  # in `shard_map` a loop must carry what varies as it will vary: as both of these do
  start = jnp.eye(len(norms), dtype=jnp.float32) + jnp.zeros_like(cosines * orders)
  parts = jax.lax.fori_loop(0, len(norms), meet, start)
  largest = float(jnp.finfo(jnp.float32).max)
  scales = jnp.minimum(norms[:, None] / jnp.where(norms == 0, 1.0, norms), largest)
  scales = jnp.where(jnp.eye(len(norms), dtype=bool), 1.0, scales)
  return jnp.sum(jnp.where(parts == 0, 0.0, scales * parts), axis=0)
