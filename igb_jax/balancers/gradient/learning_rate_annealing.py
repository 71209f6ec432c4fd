"""Learning-rate annealing: more weight to small gradients beside that of a residual.

    w^_k = max_p |g_r| / mean_p |w_k g_k|,    w_k <- a w_k + (1 - a) w^_k,    w_r = 1

with r the task of the residual of a differential equation; the others are boundary and
initial conditions, data. Since w^ divides by w_k, a constant gradient ends at w_k =
sqrt(max |g_r| / mean |g_k|), which balances it half-way. Reference: Wang, Teng and
Perdikaris, "Understanding and Mitigating Gradient Pathologies in Physics-Informed
Neural Networks", SISC 2021, Algorithm 1, where a is 1 - alpha.
"""

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_index
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.moving_weights import moving_weights
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian
from igb_jax.balancers.solvers.products import for_each_task


@method(
  "annealing",
  "gradient",
  paper="Wang, Teng and Perdikaris, SISC 2021",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=False,
  degree=1,
  scale_invariant=False,
  gramian_only=False,
  solves=False,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def learning_rate_annealing(
  num_tasks: int,
  *,
  decay: jax.typing.ArrayLike = 0.9,
  residual: int = 0,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows a weighted sum with more weight to gradients below that of the residual.

  Where the gradient of the residual or of a task is zero, the weight stays as it is.
  `memory` is w, f32[K].

  Args:
    num_tasks: K.
    decay: a, how much of the weights stays at an update, from 0 to 1.
    residual: index of the task with the weight 1, from 0 to K - 1.
    shared: see `weighting`; other leaves get the sum with the same weights.
    update_every: see `weighting`; the paper updates every 10 steps.

  Raises:
    ValueError: `residual` is not below K.

  Example:
    >>> balancer = learning_rate_annealing(num_tasks=2, decay=0.0)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[0.0, 8.0], [0.5, 1.5]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights)
    [1. 8.]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  residual = check_index("residual", residual, num_tasks)

  def estimate(
    grads: TaskGrads, gramian: Gramian, weights: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    del gramian
    count = max(sum(leaf[0].size for leaf in grads.all), 1)
    largest = means = jnp.zeros(num_tasks, jnp.float32)
    for leaf in grads.all:
      most, mean = for_each_task(
        leaf,
        lambda g: (jnp.max(jnp.abs(g), initial=0.0), jnp.sum(jnp.abs(g) / count)),
      )
      largest = jnp.maximum(largest, most.astype(jnp.float32))
      means += mean.astype(jnp.float32)
    known = (means > 0) & (largest[residual] > 0)
    known &= jnp.arange(num_tasks) != residual
    # divided one by one, since the product may not fit float32
    return largest[residual] / jnp.where(known, means, 1.0) / weights, known

  return moving_weights(
    num_tasks, estimate, decay, shared=shared, update_every=update_every
  )
