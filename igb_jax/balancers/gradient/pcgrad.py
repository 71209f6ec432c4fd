"""Projecting conflicting gradients (PCGrad).

Every task gradient g_i, over the other tasks j in random order:

    where <g_i, g_j> < 0:    g_i <- g_i - <g_i, g_j> / |g_j|^2 g_j

with g_j as it was given; the result is the sum of the g_i. All of it happens within the
span of the task gradients, so that their Gramian is enough. Reference: Yu et al.,
"Gradient Surgery for Multi-Task Learning", NeurIPS 2020, Algorithm 1.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, LARGEST_WEIGHT, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution


@method(
  "pcgrad",
  "gradient",
  paper="Yu et al., NeurIPS 2020",
  forward_passes=1,
  backward_passes="K",
  draws=True,
  needs_positive=False,
  equivariant=False,
  degree=1,
  scale_invariant=False,
  gramian_only=True,
  solves=False,
  avoids_conflict=False,
  heads="summed",
  fewest_tasks=1,
  needs=(),
)
def pcgrad(
  num_tasks: int, *, shared: Shared = None, update_every: int = EVERY_STEP
) -> GradientBalancer:
  """Takes from every task gradient what conflicts with the others, and adds them up.

  The orders are drawn from the key that `init` is given.

  Args:
    num_tasks: K.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = pcgrad(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"])
    [0.5 1.5]
  """

  def rule(grads: TaskGrads, gramian: Gramian, key: jax.Array) -> Solution:
    return Solution(project_conflicts(gramian, random_orders(key, num_tasks)))

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    heads="summed",
    draws=True,
  )


def random_orders(key: jax.Array, num_tasks: int) -> jax.Array:
  """i32[K, K]: a random order of all tasks in each row.

  Args:
    key: the key of the draws.
    num_tasks: K.
  """
  keys = jax.random.split(key, num_tasks)
  return jax.vmap(lambda key: jax.random.permutation(key, num_tasks))(keys)


def project_conflicts(gramian: Gramian, orders: jax.Array) -> jax.Array:
  """The surgery, for given orders.

  Args:
    gramian: the Gramian of the K gradients.
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
  return weights_of_parts(gramian, jax.lax.fori_loop(0, len(norms), meet, start))


def weights_of_parts(gramian: Gramian, parts: jax.Array) -> jax.Array:
  """f32[K]: the weights of the original gradients in the sum of corrected ones.

  Args:
    gramian: the Gramian of the original gradients.
    parts: f32[K, K]; the corrected g_i is |g_i| sum_j parts_ij g_j / |g_j|.
  """
  norms = gramian.norms
  scales = norms[:, None] / jnp.where(norms == 0, 1.0, norms)
  scales = jnp.minimum(scales, LARGEST_WEIGHT)  # they may be held for other gradients
  scales = jnp.where(jnp.eye(len(norms), dtype=bool), 1.0, scales)
  return jnp.sum(jnp.where(parts == 0, 0.0, scales * parts), axis=0)
