"""Inverse Dirichlet weighting: all gradients with the same spread over the parameters.

    w^_k = max_j std(g_j) / std(g_k),    w_k <- a w_k + (1 - a) w^_k

std over the parameters. Reference: Maddu et al., "Inverse Dirichlet Weighting Enables
Reliable Training of Physics Informed Neural Networks", Machine Learning: Science and
Technology 2022.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.moving_weights import moving_weights
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian
from igb_jax.balancers.solvers.products import for_each_task


@method(
  "inverse_dirichlet",
  "gradient",
  paper="Maddu et al., 2022",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=False,
  gramian_only=False,
  solves=False,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def inverse_dirichlet(
  num_tasks: int,
  *,
  decay: jax.typing.ArrayLike = 0.5,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows a weighted sum of gradients that all have the same standard deviation.

  A task whose gradient is the same in all parameters, such as zero, keeps its weight.
  `memory` is w, f32[K].

  Args:
    num_tasks: K.
    decay: a, how much of the weights stays at an update, from 0 to 1.
    shared: see `weighting`; other leaves get the sum with the same weights.
    update_every: see `weighting`.

  Example:
    >>> balancer = inverse_dirichlet(num_tasks=2, decay=0.0)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 3.0], [-4.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights.round(4))
    [4. 1.]
  """

  def estimate(
    grads: TaskGrads, gramian: Gramian, weights: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    del weights
    count = max(sum(leaf[0].size for leaf in grads.all), 1)
    divisors = gramian.divisors  # by which squares fit float32
    mean = square = jnp.zeros(num_tasks, jnp.float32)
    for leaf in grads.all:
      mean += for_each_task(leaf, lambda g, n: jnp.sum(g / n), divisors) / count
    for leaf in grads.all:
      square += for_each_task(
        leaf, lambda g, n, mean: jnp.sum((g / n - mean) ** 2), divisors, mean
      )
    # what is left of a constant gradient is rounding
    spread = jnp.where(square > 1e-12, jnp.sqrt(square / count), 0.0)
    known = spread > 0
    longest = divisors.max()
    deviations = spread * (divisors / longest)
    known &= deviations > 0
    return deviations.max() / jnp.where(known, deviations, 1.0), known

  return moving_weights(
    num_tasks, estimate, decay, shared=shared, update_every=update_every
  )
