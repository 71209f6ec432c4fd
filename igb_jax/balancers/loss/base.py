"""What all loss balancers do alike: check the losses, and deal with absent tasks."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_losses, check_one_of, check_present
from igb_jax.balancers.common import constant_float32, is_valid
from igb_jax.balancers.types import InitFn, LossBalancer

# What a loss balancer does about the tasks that a batch lacks.
#
# "leave_out" weighs the others as if the absent tasks did not exist. So where every
# batch has one task, it always has the weight of a lone task, and nothing is balanced.
# "remember" weighs all K tasks, with the latest valid loss of each absent task in the
# place of the one that is missing. The method cannot tell the two apart: a remembered
# loss enters its history again. A task that has had no valid loss yet is left out.
#
# Either way the weighted loss of an absent task is 0.
Absent = Literal["leave_out", "remember"]


class RememberingState(NamedTuple):
  """State of a loss balancer made with `absent="remember"`.

  Attributes:
    method: state of the method itself.
    losses: f32[K], the latest valid loss of each task; 1 before the first.
    seen: bool[K], which tasks have had a valid loss.
    weights: f32[K], weights of the latest update; 0 for a task that was absent.
  """

  method: Any
  losses: jax.Array
  seen: jax.Array
  weights: jax.Array


def loss_balancer(
  num_tasks: int,
  init: InitFn,
  update: Callable[..., tuple[jax.Array, Any]],
  absent: Absent = "leave_out",
  observe: Callable[..., Any] | None = None,
) -> LossBalancer:
  """A `LossBalancer` of a method that need not know what an absent loss may be.

  Args:
    num_tasks: K.
    init: see `InitFn`.
    update: `update(losses, state, present, **extra) -> (weighted_losses, state)` with
      losses float[K], and present bool[K] or None for all. The loss of an absent task
      is 1, and must reach neither the other tasks nor a history; weight and weighted
      loss that it gets are replaced by 0.
    absent: see `Absent`.
    observe: `observe(losses_after, state, present) -> state` for `ObserveFn`, or None;
      losses and present as those of `update`.

  Raises:
    ValueError: `absent` is neither "leave_out" nor "remember".
  """

  def masked_update(
    losses: jax.typing.ArrayLike,
    state: Any,
    *,
    present: jax.typing.ArrayLike | None = None,
    **extra: Any,
  ) -> tuple[jax.Array, Any]:
    losses = check_losses(losses, num_tasks)
    if present is None:
      return update(losses, state, None, **extra)
    present = check_present(present, num_tasks)
    # selected before and after, so that no derivative of a NaN is taken
    weighted, new = update(jnp.where(present, losses, 1.0), state, present, **extra)
    new = optax.tree.where(present.any(), new, state)
    return (
      jnp.where(present, weighted, 0.0),
      new._replace(weights=jnp.where(present, new.weights, 0.0)),
    )

  def masked_observe(
    losses_after: jax.typing.ArrayLike,
    state: Any,
    *,
    present: jax.typing.ArrayLike | None = None,
  ) -> Any:
    assert observe is not None
    losses = check_losses(losses_after, num_tasks)
    if present is None:
      return observe(losses, state, None)
    present = check_present(present, num_tasks)
    new = observe(jnp.where(present, losses, 1.0), state, present)
    return optax.tree.where(present.any(), new, state)

  balancer = LossBalancer(init, masked_update, observe and masked_observe)
  remembers = check_one_of("absent", absent, ("leave_out", "remember")) == "remember"
  return _remembering(balancer, num_tasks) if remembers else balancer


def _remembering(balancer: LossBalancer, num_tasks: int) -> LossBalancer:
  """The same balancer, which takes the latest loss of a task that is absent."""

  def init(key: jax.Array | None = None) -> RememberingState:
    method = balancer.init(key)
    return RememberingState(
      method=method,
      losses=jnp.ones(num_tasks, jnp.float32),
      seen=jnp.zeros(num_tasks, bool),
      weights=jnp.copy(method.weights),  # a step that donates its state must own both
    )

  def update(
    losses: jax.typing.ArrayLike,
    state: RememberingState,
    *,
    present: jax.typing.ArrayLike | None = None,
    **extra: Any,
  ) -> tuple[jax.Array, RememberingState]:
    if not isinstance(state, RememberingState):
      raise TypeError(
        'a balancer with absent="remember" needs the state of its own init, got '
        f"{type(state).__name__}."
      )
    losses = check_losses(losses, num_tasks)
    if present is None:
      present = jnp.ones(num_tasks, bool)
    present = check_present(present, num_tasks)
    weighted, method = balancer.update(
      jnp.where(present, losses, state.losses),
      state.method,
      present=(present | state.seen) & present.any(),
      **extra,
    )
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    return jnp.where(present, weighted, 0.0), RememberingState(
      method=method,
      losses=jnp.where(valid, constant, state.losses),
      seen=state.seen | valid,
      weights=jnp.where(present, method.weights, 0.0),
    )

  def observe(
    losses_after: jax.typing.ArrayLike,
    state: RememberingState,
    *,
    present: jax.typing.ArrayLike | None = None,
  ) -> RememberingState:
    assert balancer.observe is not None
    return state._replace(
      method=balancer.observe(losses_after, state.method, present=present)
    )

  return LossBalancer(init, update, balancer.observe and observe)
