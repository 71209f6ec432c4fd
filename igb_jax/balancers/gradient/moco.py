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
from igb_jax.balancers.gradient.base import (
  Combined,
  GradientBalancer,
  GradientState,
  gradient_balancer,
)
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads, buffers, follow, sum_as
from igb_jax.balancers.methods import method
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
) -> GradientBalancer:
  """Follows moving means of the task gradients, with weights that descend like MGDA's.

  The Gramian in the state is that of the means, `memory` is a `MoCoMemory`. The means
  take the memory of K gradients more.

  Args:
    num_tasks: K.
    beta: how far, at the first step, the means go to the gradients, from 0 to
      1.
    step_size: gamma, of the first step of the weights.
    shared: see `weighting`; other leaves get the sum with the weights w.

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

  def combine(grads: TaskGrads, state: GradientState, **extra: Any) -> Combined:
    del extra
    before = state.memory
    decay = jax.lax.rsqrt((before.step + 1).astype(jnp.float32))
    means, kept = follow(before.means, grads, beta * decay)
    gramian = means.gramian()
    here = grads.here
    w, total = shares(before.weights, here)
    w = descend(w, 2 * step_size * decay * times(gramian, w), here)

    new = MoCoMemory(
      means=kept,
      weights=jnp.where(here, total * w, before.weights),
      step=increment(before.step),
    )
    state = state._replace(weights=w, gramian=gramian, memory=new)
    return Combined(sum_as(grads, means, w), w, state)

  return gradient_balancer(
    num_tasks, combine, shared=shared, memory=memory, keeps_grads=True
  )
