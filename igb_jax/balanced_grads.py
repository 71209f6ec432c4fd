"""The losses of a step and the gradient that a balancer makes of them.

    losses f32[K] -> loss balancer -> weighted losses f32[K]
      -> one backward pass                                     (no gradient balancer)
      or K backward passes -> gradient balancer                (what the tasks share)
         -> one backward pass of the weighted sum              (everything else)

The training step uses this function too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_present
from igb_jax.balancers.gradient.base import (
  Combined,
  GradientBalancer,
  GradientState,
  check_use,
  one_step_less,
  settle,
)
from igb_jax.balancers.gradient.shared import shared_leaves
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.solvers.products import flat_if_free
from igb_jax.balancers.solvers.taps import gramian_through
from igb_jax.balancers.types import Balancer, BalancerState, LossBalancer
from igb_jax.pull_backs import Call, PullBack, at_features, at_parameters, keywords
from igb_jax.rep_norms import rep_norms
from igb_jax.task_grads import (
  check_argnums,
  check_passes,
  differentiated,
  one_hot,
  pull_back_each,
)


def value_and_balanced_grad(
  fun: Callable[..., Any],
  balancer: Balancer | LossBalancer | GradientBalancer,
  *,
  argnums: int | Sequence[int] = 0,
  has_aux: bool = False,
  trunk: Callable[..., Any] | None = None,
  keep_task_grads: bool = True,
  batch_size: int = 1,
  unroll: bool | None = None,
) -> Callable[..., tuple[Any, Any, BalancerState]]:
  """The task losses, and the balanced gradient: one step for every balancer.

      balanced = value_and_balanced_grad(losses_of, balancer)
      losses, grads, state = balanced(params, batch, state=state)

  Only the leaves that are shared get one gradient per task; all others get one backward
  pass of the weighted sum. So do all of them at a step that uses weights
  from an earlier one, which `update_every` of a gradient balancer is for.

  Args:
    fun: `fun(params, ...) -> float[K]`, or `(float[K], aux)` with `has_aux`.
    balancer: what `igb_jax.balancers.create` returns, or one of its parts.
    argnums: see `igb_jax.value_and_task_grads`.
    has_aux: see `igb_jax.value_and_task_grads`.
    trunk: `trunk(params, ...) -> features`, a pytree; then `fun(params, features, ...)`
      is what follows. A gradient balancer combines the gradients of the losses in the
      features, and one backward pass takes the result through the trunk: K passes
      through the heads alone, whatever parameters are shared. Not for `jax.shard_map`,
      where every device would balance its own part of the batch. "ntksr" needs it.
    keep_task_grads: False where the K task gradients must never exist together: their
      Gramian comes from K backward passes at once, one leaf at a time, and the sum
      from one more. It saves memory where parameters outweigh activations. Only for
      balancers that need the Gramian alone; `jax.vmap` does all of it twice.
    batch_size: see `igb_jax.value_and_task_grads`.
    unroll: see `igb_jax.value_and_task_grads`.

  Returns:
    A function of the arguments of `trunk`, or without one of `fun`, that returns
    `(losses, grads, state)`, or `((losses, aux), grads, state)` with `has_aux`.
    `losses` are those that `fun` returned, `grads` has the structure of what is
    differentiated. By keyword it takes

    * `state`, from `init` of the balancer, or of the part, or the previous step;
    * `present`, bool[K], where a batch may lack the labels of a task, whose loss `fun`
      must not compute from NaN: its derivative is NaN times 0;
    * extra arguments of balancers, such as `learning_rate_ratio`; a gradient balancer
      also gets `losses`, those that `fun` returned.

    A keyword that `fun` or `trunk` names in its signature goes there as well.

  Raises:
    TypeError: `balancer` is not a balancer, `state` is passed by position, `fun` does
      not take what `trunk` returns, or what `igb_jax.value_and_task_grads` raises.
    ValueError: the balancer needs the task gradients and they are not kept, or it keeps
      moving means of gradients in the parameters and there is a trunk; `state` is
      missing or of another balancer; the features have no floating-point leaf; or what
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
    fun,
    balancer,
    argnums,
    has_aux=has_aux,
    trunk=trunk,
    keep_task_grads=keep_task_grads,
    batch_size=batch_size,
    unroll=unroll,
  )

  def value_and_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any, BalancerState]:
    losses, _, aux, grads, state = balanced(*args, **kwargs)
    return ((losses, aux) if has_aux else losses), grads, state

  return value_and_grad


def balanced_grad(
  fun: Callable[..., Any],
  balancer: Balancer | LossBalancer | GradientBalancer,
  argnums: int | Sequence[int] = 0,
  *,
  has_aux: bool = False,
  trunk: Callable[..., Any] | None = None,
  keep_task_grads: bool = True,
  batch_size: int = 1,
  unroll: bool | None = None,
) -> Callable[..., tuple[jax.Array, jax.Array, Any, Any, Any]]:
  """`value_and_balanced_grad`, whose arguments it takes, with the weighted losses.

  The function returns `(losses, weighted, aux, grads, state)`.
  """
  batch_size = check_passes(batch_size, unroll)
  numbers, is_single = check_argnums(argnums)
  both = Balancer.of(balancer)
  loss, gradient = both
  part = "loss" if gradient is None else "gradient"
  if gradient is not None:
    check_use(gradient, trunk is not None, keep_task_grads)
  if not keep_task_grads and (batch_size > 1 or unroll is not None):
    raise ValueError(
      "with keep_task_grads=False all tasks are taken at once; leave out batch_size "
      "and unroll."
    )
  names = [set() if of is None else keywords(of) for of in (fun, trunk)]
  taps = 0 if gradient is None or keep_task_grads else gradient.num_tasks

  def balanced(
    *args: Any,
    state: Any = None,
    present: jax.typing.ArrayLike | None = None,
    **extra: Any,
  ) -> tuple[jax.Array, jax.Array, Any, Any, Any]:
    if "losses" in extra:
      raise TypeError("losses are what fun returns; they cannot be passed by keyword.")
    if state is None and any(isinstance(arg, BalancerState) for arg in args):
      raise TypeError(
        "state is missing: the balancer's state must be passed by keyword, as "
        "state=state."
      )
    given = extra if present is None else {**extra, "present": present}
    of_fun, of_trunk = (
      {name: value for name, value in given.items() if name in known} for known in names
    )
    params: Any = differentiated(args, numbers)
    params = params[0] if is_single else params
    places = tuple(number % len(args) for number in numbers)
    call = Call(args, of_fun, places, has_aux)
    if trunk is not None:
      back = at_features(trunk, fun, call, of_trunk, taps)
    elif gradient is None:
      back = at_parameters(fun, call, [False] * len(jax.tree.leaves(params)), 0)
    else:
      back = at_parameters(fun, call, shared_leaves(gradient.shared, params), taps)
    losses = back.losses
    is_part = balancer is not both and not isinstance(state, BalancerState)
    if is_part and state is not None:
      state = BalancerState(None, None)._replace(**{part: state})
    state = both.check_state(state, params, len(losses))
    mask = None if present is None else check_present(present, len(losses))

    def each(pull_back: Callable[[jax.Array], Any]) -> Any:
      return pull_back_each(pull_back, losses, batch_size, unroll)

    of_loss = dict(extra)
    if trunk is not None:  # for a loss balancer that asks
      of_loss.setdefault("rep_norms", lambda chunks: rep_norms(each(back.at), chunks))
    weighted, pull_back, loss_state = _weigh(loss, losses, state.loss, mask, of_loss)

    def through(cotangent: jax.Array) -> jax.Array:
      # in `shard_map` weights may vary less than the losses that they weigh
      cotangent = cotangent.astype(weighted.dtype) + jnp.zeros_like(weighted)
      (cotangent,) = pull_back(cotangent)
      # a loss that has no logarithm must not pass for one without a gradient
      return jnp.where(jnp.isfinite(weighted), cotangent, jnp.nan)

    ways, new = back.through(through), None
    if gradient is None or state.gradient is None:
      ones = jnp.ones_like(weighted)
      grads = ways.whole(ways.at(ones), ones)
    else:
      grads, new = _combine(
        gradient,
        ways,
        each if keep_task_grads else None,
        state.gradient,
        mask,
        weighted,
        {**extra, "losses": losses},
      )
    grads = grads[0] if is_single else grads
    state = BalancerState(loss_state, new)
    if is_part:
      state = state._asdict()[part]
    return losses, weighted, back.aux, grads, state

  return balanced


def _weigh(
  loss: LossBalancer | None, losses: jax.Array, state: Any, present: Any, extra: Any
) -> tuple[jax.Array, Callable[[jax.Array], Any], Any]:
  """The weighted losses, their pull-back, and the state of the loss balancer."""

  def weigh(losses: jax.Array) -> tuple[jax.Array, Any]:
    if loss is None:
      return losses if present is None else jnp.where(present, losses, 0), None
    return loss.update(losses, state, present=present, **extra)

  return jax.vjp(weigh, losses, has_aux=True)


def _combine(
  balancer: GradientBalancer,
  ways: PullBack,
  each: Callable[[Callable[[jax.Array], Any]], Any] | None,
  state: GradientState,
  present: jax.Array | None,
  weighted: jax.Array,
  extra: dict[str, Any],
) -> tuple[tuple[Any, ...], GradientState]:
  """The balanced gradient, by K backward passes, or by one where weights are held."""

  def of_present(weights: jax.Array) -> jax.Array:
    return weights if present is None else jnp.where(present, weights, 0.0)

  def finish(combined: Combined) -> tuple[tuple[Any, ...], GradientState]:
    leaves, others, new = combined
    grads = ways.whole(leaves, of_present(others))
    return grads, settle(new, state, grads, present)

  def with_weights(new: GradientState) -> tuple[tuple[Any, ...], GradientState]:
    assert balancer.apply is not None
    return finish(balancer.apply(ways.at(of_present(new.weights)), new))

  def keeping() -> tuple[tuple[Any, ...], GradientState]:
    assert each is not None
    stacked = each(ways.at)
    grads = TaskGrads([flat_if_free(leaf) for leaf in stacked], present)
    leaves, others, new = balancer.combine(grads, state, **extra)
    shapes = (leaf.shape[1:] for leaf in stacked)
    leaves = [leaf.reshape(shape) for leaf, shape in zip(leaves, shapes, strict=True)]
    return finish(Combined(leaves, others, new))

  def lean() -> tuple[tuple[Any, ...], GradientState]:
    assert balancer.weigh is not None
    gramian = gramian_through(ways.products, one_hot(weighted), present)
    grads = TaskGrads(None, present, gramian)
    return with_weights(balancer.weigh(grads, state, **extra))

  every_task = lean if each is None else keeping
  if balancer.update_every == 1:
    return every_task()
  return jax.lax.cond(
    state.steps_left == 0, every_task, lambda: with_weights(one_step_less(state))
  )
