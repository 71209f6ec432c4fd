"""A learning rate that falls from epoch to epoch by a plan."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_count


class HalveEveryState(NamedTuple):
  """State of `halve_every`.

  Attributes:
    epochs: i32[], epochs that have ended.
    scale: f32[], current / initial learning rate.
  """

  epochs: jax.Array
  scale: jax.Array


def halve_every(num_epochs: int) -> optax.GradientTransformationExtraArgs:
  """Halves the learning rate after every so many epochs.

  A companion of `optax.contrib.reduce_on_plateau` with the same use: `update` is called
  at the end of each epoch, and the state's `scale` multiplies the updates.

  Args:
    num_epochs: epochs from one halving to the next.

  Raises:
    TypeError, ValueError: `num_epochs` is no integer of at least 1.

  Example:
    >>> plan = halve_every(2)
    >>> state = plan.init(())
    >>> for _ in range(4):
    ...   _, state = plan.update((), state, value=1.0)
    >>> print(state.scale)
    0.25
  """
  num_epochs = check_count("num_epochs", num_epochs)

  def init(params: Any) -> HalveEveryState:
    del params
    return HalveEveryState(jnp.zeros((), jnp.int32), jnp.ones((), jnp.float32))

  def update(
    updates: Any, state: Any, params: Any = None, **extra: Any
  ) -> tuple[Any, HalveEveryState]:
    del params, extra
    epochs = state.epochs + 1
    scale = jnp.where(epochs % num_epochs == 0, 0.5 * state.scale, state.scale)
    scaled = jax.tree.map(lambda update: scale * update, updates)
    return scaled, HalveEveryState(epochs, scale)

  return optax.GradientTransformationExtraArgs(init, update)
