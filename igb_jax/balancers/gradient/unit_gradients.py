"""The sum of unit gradients, every task with the same say.

    d = length * sum_k g_k / |g_k|

with `length`

    "max"        max_k |g_k|, as in DB-MTL without its moving means
    "frobenius"  sqrt(sum_k |g_k|^2), as in NTKMTL before it is clipped
    "unit"       1 / |sum_k g_k / |g_k||, so that |d| = 1
    a number     that number; DiBS-MTL takes 0.01

Under Adam the lengths hardly matter. Reference: Lin et al., "Dual-Balancing for
Multi-Task Learning", 2023, section 3.2, whose whole method is `db_mtl`.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_one_of, check_positive
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, LARGEST_WEIGHT, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Combination, Gramian, Solution


@method(
  "unit",
  "gradient",
  paper="Lin et al., 2023",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=True,
  gramian_only=True,
  solves=False,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def unit_gradients(
  num_tasks: int,
  *,
  length: Literal["max", "frobenius", "unit"] | float = "max",
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows the sum of the unit gradients.

  A zero gradient gets the weight of the smallest that is not. Weights are at most 1e34.

  Args:
    num_tasks: K.
    length: what every unit gradient is multiplied by.
    shared: see `weighting`.
    update_every: see `weighting`.

  Example:
    >>> balancer = unit_gradients(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights, gradient["x"])
    [4. 1.] [4. 4.]
  """
  if isinstance(length, str):
    check_one_of("length", length, ("max", "frobenius", "unit"))
    factor = 1.0
  else:
    factor = check_positive("length", length)

  def rule(grads: TaskGrads, gramian: Gramian) -> Solution:
    inverse, most = inverse_norms(gramian)
    nonzero = gramian.nonzero.astype(jnp.float32)
    if length == "max":
      return Solution(inverse)
    if length == "frobenius":
      relative = gramian.norms / most
      return Solution(inverse * jnp.sqrt(jnp.sum(relative**2)))
    if length == "unit":
      norm = Combination.of(nonzero, gramian, grads.shared).norm
      return Solution(_bounded(inverse / most / jnp.where(norm > 0, norm, 1.0)))
    return Solution(_bounded(inverse / most * factor))

  return weighting(num_tasks, rule, shared=shared, update_every=update_every)


def inverse_norms(gramian: Gramian) -> tuple[jax.Array, jax.Array]:
  """f32[K], the largest norm over each norm, and f32[], the largest norm.

  Args:
    gramian: the Gramian of the gradients; a zero gradient counts as large as the
      smallest other.

  Example:
    >>> print(inverse_norms(Gramian(jnp.array([2.0, 0.0, 8.0]), jnp.eye(3)))[0])
    [4. 4. 1.]
  """
  norms = gramian.divisors
  most = norms.max()
  return _bounded(most / norms), most


def _bounded(weights: jax.Array) -> jax.Array:
  return jnp.minimum(weights, LARGEST_WEIGHT)
