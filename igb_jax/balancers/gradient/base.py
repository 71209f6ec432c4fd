"""What all gradient balancers do alike: one state, and how K gradients become one."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.common import all_finite, check_count, check_present, key_data
from igb_jax.balancers.gradient.shared import Shared, check_shared, shared_leaves
from igb_jax.balancers.gradient.stacked import Stacked, TaskGrads, join
from igb_jax.balancers.solvers import Gramian


class GradientState(NamedTuple):
  """State of every gradient balancer.

  Attributes:
    weights: f32[K], of the task gradients in the result, for the shared leaves; 0 for a
      task that was absent. Ones where the result is no sum of the task gradients.
    gramian: of the shared gradients of the latest update of the weights.
    residual: f32[], by how much the conditions of optimality fail of the problem that
      the method solves; 0 where it solves none.
    violation: f32[], by how much the method's equation fails although its problem is
      solved: of the order of 1 where no weights fulfil it.
    key: u32[2], data of the threefry key of the next draw; None where nothing is drawn.
    held: f32[K], the weights that the next steps use too; None where `update_every` is
      1.
    steps_left: i32[], steps that will use them before they are updated again; None
      where `update_every` is 1.
    memory: what the method keeps beside, such as moving means; None for most.
  """

  weights: jax.Array
  gramian: Gramian
  residual: jax.Array
  violation: jax.Array
  key: jax.Array | None = None
  held: jax.Array | None = None
  steps_left: jax.Array | None = None
  memory: Any = None


class Combined(NamedTuple):
  """What a method makes of task gradients.

  Attributes:
    leaves: the gradient in the shared leaves.
    others: f32[K], the weights of the tasks in the leaves that are not shared.
    state: the next `GradientState`.
  """

  leaves: list[jax.Array]
  others: jax.Array
  state: GradientState


CombineFn = Callable[..., Combined]
HoldFn = Callable[[list[jax.Array], GradientState], Combined]


class GradientBalancer(optax.GradientTransformationExtraArgs):
  """An optax transformation of K task gradients into one gradient.

  It keeps the contract of `optax.experimental.aggregating.Aggregator`: `update` takes
  leaves float[K, ...] and returns leaves [...]. It takes `present` as every balancer
  does, see `igb_jax.balancers.types`. Gradients that are not finite make the result not
  finite and leave the state as it was.

  `init(params, key=None)` takes parameters that are not stacked, and a PRNG key for a
  method that draws random numbers. `optax.chain` hands over no key; the draws then
  start from `jax.random.key(0)`.

  Attributes:
    num_tasks: K.
    shared: see `Shared`.
    draws: whether the method draws random numbers.
    combine: `combine(grads, state, **extra) -> Combined`, what `update` does with
      `TaskGrads`.
    hold: `hold(leaves, state) -> Combined`, of the shared leaves of one gradient that
      was taken with the weights `state.held`; None where every step updates them.
  """

  num_tasks: int
  shared: Shared
  draws: bool
  combine: CombineFn
  hold: HoldFn | None


def gradient_balancer(
  num_tasks: int,
  combine: CombineFn,
  *,
  shared: Shared = None,
  draws: bool = False,
  memory: Callable[[Any, list[bool]], Any] | None = None,
  hold: HoldFn | None = None,
) -> GradientBalancer:
  """Makes a gradient balancer of what it does with the shared leaves.

  Most methods are rules on the Gramian and made by `weighting`; this is for the others.

  Args:
    num_tasks: K.
    combine: see `GradientBalancer`.
    shared: see `Shared`.
    draws: whether the method draws random numbers, and needs `state.key`.
    memory: `memory(params, is_shared)`, what the method keeps beside before the first
      step; what belongs to parameters has their structure, with None where
      a leaf is not shared.
    hold: see `GradientBalancer`.
  """
  num_tasks = check_count("num_tasks", num_tasks)

  def init(params: optax.Params, key: jax.Array | None = None) -> GradientState:
    is_shared = check_shared(shared, params)
    if draws and key is None:
      key = jax.random.key(0)
    return GradientState(
      weights=jnp.ones(num_tasks, jnp.float32),
      gramian=Gramian.zeros(num_tasks),
      residual=jnp.zeros((), jnp.float32),
      violation=jnp.zeros((), jnp.float32),
      key=key_data(key, "the balancer") if draws else None,
      held=None if hold is None else jnp.ones(num_tasks, jnp.float32),
      steps_left=None if hold is None else jnp.zeros((), jnp.int32),
      memory=None if memory is None else memory(params, is_shared),
    )

  def update(
    task_grads: optax.Updates,
    state: GradientState,
    params: optax.Params | None = None,
    *,
    present: jax.typing.ArrayLike | None = None,
    combined: bool = False,
    **extra: Any,
  ) -> tuple[optax.Updates, GradientState]:
    mask = None if present is None else check_present(present, num_tasks)
    if combined:
      gradient, new = _held(hold, shared, task_grads, state, params)
    else:
      stacked = Stacked.of(task_grads, num_tasks, shared, params)
      leaves, others, new = combine(TaskGrads(stacked.pick(True), mask), state, **extra)
      rest = TaskGrads(stacked.pick(False), mask).sum(others)
      gradient = stacked.join(leaves, rest)
    return gradient, settle(new, state, gradient, mask)

  balancer = GradientBalancer(init, update)  # pyright: ignore[reportArgumentType]
  balancer.num_tasks, balancer.shared, balancer.draws = num_tasks, shared, draws
  balancer.combine, balancer.hold = combine, hold
  return balancer


def settle(
  new: GradientState, old: GradientState, gradient: Any, present: jax.Array | None
) -> GradientState:
  """The state after a step, which is the old one where a number is not finite.

  Args:
    new: what the method made.
    old: the state before.
    gradient: the result, a pytree.
    present: bool[K], or None where all tasks are present; without any task nothing
      changes but the weights, which are 0.
  """
  good = all_finite((gradient, new))
  if present is None:
    return cast(GradientState, optax.tree.where(good, new, old))
  kept = cast(GradientState, optax.tree.where(good & present.any(), new, old))
  return kept._replace(weights=jnp.where(present, kept.weights, 0.0))


def _held(
  hold: HoldFn | None, shared: Shared, gradient: Any, state: GradientState, params: Any
) -> tuple[Any, GradientState]:
  """One gradient, taken with the weights that are held."""
  if hold is None:
    raise ValueError(
      "got combined=True, but this balancer updates its weights at every step and "
      "needs the task gradients; pass those, or make it with update_every above 1."
    )
  shapes = [jax.tree.map(jnp.shape, tree) for tree in (gradient, params)]
  if params is not None and shapes[0] != shapes[1]:
    raise ValueError(
      "got combined=True with gradients that have not the shapes of the parameters; "
      "pass one gradient of sum_k held_k loss_k, not K."
    )
  leaves, structure = jax.tree.flatten(gradient)
  is_shared = shared_leaves(shared, gradient)
  parts = {
    flag: [leaf for leaf, of in zip(leaves, is_shared, strict=True) if of == flag]
    for flag in (True, False)
  }
  held, _, state = hold(parts[True], state)
  return structure.unflatten(join(held, parts[False], is_shared)), state
