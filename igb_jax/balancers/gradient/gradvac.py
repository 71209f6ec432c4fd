"""Gradient Vaccine (GradVac): surgery towards the cosines that tasks usually have.

Every task gradient g_i, over the other tasks j in random order, with its cosine c to
g_j as it was given and r = rho_ij:

    where c < r:    g_i <- g_i + |g_i| (r sqrt((1 - c^2) / (1 - r^2)) - c) u_j
    rho_ij <- (1 - beta) rho_ij + beta c,    u_j = g_j / |g_j|

after which their cosine is r; rho is 0 before the first step, which is PCGrad's. The
result is the sum of the g_i. Reference: Wang et al., "Gradient Vaccine: Investigating
and Improving Multi-task Optimization in Massively Multilingual Models", ICLR 2021,
equation 4.

Here c is taken before the correction, and beta 0.5 is LibMTL's (the paper's is 0.01).
The published code adds 1e-8 to norms, which matters for small gradients; here nothing
depends on the units. A target above 1 - 1e-6 counts as that, and no correction is
longer than 10 |g_i|, as it was given: where tasks that used to agree no longer do,
corrections would multiply from task to task.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_fraction
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.pcgrad import random_orders, weights_of_parts
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution

_LARGEST_TARGET = 1 - 1e-6
_LARGEST_CORRECTION = 10.0


@method(
  "gradvac",
  "gradient",
  paper="Wang et al., ICLR 2021",
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
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def gradvac(
  num_tasks: int,
  *,
  beta: jax.typing.ArrayLike = 0.5,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Turns task gradients to the cosines that they usually have, and adds them up.

  The orders are drawn from the key that `init` is given. `memory` is rho, f32[K, K]; it
  stays as it is for a task that is absent or whose gradient is zero.

  Args:
    num_tasks: K.
    beta: how far rho goes to the cosines of a step, from 0 to 1.
    shared: see `weighting`; other leaves get the sum with the same weights.
    update_every: see `weighting`.

  Example:
    >>> balancer = gradvac(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"], state.memory[0, 1].round(4))
    [0.5 1.5] -0.3536
  """
  beta = check_fraction("beta", beta)

  def rule(
    grads: TaskGrads, gramian: Gramian, key: jax.Array, memory: jax.Array
  ) -> tuple[Solution, jax.Array]:
    del grads
    weights, rho = vaccinate(gramian, random_orders(key, num_tasks), memory, beta)
    return Solution(weights), rho

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    draws=True,
    memory=lambda *_: jnp.zeros((num_tasks, num_tasks), jnp.float32),
  )


def vaccinate(
  gramian: Gramian, orders: jax.Array, rho: jax.Array, beta: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """The surgery, for given orders.

  Args:
    gramian: the Gramian of the K gradients.
    orders: i32[K, K], row i the order in which g_i meets the tasks; itself it passes.
    rho: f32[K, K], the cosines that tasks usually have.
    beta: how far they go to those of this step.

  Returns:
    f32[K], the weights of the original gradients in the sum, and the next rho.

  Example:
    >>> gramian = Gramian.of([jnp.array([[1.0, 0.0], [0.0, 1.0]])])
    >>> orders, rho = jnp.array([[0, 1], [0, 1]]), jnp.full((2, 2), 0.6)
    >>> print(vaccinate(gramian, orders, rho, 0.5)[0])
    [1.75 1.75]
  """
  cosines, nonzero = gramian.cosines, gramian.nonzero
  tasks = jnp.arange(len(nonzero))

  def meet(
    position: jax.Array, carry: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    # parts[i, j] |g_i| u_j sum to g_i as it is by now
    parts, rho = carry
    others = orders[:, position]
    products = jnp.einsum("ij,jk->ik", parts, cosines, precision="highest")
    length = jnp.sqrt(jnp.maximum(jnp.sum(products * parts, axis=1), 0.0))
    c = products[tasks, others] / jnp.where(length > 0, length, 1.0)
    c = jnp.clip(c, -1.0, 1.0)
    r = jnp.clip(rho[tasks, others], -_LARGEST_TARGET, _LARGEST_TARGET)
    meets = (others != tasks) & nonzero & nonzero[others] & (length > 0)
    correction = length * (r * jnp.sqrt((1 - c**2) / (1 - r**2)) - c)
    correction = jnp.minimum(correction, _LARGEST_CORRECTION)
    change = jnp.where(meets & (c < r), correction, 0.0)
    follow = jnp.where(meets, jnp.float32(beta) * (c - rho[tasks, others]), 0.0)
    return parts.at[tasks, others].add(change), rho.at[tasks, others].add(follow)

  # in `shard_map` a loop must carry what varies as it will vary: as all of these do
  varying = jnp.zeros_like(cosines * orders * rho)
  start = jnp.eye(len(nonzero), dtype=jnp.float32) + varying, rho + varying
  parts, rho = jax.lax.fori_loop(0, len(nonzero), meet, start)
  return weights_of_parts(gramian, parts), rho
