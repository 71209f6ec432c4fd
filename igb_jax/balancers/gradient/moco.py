"""Multi-objective gradient correction (MoCo).

At step t = 0, 1, ..., with beta_t and gamma_t their first values over sqrt(t + 1):

    y_k <- y_k - beta_t (y_k - g_k),
    w   <- the point of the simplex nearest to w - 2 gamma_t Y Y^T w,
    d = sum_k w_k y_k

so that w follows the descent of |sum_k w_k y_k|^2, the objective of MGDA, on gradients
without the noise of a single batch. Reference: Fernando et al., "Mitigating Gradient
Bias in Multi-objective Learning: A Provably Convergent Approach", ICLR 2023,
Algorithm 1.

Step sizes and the factor 2 are those of the authors' code. They are absolute: how fast
w moves depends on the units of the losses.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_fraction, check_positive
from igb_jax.balancers.common import increment
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads, buffers, follow
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.simplex import descend, shares, times


class MoCoMemory(NamedTuple):
  """What `moco` keeps beside, in `GradientState.memory`.

  Attributes:
    means: y, f32[K, ...] for each shared parameter, None for the others.
    weights: f32[K], w.
    step: i32[], t.
  """

  means: Any
  weights: jax.Array
  step: jax.Array


@method(
  "moco",
  "gradient",
  paper="Fernando et al., ICLR 2023",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=None,
  scale_invariant=False,
  gramian_only=False,
  solves=False,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=(),
)
def moco(
  num_tasks: int,
  *,
  beta: jax.typing.ArrayLike = 0.1,
  step_size: jax.typing.ArrayLike = 0.1,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows moving means of the task gradients, with weights that descend like MGDA's.

  The Gramian in the state is that of the means, `memory` is a `MoCoMemory`. The means
  take the memory of K gradients more. With `update_every=n` they take every n-th batch,
  and the steps in between sum the gradients themselves.

  Args:
    num_tasks: K.
    beta: how far, at the first step, the means go to the gradients, from 0 to 1.
    step_size: gamma, of the first step of the weights.
    shared: see `weighting`; other leaves get the sum with the weights w.
    update_every: see `weighting`.

  Example:
    >>> balancer = moco(num_tasks=2, beta=1.0)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"], state.weights)
    [0.65 0.7 ] [0.65 0.35]
  """
  beta, step_size = check_fraction("beta", beta), check_positive("step_size", step_size)

  def memory(params: Any, is_shared: list[bool]) -> MoCoMemory:
    return MoCoMemory(
      means=buffers(num_tasks, params, is_shared),
      weights=jnp.full(num_tasks, 1 / num_tasks, jnp.float32),
      step=jnp.zeros((), jnp.int32),
    )

  def track(grads: TaskGrads, memory: MoCoMemory) -> tuple[TaskGrads, MoCoMemory]:
    means, kept = follow(memory.means, grads, beta * _decay(memory))
    return means, memory._replace(means=kept)

  def rule(
    grads: TaskGrads, gramian: Gramian, *, memory: MoCoMemory
  ) -> tuple[Solution, MoCoMemory]:
    here = grads.here
    w, total = shares(memory.weights, here)
    w = descend(w, 2 * step_size * _decay(memory) * times(gramian, w), here)
    return Solution(w), memory._replace(
      weights=jnp.where(here, total * w, memory.weights), step=increment(memory.step)
    )

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    gramian_only=False,
    memory=memory,
    track=track,
    keeps_grads=True,
  )


def _decay(memory: MoCoMemory) -> jax.Array:
  """f32[]: 1 / sqrt(t + 1)."""
  return jax.lax.rsqrt((memory.step + 1).astype(jnp.float32))
