"""What all loss balancers do alike: check the losses, and leave out absent tasks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.common import check_losses, check_present
from igb_jax.balancers.types import InitFn, LossBalancer


def loss_balancer(
  num_tasks: int, init: InitFn, update: Callable[..., tuple[jax.Array, Any]]
) -> LossBalancer:
  """A `LossBalancer` of a method that need not know what an absent loss may be.

  Args:
    num_tasks: K.
    init: see `InitFn`.
    update: `update(losses, state, present, **extra) -> (weighted_losses, state)` with
      losses f32[K], and present bool[K] or None for all. The loss of an absent task is
      1, and must reach neither the other tasks nor a history; weight and weighted loss
      that it gets are replaced by 0.
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

  return LossBalancer(init, masked_update)
