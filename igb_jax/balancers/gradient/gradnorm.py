"""GradNorm: weights that keep the norms of the weighted gradients in proportion.

    w = K softmax(s)
    x_k = L_k / L_k^0,    r_k = x_k / mean_j x_j,    m = mean_j w_j |g_j|
    s descends  sum_k | w_k |g_k| - m r_k^alpha |,  m r_k^alpha constant, by Adam
    d = sum_k w_k g_k

with the weights from before the descent, so that a task that trains slowly (r above 1)
gets a longer gradient. L^0 is the mean of each loss over the first epoch, in which the
weights are 1. Reference: Chen et al., "GradNorm: Gradient Normalization for Adaptive
Loss Balancing in Deep Multitask Networks", ICML 2018, Algorithm 1, in the form of
LibMTL: norms over all shared parameters (in the paper those of the last shared layer,
which `shared=` can choose), and a softmax where the paper scales the weights.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_count, check_losses, check_positive
from igb_jax.balancers.common import (
  constant_float32,
  increment,
  is_valid,
  softmax_weights,
  update_mean,
)
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution

_LARGEST = 1e18  # of a derivative: Adam squares it


class GradNormMemory(NamedTuple):
  """What `gradnorm` keeps beside, in `GradientState.memory`.

  Attributes:
    step: i32[], updates so far.
    base_losses: f32[K], L^0.
    base_count: i32[K], how many losses are in them.
    logits: f32[K], s.
    adam: the state of the optimiser of s.
  """

  step: jax.Array
  base_losses: jax.Array
  base_count: jax.Array
  logits: jax.Array
  adam: optax.OptState


@method(
  "gradnorm",
  "gradient",
  paper="Chen et al., ICML 2018",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=True,
  equivariant=True,
  degree=1,
  scale_invariant=False,
  gramian_only=True,
  solves=False,
  avoids_conflict=False,
  heads="weighted",
  fewest_tasks=1,
  needs=("losses",),
)
def gradnorm(
  num_tasks: int,
  steps_per_epoch: int,
  *,
  alpha: jax.typing.ArrayLike = 1.5,
  learning_rate: jax.typing.ArrayLike = 0.025,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows a weighted sum of gradients whose norms fit the tasks' training rates.

  `update` needs the extra argument `losses`, f32[K]; `value_and_balanced_grad` passes
  it. A task whose loss is not positive, or was never in the first epoch, counts with
  r = 1. `memory` is a `GradNormMemory`.

  Args:
    num_tasks: K.
    steps_per_epoch: number of updates of the weights that make the first epoch.
    alpha: how much slow tasks are favoured, 0 or more.
    learning_rate: the learning rate of the logits s.
    shared: see `weighting`; other leaves get the sum with the same weights.
    update_every: see `weighting`.

  Raises:
    ValueError: by `update`, `losses` is missing or not f32[K].

  Example:
    >>> balancer = gradnorm(num_tasks=2, steps_per_epoch=1, learning_rate=0.5)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
    >>> for _ in range(3):
    ...   gradient, state = balancer.update(task_grads, state, losses=jnp.ones(2))
    >>> print([f"{weight:.3f}" for weight in state.weights])
    ['1.462', '0.538']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
  alpha = check_positive("alpha", alpha, or_zero=True)
  # 1e-8 in the published code; so nothing depends on the units, down to 1e-14
  adam = optax.adam(check_positive("learning_rate", learning_rate), eps=1e-16)

  def memory(*_: object) -> GradNormMemory:
    return GradNormMemory(
      step=jnp.zeros((), jnp.int32),
      base_losses=jnp.zeros(num_tasks, jnp.float32),
      base_count=jnp.zeros(num_tasks, jnp.int32),
      logits=jnp.zeros(num_tasks, jnp.float32),
      adam=adam.init(jnp.zeros(num_tasks, jnp.float32)),
    )

  def rule(
    grads: TaskGrads, gramian: Gramian, *, memory: GradNormMemory, losses: Any
  ) -> tuple[Solution, GradNormMemory]:
    if losses is None:
      raise ValueError("gradnorm needs losses=, f32[K], the losses of the step.")
    constant = constant_float32(check_losses(losses, num_tasks))
    here = grads.here
    valid = is_valid(constant, grads.present)
    first = memory.step < steps_per_epoch
    base, count = update_mean(
      memory.base_losses, memory.base_count, constant, first & valid
    )
    known = valid & (count > 0)
    x = jnp.where(known, constant / jnp.where(known, base, 1.0), 1.0)
    mean = jnp.sum(x, where=known) / jnp.maximum(known.sum(), 1)
    r = jnp.where(known, x / jnp.where(mean > 0, mean, 1.0), 1.0)
    ones = here.astype(jnp.float32)
    weights = jnp.where(first, ones, softmax_weights(memory.logits, here))
    return Solution(weights), GradNormMemory(
      step=increment(memory.step),
      base_losses=base,
      base_count=count,
      **_descend(memory, gramian.norms, r**alpha, here, ~first),
    )

  def _descend(
    memory: GradNormMemory,
    norms: jax.Array,
    pace: jax.Array,
    here: jax.Array,
    moves: jax.Array,
  ) -> dict[str, Any]:
    def penalty(logits: jax.Array) -> jax.Array:
      lengths = softmax_weights(logits, here) * norms
      mean = jnp.sum(lengths) / jnp.maximum(here.sum(), 1)
      aim = jax.lax.stop_gradient(mean * pace)
      return jnp.sum(jnp.abs(lengths - aim), where=here)

    derivative = jax.grad(penalty)(memory.logits)
    derivative = jnp.clip(derivative, -_LARGEST, _LARGEST)
    change, adam_state = adam.update(derivative, memory.adam)
    logits = memory.logits + jnp.where(here, jnp.asarray(change), 0.0)
    new = {"logits": logits, "adam": adam_state}
    old = {"logits": memory.logits, "adam": memory.adam}
    return optax.tree.where(moves, new, old)

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    memory=memory,
    extra=("losses",),
  )
