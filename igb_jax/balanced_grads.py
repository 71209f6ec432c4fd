"""The losses of a step and the gradient that a balancer makes of them.

losses f32[K] -> loss balancer -> weighted losses f32[K]
  -> one backward pass                                     (no gradient balancer)
  or K backward passes -> gradient balancer                (what the tasks share)
     -> one backward pass of the weighted sum              (everything else)
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.common import check_present
from igb_jax.balancers.gradient.base import GradientBalancer, GradientState, settle
from igb_jax.balancers.gradient.shared import shared_leaves
from igb_jax.balancers.gradient.stacked import TaskGrads, join
from igb_jax.balancers.solvers.products import flat_if_free
from igb_jax.balancers.types import Balancer, BalancerState, LossBalancer
from igb_jax.task_grads import (
  check_argnums,
  check_passes,
  differentiate,
  pull_back_each,
)


def value_and_balanced_grad(
  fun: Callable[..., Any],
  balancer: Balancer | LossBalancer | GradientBalancer,
  *,
  argnums: int | Sequence[int] = 0,
  has_aux: bool = False,
  batch_size: int = 1,
  unroll: bool | None = None,
) -> Callable[..., tuple[Any, Any, BalancerState]]:
  """The task losses, and the balanced gradient: one step for every balancer.

      balanced = value_and_balanced_grad(losses_of, balancer)

      losses, grads, state = balanced(params, batch, state=state)

  Only the leaves that the balancer calls shared get a gradient a task; all others get
  one backward pass of the weighted sum. So do all of them at a step that uses weights
  from an earlier one, which `update_every` of a gradient balancer is for.

  Args:
    fun: `fun(params, ...) -> float[K]`, or `(float[K], aux)` with `has_aux`.
    balancer: what `igb_jax.balancers.create` returns, or one of its parts.
    argnums: see `igb_jax.value_and_task_grads`.
    has_aux: see `igb_jax.value_and_task_grads`.
    batch_size: see `igb_jax.value_and_task_grads`.
    unroll: see `igb_jax.value_and_task_grads`.

  Returns:
    A function of the arguments of `fun` that returns `(losses, grads, state)`, or
    `((losses, aux), grads, state)` with `has_aux`. `losses` are those that `fun`
    returned, `grads` has the structure of what is differentiated. By keyword it takes

    * `state`, from `Balancer.init` or the previous step;
    * `present`, bool[K], where the batch may lack the labels of a task;
    * extra arguments of balancers, such as `learning_rate_ratio`; a gradient balancer
      also gets `losses`, those that `fun` returned.

    A keyword that `fun` names in its signature goes to `fun` as well.

  Raises:
    TypeError: `balancer` is none, or what `igb_jax.value_and_task_grads` raises.
    ValueError: `state` is missing or of another balancer, or what
      `igb_jax.value_and_task_grads` raises.

  Example:
    >>> from igb_jax import balancers
    >>> def losses_of(params, x):
    ...   return jnp.stack([(params["w"] - x) ** 2, (params["w"] * x + 1) ** 2])
    >>> balancer = balancers.create("si+mgda", num_tasks=2)
    >>> params = {"w": jnp.float32(2.0)}
    >>> state = balancer.init(params)
    >>> balanced = value_and_balanced_grad(losses_of, balancer)
    >>> losses, grads, state = balanced(params, 1.0, state=state)
    >>> print(losses, grads["w"], state.gradient.weights)
    [1. 9.] 1.3333334 [0. 2.]
  """
  balanced = balanced_grad(
    fun, balancer, argnums, has_aux=has_aux, batch_size=batch_size, unroll=unroll
  )

  def value_and_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any, BalancerState]:
    losses, _, aux, grads, state = balanced(*args, **kwargs)
    return ((losses, aux) if has_aux else losses), grads, state

  return value_and_grad


class Balanced(NamedTuple):
  """What a step knows of its losses and its gradient.

  Attributes:
    losses: float[K], those that were returned.
    weighted: f32[K], those that the loss balancer made of them.
    aux: what else was returned, or None.
    grads: the balanced gradient.
    state: the next state of the balancer.
  """

  losses: jax.Array
  weighted: jax.Array
  aux: Any
  grads: Any
  state: BalancerState


def balanced_grad(
  fun: Callable[..., Any],
  balancer: Balancer | LossBalancer | GradientBalancer,
  argnums: int | Sequence[int] = 0,
  *,
  has_aux: bool = False,
  batch_size: int = 1,
  unroll: bool | None = None,
) -> Callable[..., Balanced]:
  """`value_and_balanced_grad` for those who need the weighted losses too.

  Args:
    fun: see there.
    balancer: see there.
    argnums: see there.
    has_aux: see there.
    batch_size: see there.
    unroll: see there.
  """
  batch_size = check_passes(batch_size, unroll)
  numbers, is_single = check_argnums(argnums)
  loss, gradient = _parts(balancer)
  keywords = _keywords(fun)

  def each(pull_back: Callable[[jax.Array], Any], losses: jax.Array) -> Any:
    return pull_back_each(pull_back, losses, batch_size, unroll)

  def balanced(
    *args: Any,
    state: BalancerState | None = None,
    present: jax.typing.ArrayLike | None = None,
    **extra: Any,
  ) -> Balanced:
    given = extra if present is None else {**extra, "present": present}
    kwargs = {name: value for name, value in given.items() if name in keywords}
    losses, pull_back_losses, aux = differentiate(fun, numbers, has_aux, args, kwargs)
    params = tuple(args[number] for number in numbers)
    params = params[0] if is_single else params
    loss_state, gradient_state = _check_state(state, loss, gradient, params, losses)
    mask = None if present is None else check_present(present, len(losses))
    weighted, pull_back_weights, loss_state = _weigh(
      loss, losses, loss_state, mask, extra
    )

    def pull_back(cotangent: jax.Array) -> Any:
      # a loss that has no logarithm must not pass for one without a gradient
      cotangent = jnp.where(jnp.isfinite(weighted), cotangent, jnp.nan)
      grads = pull_back_losses(*pull_back_weights(cotangent.astype(weighted.dtype)))
      return grads[0] if is_single else grads

    if gradient is None or gradient_state is None:
      grads = pull_back(jnp.ones_like(weighted))
    else:
      grads, gradient_state = _combine(
        gradient,
        pull_back,
        lambda pull_back: each(pull_back, weighted),
        params,
        gradient_state,
        mask,
        {"losses": losses, **extra},
      )
    new = BalancerState(loss_state, gradient_state)
    return Balanced(losses, weighted, aux, grads, new)

  return balanced


def _parts(balancer: Any) -> tuple[LossBalancer | None, GradientBalancer | None]:
  if isinstance(balancer, LossBalancer):
    return balancer, None
  if isinstance(balancer, GradientBalancer):
    return None, balancer
  if not isinstance(balancer, Balancer):
    raise TypeError(
      "balancer must be what igb_jax.balancers.create returns, a LossBalancer or a "
      f"gradient balancer, got {balancer!r}."
    )
  loss, gradient = balancer
  if loss is None and gradient is None:
    raise ValueError("balancer must have a part, loss or gradient, and has neither.")
  if gradient is not None and not isinstance(gradient, GradientBalancer):
    raise TypeError(
      "the gradient part of a balancer must be a gradient balancer of igb_jax, such as "
      f"balancers.weighting makes of a rule, got {gradient!r}; chain an optimiser "
      "behind the balanced gradient, not into the balancer."
    )
  return loss, gradient


def _keywords(fun: Callable[..., Any]) -> set[str]:
  """The arguments that `fun` names and that may be passed by keyword."""
  try:
    parameters = inspect.signature(fun).parameters.values()
  except (TypeError, ValueError):  # of a builtin, say
    return set()
  by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
  return {parameter.name for parameter in parameters if parameter.kind in by_name}


def _check_state(
  state: Any,
  loss: LossBalancer | None,
  gradient: GradientBalancer | None,
  params: Any,
  losses: jax.Array,
) -> BalancerState:
  """The state, where it is one of this balancer; compared while tracing."""
  if state is None:
    raise ValueError(
      "state is missing: pass state=balancer.init(params, key) at the first step, and "
      "what the step before returned at every other."
    )

  def init(params: Any) -> BalancerState:
    return Balancer(loss, gradient).init(params, jax.random.key(0))

  expected = jax.eval_shape(init, params)
  described = [
    (jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)])
    for tree in (state, expected)
  ]
  if described[0] != described[1]:
    raise ValueError(
      "state must be what this balancer's init(params, key) or its step before "
      "returned, and is of another balancer, of other parameters or no BalancerState; "
      f"got {jax.tree.map(jnp.shape, state)}, expected "
      f"{jax.tree.map(jnp.shape, expected)}."
    )
  num_tasks = len((state.gradient if loss is None else state.loss).weights)
  if losses.shape != (num_tasks,):
    raise ValueError(
      f"fun returned {len(losses)} losses, but the balancer was made for {num_tasks} "
      "tasks; num_tasks must be the number of losses."
    )
  return state


def _weigh(
  loss: LossBalancer | None,
  losses: jax.Array,
  state: Any,
  present: jax.Array | None,
  extra: dict[str, Any],
) -> tuple[jax.Array, Callable[[jax.Array], Any], Any]:
  """The weighted losses, their pull-back, and the state of the loss balancer."""

  def weigh(losses: jax.Array) -> tuple[jax.Array, Any]:
    if loss is None:
      return losses if present is None else jnp.where(present, losses, 0), None
    return loss.update(losses, state, present=present, **extra)

  return jax.vjp(weigh, losses, has_aux=True)


def _combine(
  balancer: GradientBalancer,
  pull_back: Callable[[jax.Array], Any],
  each: Callable[[Callable[[jax.Array], Any]], Any],
  params: Any,
  state: GradientState,
  present: jax.Array | None,
  extra: dict[str, Any],
) -> tuple[Any, GradientState]:
  """The balanced gradient, by K backward passes, or by one where weights are held."""
  is_shared = shared_leaves(balancer.shared, params)
  structure = jax.tree.structure(params)

  def pick(cotangent: jax.Array, flag: bool) -> list[jax.Array]:
    leaves = jax.tree.leaves(pull_back(cotangent))
    return [leaf for leaf, of in zip(leaves, is_shared, strict=True) if of == flag]

  def finish(
    leaves: list[jax.Array], others: jax.Array, new: GradientState
  ) -> tuple[Any, GradientState]:
    if present is not None:
      others = jnp.where(present, others, 0.0)
    rest = [] if all(is_shared) else pick(others, False)
    grads = structure.unflatten(join(leaves, rest, is_shared))
    return grads, settle(new, state, grads, present)

  def every_task() -> tuple[Any, GradientState]:
    stacked = each(lambda cotangent: pick(cotangent, True))
    grads = TaskGrads([flat_if_free(leaf) for leaf in stacked], present)
    leaves, others, new = balancer.combine(grads, state, **extra)
    shapes = (leaf.shape[1:] for leaf in stacked)
    leaves = [leaf.reshape(shape) for leaf, shape in zip(leaves, shapes, strict=True)]
    return finish(leaves, others, new)

  def held_weights() -> tuple[Any, GradientState]:
    assert balancer.hold is not None
    assert state.held is not None
    held = state.held if present is None else jnp.where(present, state.held, 0.0)
    return finish(*balancer.hold(pick(held, True), state))

  if balancer.hold is None:
    return every_task()
  return jax.lax.cond(state.steps_left == 0, every_task, held_weights)
