"""One training step, as one jitted function of a state and a batch.

    batch -> net -> losses f32[K] -> loss balancer -> weighted losses f32[K]
          -> sum -> one backward pass -> optax optimiser -> params

Nothing leaves the device: losses and weights are summed in the state, and a step
whose numbers are not finite changes nothing but `failure`, as do all that follow it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from igb_jax.balancers import LossBalancer
from igb_jax.balancers.common import all_finite

Params = Any
Batch = Any
LossesFn = Callable[[Params, Batch], jax.Array]


class EpochSums(NamedTuple):
  """Sums over the steps of the current epoch.

  Attributes:
    steps: i32[], number of steps.
    losses: f32[K], sum of the losses.
    weights: f32[K], sum of the task weights.
  """

  steps: jax.Array
  losses: jax.Array
  weights: jax.Array

  @classmethod
  def zeros(cls, num_tasks: int) -> "EpochSums":
    """The sums before the first step."""
    return cls(
      steps=jnp.zeros((), jnp.int32),
      losses=jnp.zeros(num_tasks, jnp.float32),
      weights=jnp.zeros(num_tasks, jnp.float32),
    )


class Failure(NamedTuple):
  """The first step whose numbers were not finite.

  Attributes:
    step: i32[], its number from 0, or -1 while there is none.
    losses: f32[K], the losses of that step.
    weighted: f32[K], the weighted losses of that step.
  """

  step: jax.Array
  losses: jax.Array
  weighted: jax.Array


class TrainState(NamedTuple):
  """Everything that decides how training goes on, as one pytree.

  Attributes:
    step: i32[], number of steps taken.
    params: parameters of the net.
    optimizer: state of the optax optimiser.
    balancer: state of the loss balancer.
    plateau: state of `optax.contrib.reduce_on_plateau`; its scale multiplies the
      updates.
    sums: of the current epoch.
    failure: the first step that failed, if any.
  """

  step: jax.Array
  params: Params
  optimizer: optax.OptState
  balancer: Any
  plateau: optax.contrib.ReduceLROnPlateauState
  sums: EpochSums
  failure: Failure


def init_state(
  params: Params,
  *,
  balancer: LossBalancer,
  optimizer: optax.GradientTransformation,
  plateau: optax.GradientTransformationExtraArgs,
  key: jax.Array,
) -> TrainState:
  """The state before the first step.

  Args:
    params: initial parameters.
    balancer: the loss balancer.
    optimizer: the optax optimiser.
    plateau: what lowers the learning rate, `optax.contrib.reduce_on_plateau`.
    key: PRNG key for the balancer.
  """
  balancer_state = balancer.init(key)
  num_tasks = len(balancer_state.weights)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=jax.tree.map(jnp.copy, params),  # the step donates its own
    optimizer=optimizer.init(params),
    balancer=balancer_state,
    plateau=cast(optax.contrib.ReduceLROnPlateauState, plateau.init(params)),
    sums=EpochSums.zeros(num_tasks),
    failure=Failure(
      step=jnp.full((), -1, jnp.int32),
      losses=jnp.zeros(num_tasks, jnp.float32),
      weighted=jnp.zeros(num_tasks, jnp.float32),
    ),
  )


def make_train_step(
  losses_of: LossesFn,
  balancer: LossBalancer,
  optimizer: optax.GradientTransformation,
) -> Callable[[TrainState, Batch], TrainState]:
  """Makes the jitted step; the state that it is given is donated.

  Args:
    losses_of: `(params, batch) -> f32[K]`, the task losses.
    balancer: the loss balancer; it gets the extra argument `learning_rate_ratio`,
      initial / current learning rate.
    optimizer: the optax optimiser, at the initial learning rate.

  Returns:
    `step(state, batch) -> state`.
  """

  def step(state: TrainState, batch: Batch) -> TrainState:
    def objective(params):
      losses = losses_of(params, batch)
      weighted, balancer_state = balancer.update(
        losses, state.balancer, learning_rate_ratio=1 / state.plateau.scale
      )
      return weighted.sum(), (losses, weighted, balancer_state)

    gradients, (losses, weighted, balancer_state) = jax.grad(objective, has_aux=True)(
      state.params
    )
    updates, optimizer_state = optimizer.update(
      gradients, state.optimizer, state.params
    )
    updates = jax.tree.map(lambda update: state.plateau.scale * update, updates)

    good = all_finite((weighted, gradients))
    first = ~good & (state.failure.step < 0)
    failure = Failure(state.step, losses, weighted)
    proposed = TrainState(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      optimizer=optimizer_state,
      balancer=balancer_state,
      plateau=state.plateau,
      sums=EpochSums(
        steps=state.sums.steps + 1,
        losses=state.sums.losses + losses,
        weights=state.sums.weights + balancer_state.weights,
      ),
      failure=state.failure,
    )
    proceed = good & (state.failure.step < 0)
    kept = optax.tree.where(proceed, proposed, state)
    return kept._replace(failure=optax.tree.where(first, failure, state.failure))

  return jax.jit(step, donate_argnums=0)
