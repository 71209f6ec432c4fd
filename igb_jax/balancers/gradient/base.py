"""What all gradient balancers do alike: one state, and how K gradients become one."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_count, check_present
from igb_jax.balancers.common import all_finite, key_data
from igb_jax.balancers.gradient.shared import Shared, check_shared, shared_leaves
from igb_jax.balancers.gradient.stacked import Stacked, TaskGrads, join, split
from igb_jax.balancers.solvers import Gramian


class GradientState(NamedTuple):
  """State of every gradient balancer.

  Attributes:
    weights: f32[K], of the task gradients in the result, for the shared leaves; 0 for a
      task that was absent. Ones where the result is not a sum of the task gradients.
    gramian: the Gramian of the shared gradients of the latest update of the weights.
    residual: f32[], by how much the conditions of optimality fail of the problem that
      the method solves; 0 where it solves none.
    key: u32[2], data of the threefry key of the next draw; None where nothing is drawn.
    violation: f32[], by how much the method's equation fails although its problem is
      solved: of the order of 1 where no weights fulfil it.
    held: f32[K], the weights that the next steps use too; None where `update_every` is
      1.
    steps_left: i32[], steps that will use them before they are updated again; None
      where `update_every` is 1.
    memory: what the method keeps beside, such as moving means; None for most.
  """

  weights: jax.Array
  gramian: Gramian
  residual: jax.Array
  key: jax.Array | None
  violation: jax.Array
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
WeighFn = Callable[..., GradientState]
ApplyFn = Callable[[list[jax.Array], GradientState], Combined]


class GradientBalancer(optax.GradientTransformationExtraArgs):
  """An optax transformation of K task gradients into one gradient.

  It keeps the contract of `optax.experimental.aggregating.Aggregator`: `update` takes
  leaves float[K, ...] and returns leaves [...]. It takes `present` as every balancer
  does, see `igb_jax.balancers.types`. Gradients that are not finite make the result not
  finite and leave the state as it was, but for the number of `steps_left`.

  `init(params, key=None)` takes parameters that are not stacked, and a PRNG key for a
  method that draws random numbers. `optax.chain` hands over no key; the draws then
  start from `jax.random.key(0)`.

  Attributes:
    num_tasks: K.
    shared: see `Shared`.
    draws: whether the method draws random numbers.
    update_every: steps from one update of the weights to the next.
    keeps_grads: whether the state has numbers for every shared parameter.
    extra: names of the extra arguments of `update` that the method uses.
    combine: `combine(grads, state, **extra) -> Combined`, what `update` does with
      `TaskGrads`.
    weigh: `weigh(grads, state, **extra) -> GradientState`, the part of `combine` that
      chooses the weights; None where there is none, or where it takes more than the
      Gramian.
    apply: `apply(leaves, state) -> Combined`, the part of `combine` that is done to
      sum_k w_k g_k with w = `state.weights`; None where the result is not such a sum.
    rewrap: `rewrap(rule) -> GradientBalancer`, the same with another rule around its
      own, see `weighting`; None where it was not made of a rule.
  """

  num_tasks: int
  shared: Shared
  draws: bool
  update_every: int
  keeps_grads: bool
  extra: tuple[str, ...]
  combine: CombineFn
  weigh: WeighFn | None
  apply: ApplyFn | None
  rewrap: Callable[..., "GradientBalancer"] | None = None


def gradient_balancer(
  num_tasks: int,
  combine: CombineFn,
  *,
  shared: Shared = None,
  draws: bool = False,
  update_every: int = 1,
  memory: Any = None,
  keeps_grads: bool = False,
  extra: Sequence[str] = (),
  weigh: WeighFn | None = None,
  apply: ApplyFn | None = None,
) -> GradientBalancer:
  """Makes a gradient balancer of what it does with the shared leaves.

  Most methods are rules on the Gramian and made by `weighting`; this is for the others.

  Args:
    num_tasks: K.
    combine: see `GradientBalancer`.
    shared: see `Shared`.
    draws: whether the method draws random numbers, and needs `state.key`.
    update_every: steps from one update of the weights to the next; above 1 it takes
      `apply`.
    memory: what the method keeps beside, as it is before the first step: a pytree of
      arrays, or `memory(params, is_shared)` that returns one; there what belongs to
      parameters has their structure, with None where a leaf is not shared.
    keeps_grads: see `GradientBalancer`.
    extra: see `GradientBalancer`.
    weigh: see `GradientBalancer`.
    apply: see `GradientBalancer`.
  """
  num_tasks = check_count("num_tasks", num_tasks)
  holds = update_every > 1

  def init(params: optax.Params, key: jax.Array | None = None) -> GradientState:
    is_shared = check_shared(shared, params)
    if draws and key is None:
      key = jax.random.key(0)
    return GradientState(
      weights=jnp.ones(num_tasks, jnp.float32),
      gramian=Gramian.zeros(num_tasks),
      residual=jnp.zeros((), jnp.float32),
      key=key_data(key, "the balancer") if draws else None,
      violation=jnp.zeros((), jnp.float32),
      held=jnp.ones(num_tasks, jnp.float32) if holds else None,
      steps_left=jnp.zeros((), jnp.int32) if holds else None,
      memory=memory(params, is_shared)
      if callable(memory)
      else jax.tree.map(jnp.array, memory),
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
      _check_combined(update_every, task_grads, params)
      assert apply is not None
      leaves, structure = jax.tree.flatten(task_grads)
      is_shared = shared_leaves(shared, task_grads)
      parts = split(leaves, is_shared)
      held, _, new = apply(parts[True], one_step_less(state))
      gradient = structure.unflatten(join(held, parts[False], is_shared))
    else:
      stacked = Stacked.of(task_grads, num_tasks, shared, params)
      leaves, others, new = combine(TaskGrads(stacked.pick(True), mask), state, **extra)
      rest = TaskGrads(stacked.pick(False), mask).sum(others)
      gradient = stacked.join(leaves, rest)
    return gradient, settle(new, state, gradient, mask)

  balancer = GradientBalancer(init, update)  # pyright: ignore[reportArgumentType]
  balancer.num_tasks, balancer.shared, balancer.draws = num_tasks, shared, draws
  balancer.update_every, balancer.keeps_grads = update_every, keeps_grads
  balancer.extra = tuple(extra)
  balancer.combine, balancer.weigh, balancer.apply = combine, weigh, apply
  return balancer


def settle(
  new: GradientState, old: GradientState, gradient: Any, present: jax.Array | None
) -> GradientState:
  """The state after a step, which is the old one where a number is not finite.

  Such a step counts all the same: weights that overflow must not be held for good.

  Args:
    new: what the method made.
    old: the state before.
    gradient: the result, a pytree.
    present: bool[K], or None where all tasks are present; without any task nothing
      changes but the weights, which are 0.
  """
  good = all_finite((gradient, new))
  counted = old if old.held is None else _counted_down(old)
  kept = cast(GradientState, optax.tree.where(good, new, counted))
  if present is None:
    return kept
  kept = cast(GradientState, optax.tree.where(present.any(), kept, old))
  return kept._replace(weights=jnp.where(present, kept.weights, 0.0))


def check_use(balancer: GradientBalancer, has_trunk: bool, keeps: bool) -> None:
  """Checks that a step gives the balancer what it needs.

  Args:
    balancer: the balancer of the step.
    has_trunk: whether it gets gradients in the features of a batch.
    keeps: whether it gets the task gradients, or their Gramian alone.

  Raises:
    ValueError: it does not.
  """
  if has_trunk and balancer.keeps_grads:
    raise ValueError(
      "this balancer stores parameter gradients between steps; feature gradients "
      "belong to one batch and cannot be stored. Leave out trunk=."
    )
  if not keeps and balancer.weigh is None:
    raise ValueError(
      "keep_task_grads=False is for balancers that need no more than the Gramian of "
      "the task gradients; this one needs the gradients themselves."
    )


def check_weighs(name: str, balancer: GradientBalancer) -> Callable[..., Any]:
  """Checks that a balancer was made of a rule, and returns its `rewrap`.

  Args:
    name: the name of what shall stand around it, for the error.
    balancer: the balancer.

  Raises:
    ValueError: it was not.
  """
  if balancer.rewrap is None:
    raise ValueError(
      f"{name} takes gradient balancers that weigh the task gradients, and this one "
      "does not; see igb_jax.balancers.weighting."
    )
  return balancer.rewrap


def one_step_less(state: GradientState) -> GradientState:
  """The state at a step that uses the weights that are held.

  Args:
    state: the state of a balancer with `update_every` above 1.
  """
  assert state.held is not None
  return _counted_down(state)._replace(weights=state.held)


def _counted_down(state: GradientState) -> GradientState:
  assert state.steps_left is not None
  return state._replace(steps_left=jnp.maximum(state.steps_left - 1, 0))


def _check_combined(update_every: int, gradient: Any, params: Any) -> None:
  if update_every == 1:
    raise ValueError(
      "got combined=True, but this balancer updates its weights at every step and "
      "needs the task gradients; pass those, or make it with update_every above 1."
    )
  shapes = [jax.tree.map(jnp.shape, tree) for tree in (gradient, params)]
  if params is not None and shapes[0] != shapes[1]:
    raise ValueError(
      "got combined=True with gradients whose shapes differ from the parameters'; "
      "pass the single gradient of sum_k held_k loss_k."
    )
