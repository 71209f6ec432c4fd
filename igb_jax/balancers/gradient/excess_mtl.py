"""ExcessMTL: more weight to tasks with more excess risk, estimated to second order.

    h_k <- h_k + g_k^2    (coordinate by coordinate)
    e_k = sum_p g_kp^2 / sqrt(h_kp)
    w_k <- w_k exp(eta e_k / e_k^0), scaled to sum to K
    d = sum_k w_k g_k

e^0 is e of the first step, at which the weights are 1. Reference: He et al., "Robust
Multi-Task Learning with Excess Risks", ICML 2024, Algorithm 1, in the form of the
authors' code and LibMTL. That code adds 1e-7 to h, which drowns small gradients; here
nothing depends on the units.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_positive
from igb_jax.balancers.common import softmax_weights
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads, buffers
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution
from igb_jax.balancers.solvers.products import for_each_task

_LARGEST = 1e30  # of a step of the logarithm: all others then have the weight 0 anyway


class ExcessMemory(NamedTuple):
  """What `excess_mtl` keeps beside, in `GradientState.memory`.

  Attributes:
    lengths: sqrt(h), f32[K, ...] for each shared parameter, None for the others.
    first: f32[K], e of the first step of each task; 0 before it.
    log_weights: f32[K], log w up to what all have in common.
  """

  lengths: Any
  first: jax.Array
  log_weights: jax.Array


@method(
  "excess",
  "gradient",
  paper="He et al., ICML 2024",
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
def excess_mtl(
  num_tasks: int,
  *,
  learning_rate: jax.typing.ArrayLike = 0.01,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows a weighted sum with more weight where the excess risk falls slowly.

  `memory` is an `ExcessMemory`, which takes the memory of K gradients more. A gradient
  that is zero is no first step.

  Args:
    num_tasks: K.
    learning_rate: eta, of the weights; 1 in TorchJD.
    shared: see `weighting`; other leaves get the sum with the same weights.
    update_every: see `weighting`.

  Example:
    >>> balancer = excess_mtl(num_tasks=2, learning_rate=1.0)
    >>> state = balancer.init({"x": jnp.zeros(1)})
    >>> for risk in (1.0, 0.0):
    ...   task_grads = {"x": jnp.array([[1.0], [risk]])}
    ...   gradient, state = balancer.update(task_grads, state)
    >>> print([f"{weight:.3f}" for weight in state.weights])
    ['1.340', '0.660']
  """
  learning_rate = check_positive("learning_rate", learning_rate)

  def memory(params: Any, is_shared: list[bool]) -> ExcessMemory:
    return ExcessMemory(
      lengths=buffers(num_tasks, params, is_shared),
      first=jnp.zeros(num_tasks, jnp.float32),
      log_weights=jnp.zeros(num_tasks, jnp.float32),
    )

  def rule(
    grads: TaskGrads, gramian: Gramian, *, memory: ExcessMemory
  ) -> tuple[Solution, ExcessMemory]:
    del gramian
    here = grads.here
    old, structure = jax.tree.flatten(memory.lengths)
    lengths, risk = [], jnp.zeros(num_tasks, jnp.float32)
    for length, leaf in zip(old, grads.all, strict=True):
      new, term = for_each_task(leaf, _accumulated, length.reshape(leaf.shape))
      risk += term
      lengths.append(new.reshape(length.shape))
    moves = here & (memory.first > 0)
    relative = risk / jnp.where(moves, memory.first, 1.0)
    step = jnp.minimum(learning_rate * relative, _LARGEST)
    # a task that is absent, or has had no gradient yet, keeps pace with the others
    pace = jnp.sum(step, where=moves) / jnp.maximum(moves.sum(), 1)
    logits = memory.log_weights + jnp.where(moves, step, pace)
    highest = jnp.max(logits)
    new = ExcessMemory(
      lengths=structure.unflatten(lengths),
      first=jnp.where(here & (memory.first == 0), risk, memory.first),
      log_weights=jnp.maximum(logits - highest, -_LARGEST),
    )
    return Solution(softmax_weights(logits, here)), new

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    gramian_only=False,
    memory=memory,
    keeps_grads=True,
  )


def _accumulated(g: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The next sqrt(h) of one task, f32[...], and its part of e, f32[]."""
  g = jnp.abs(g.astype(jnp.float32))
  new = jnp.hypot(length, g)  # no square: it might not fit float32
  return new, jnp.sum(g * (g / jnp.where(new > 0, new, 1.0)))
