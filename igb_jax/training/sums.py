"""Sums over the steps of an epoch, which stay on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.gradient.base import GradientState


class GradientSums(NamedTuple):
  """Sums over the steps of the current epoch: what a gradient balancer saw and did.

  A step that used the weights of an earlier one counts with what that one saw.

  Attributes:
    weights: f32[K], sum of the gradient balancer's weights.
    cosines: f32[K, K], sum of the cosines between the task gradients.
    conflicts: f32[], sum of the shares of pairs with a negative cosine.
    log_condition: f32[], sum of log condition numbers of the Gramian.
    residual: f32[], sum of the solver's residuals.
    worst_residual: f32[], the largest of them.
    pairs: i32[K, K], number of steps whose Gramian has both tasks.
    steps: i32[], number of steps in the sums; one in which every task is absent does
      not count.
  """

  weights: jax.Array
  cosines: jax.Array
  conflicts: jax.Array
  log_condition: jax.Array
  residual: jax.Array
  worst_residual: jax.Array
  pairs: jax.Array
  steps: jax.Array

  @classmethod
  def zeros(cls, num_tasks: int) -> "GradientSums":
    """The sums before the first step."""
    return cls(
      weights=jnp.zeros(num_tasks, jnp.float32),
      cosines=jnp.zeros((num_tasks, num_tasks), jnp.float32),
      conflicts=jnp.zeros((), jnp.float32),
      log_condition=jnp.zeros((), jnp.float32),
      residual=jnp.zeros((), jnp.float32),
      worst_residual=jnp.zeros((), jnp.float32),
      pairs=jnp.zeros((num_tasks, num_tasks), jnp.int32),
      steps=jnp.zeros((), jnp.int32),
    )

  def plus(
    self, state: GradientState, present: jax.Array | None = None
  ) -> "GradientSums":
    """Adds a step of the tasks `present`, bool[K], that left the balancer's state."""
    gramian = state.gramian
    # of an absent task the Gramian, which may be an earlier step's, has zeros
    in_gramian = None if present is None else gramian.nonzero
    seen = jnp.ones(len(gramian.norms), bool) if in_gramian is None else in_gramian
    sums = GradientSums(
      weights=self.weights + state.weights,
      cosines=self.cosines + gramian.cosines,
      conflicts=self.conflicts + gramian.conflict_share(in_gramian),
      log_condition=self.log_condition + jnp.log(gramian.condition_number(in_gramian)),
      residual=self.residual + state.residual,
      worst_residual=jnp.maximum(self.worst_residual, state.residual),
      pairs=self.pairs + (seen[:, None] & seen),
      steps=self.steps + 1,
    )
    return sums if present is None else optax.tree.where(present.any(), sums, self)


class EpochSums(NamedTuple):
  """Sums over the steps of the current epoch.

  Attributes:
    steps: i32[], number of steps, without those that were skipped.
    skipped: i32[], number of steps that were skipped.
    present: i32[K], number of steps in which the task was present.
    losses: f32[K], sum of the losses over those.
    weights: f32[K], sum of the loss balancer's weights.
    gradient: what a gradient balancer saw and did, or None without one.
  """

  steps: jax.Array
  skipped: jax.Array
  present: jax.Array
  losses: jax.Array
  weights: jax.Array
  gradient: GradientSums | None


class Failure(NamedTuple):
  """The step whose numbers were not finite and that was not to be skipped.

  Attributes:
    step: i32[], its number from 0, or -1 while there is none.
    losses: f32[K], the losses of that step.
    weighted: f32[K], the weighted losses of that step.
  """

  step: jax.Array
  losses: jax.Array
  weighted: jax.Array
