"""One training step, as one jitted function of a state and a batch.

    batch -> net -> losses f32[K] -> loss balancer -> weighted losses f32[K]
          -> sum -> one backward pass                      -> gradient
          or K backward passes -> gradient balancer        -> gradient
          -> optax optimiser -> params

Nothing leaves the device: losses and weights are summed in the state. A step whose
numbers are not finite is skipped: it changes nothing but the counts of steps and skips.
Once too many steps in a row would be skipped, the step records `failure`, and later
steps change nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balanced_grads import balanced_grad
from igb_jax.balancers import Balancer, BalancerState, LossBalancer
from igb_jax.balancers.common import all_finite, is_inexact
from igb_jax.training.sums import EpochSums, Failure, GradientSums

Params = Any
Batch = Any
Variables = Any
LossesFn = Callable[..., jax.Array]
StatefulLossesFn = Callable[..., tuple[jax.Array, Variables]]


class Placement(NamedTuple):
  """Where arrays are to be on many devices; by default wherever XLA puts them.

  Attributes:
    state: constrains a `TrainState`.
    params: constrains the parameters, and with them every gradient in them.
  """

  state: Callable[[Any], Any] = lambda state: state
  params: Callable[[Any], Any] = lambda params: params


ANYWHERE = Placement()
CONSTANT: optax.Schedule = optax.constant_schedule(1.0)


class TrainState(NamedTuple):
  """Everything that decides how training goes on, as one pytree.

  Attributes:
    step: i32[], number of steps taken, with those that were skipped.
    skips_in_a_row: i32[], how many of the latest steps were skipped.
    params: parameters of the net.
    variables: what else the net keeps and gradients do not reach, such as batch
      statistics; None if there is nothing.
    optimizer: state of the optax optimiser.
    balancer: state of the balancer, its loss and its gradient part.
    plateau: state of `optax.contrib.reduce_on_plateau`, whose field `scale` multiplies
      the updates; None without it.
    sums: the sums of the current epoch.
    failure: the step that ended the training, if any.
  """

  step: jax.Array
  skips_in_a_row: jax.Array
  params: Params
  variables: Variables
  optimizer: optax.OptState
  balancer: BalancerState
  plateau: Any
  sums: EpochSums
  failure: Failure


def init_state(
  params: Params,
  *,
  balancer: Balancer,
  optimizer: optax.GradientTransformation,
  key: jax.Array,
  plateau: optax.GradientTransformationExtraArgs | None = None,
  variables: Variables = None,
) -> TrainState:
  """The state before the first step.

  Args:
    params: initial parameters.
    balancer: the balancer, see `make_train_step`.
    optimizer: the optax optimiser.
    key: PRNG key for the balancer.
    plateau: what lowers the learning rate by the validation score, or None.
    variables: what else the net keeps.

  Raises:
    ValueError: the balancer has no loss part, or its gradient part takes other
      parameters as shared than there are.
  """
  _loss_part(balancer)  # or an error
  balancer_state = balancer.init(params, key)
  num_tasks = len(balancer_state.loss.weights)
  has_gradient = balancer_state.gradient is not None
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    skips_in_a_row=jnp.zeros((), jnp.int32),
    # the step donates its own, also those of an optimiser that keeps where it began
    params=jax.tree.map(jnp.copy, params),
    variables=jax.tree.map(jnp.copy, variables),
    optimizer=jax.tree.map(jnp.copy, optimizer.init(params)),
    balancer=balancer_state,
    plateau=None if plateau is None else plateau.init(params),
    sums=EpochSums(
      steps=jnp.zeros((), jnp.int32),
      skipped=jnp.zeros((), jnp.int32),
      present=jnp.zeros(num_tasks, jnp.int32),
      losses=jnp.zeros(num_tasks, jnp.float32),
      weights=jnp.zeros(num_tasks, jnp.float32),
      gradient=GradientSums.zeros(num_tasks) if has_gradient else None,
    ),
    failure=Failure(
      step=jnp.full((), -1, jnp.int32),
      losses=jnp.zeros(num_tasks, jnp.float32),
      weighted=jnp.zeros(num_tasks, jnp.float32),
    ),
  )


def make_train_step(
  losses_of: LossesFn | StatefulLossesFn,
  balancer: Balancer,
  optimizer: optax.GradientTransformation,
  *,
  trunk: Callable[..., Any] | None = None,
  keep_task_grads: bool = True,
  stateful: bool = False,
  present_of: Callable[[Batch], jax.Array] | None = None,
  max_skips: int = 0,
  schedule: optax.Schedule = CONSTANT,
  placement: Placement = ANYWHERE,
) -> Callable[..., TrainState]:
  """Makes the jitted step; the state that it is given is donated.

  Args:
    losses_of: `(params, batch) -> f32[K]`, the task losses, or with `stateful`
      `(params, variables, batch) -> (f32[K], variables)`.
    balancer: gets the extra arguments `learning_rate_ratio`, initial / current learning
      rate, and `scores`. A gradient part sees the gradients of the weighted losses. A
      loss part that observes gets the losses of the batch after the step, by one more
      forward pass.
    optimizer: the optax optimiser, at the initial learning rate.
    trunk: what is before the features at which a gradient balancer is to work, or None:
      `(params, batch) -> features`, or with `stateful` `(params, variables, batch)`.
      `losses_of` then takes the features behind the parameters.
    keep_task_grads: whether the K task gradients exist together, see
      `igb_jax.value_and_balanced_grad`.
    stateful: whether the net keeps variables, such as batch statistics.
    present_of: `batch -> bool[K]`, which tasks a batch has labels for; None where all
      batches have all. The loss of another task may be anything, but where it is
      computed from numbers that are not finite its derivative is NaN times 0.
    max_skips: how many steps in a row whose numbers are not finite are skipped; one
      more is a failure.
    schedule: number of steps -> current / initial learning rate, beside the plateau.
    placement: where arrays are to be on many devices.

  Returns:
    `step(state, batch, scores=None) -> state`.

  Raises:
    ValueError: the balancer has no loss part.
  """
  observe = _loss_part(balancer).observe

  # Functions take the parameters, then the features if there is a trunk, then the
  # variables, which may be None, and last the batch.
  def placed(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(params: Params, *args: Any) -> Any:
      *features, variables, batch = args
      between = (*features, variables) if stateful else features
      return function(placement.params(params), *between, batch)

    return call

  def losses_and_variables(*args: Any) -> tuple[jax.Array, Variables]:
    result = placed(losses_of)(*args)
    return result if stateful else (result, args[-2])

  def all_losses(*args: Any) -> tuple[jax.Array, Variables]:
    if trunk is None:
      return losses_and_variables(*args)
    params, *rest = args
    return losses_and_variables(params, placed(trunk)(*args), *rest)

  balanced = balanced_grad(
    losses_and_variables,
    balancer,
    has_aux=True,
    trunk=trunk and placed(trunk),
    keep_task_grads=keep_task_grads,
  )

  def step(
    state: TrainState, batch: Batch, scores: jax.Array | None = None
  ) -> TrainState:
    present = None if present_of is None else present_of(batch)
    scale = learning_rate_scale(state, schedule)
    losses, weighted, variables, gradient, balancer_state = balanced(
      state.params,
      state.variables,
      batch,
      state=state.balancer,
      present=present,
      learning_rate_ratio=1 / scale,
      scores=scores,
    )
    losses = losses.astype(jnp.float32)
    gradient_sums = state.sums.gradient
    if gradient_sums is not None and balancer_state.gradient is not None:
      gradient_sums = gradient_sums.plus(balancer_state.gradient, present)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
    updates = jax.tree.map(lambda update: scale * update, updates)

    params = optax.apply_updates(state.params, updates)
    if observe is not None:
      after, _ = all_losses(params, state.variables, batch)
      loss_state = observe(after, balancer_state.loss, present=present)
      balancer_state = balancer_state._replace(loss=loss_state)

    # a finite gradient above 1e19 is infinite when Adam squares it, and stays so
    kept_finite = _where_finite_before(state.optimizer, optimizer_state)
    good = all_finite((weighted, gradient, variables, updates, kept_finite))
    running = state.failure.step < 0
    skip = ~good & running & (state.skips_in_a_row < max_skips)
    fail = ~good & running & ~skip
    failure = Failure(state.step, losses, weighted.astype(jnp.float32))
    there = jnp.ones(len(losses), bool) if present is None else present
    proposed = TrainState(
      step=state.step + 1,
      skips_in_a_row=jnp.zeros_like(state.skips_in_a_row),
      params=params,
      variables=variables,
      optimizer=optimizer_state,
      balancer=balancer_state,
      plateau=state.plateau,
      sums=state.sums._replace(
        steps=state.sums.steps + 1,
        present=state.sums.present + there,
        losses=state.sums.losses + jnp.where(there, losses, 0.0),
        weights=state.sums.weights + balancer_state.loss.weights,
        gradient=gradient_sums,
      ),
      failure=state.failure,
    )
    kept = optax.tree.where(good & running, proposed, state)
    kept = kept._replace(
      step=kept.step + skip,
      skips_in_a_row=kept.skips_in_a_row + skip,
      sums=kept.sums._replace(skipped=kept.sums.skipped + skip),
      failure=optax.tree.where(fail, failure, state.failure),
    )
    return placement.state(kept)

  return jax.jit(step, donate_argnums=0)


def learning_rate_scale(state: TrainState, schedule: optax.Schedule) -> jax.Array:
  """Current / initial learning rate, f32[].

  Args:
    state: before the step.
    schedule: see `make_train_step`.
  """
  scale = jnp.asarray(schedule(state.step), jnp.float32)
  return scale if state.plateau is None else scale * state.plateau.scale


def _loss_part(balancer: Balancer) -> LossBalancer:
  if balancer.loss is None:
    raise ValueError(
      "the training step needs a loss balancer; with a gradient balancer alone, use "
      "balancers.equal(num_tasks)."
    )
  return balancer.loss


def _where_finite_before(before: Any, after: Any) -> Any:
  """The numbers of `after` that were finite before; zeros for the others."""

  def of_leaf(old: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(old), new, 0) if is_inexact(old) else new

  return jax.tree.map(of_leaf, before, after)
