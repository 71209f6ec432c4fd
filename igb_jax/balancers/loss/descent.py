"""Numbers of a loss balancer that descend a gradient, one Adam a task.

A derivative is clipped at 10 times the root mean square of those before it (which Adam
keeps), or at 10 where that is more, and the very first at 1,000: Adam remembers the
square of a single outlier for thousands of steps, in which the number would stand
still. A loss that stays large is followed all the same, since the limit grows with it.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_positive
from igb_jax.balancers.common import LARGEST_LOG

_B2 = 0.999  # of Adam
_LARGEST_FIRST_DERIVATIVE = 1e3
_LARGEST_DERIVATIVE = 10.0  # also relative to their root mean square so far
_LARGEST_OF_ALL = 1e18  # Adam squares it


def adam(learning_rate: jax.typing.ArrayLike) -> optax.GradientTransformation:
  """The optimiser, for one task; `jax.vmap` its `init` over the tasks.

  Args:
    learning_rate: the learning rate of Adam.

  Raises:
    TypeError: `learning_rate` is not a real number.
    ValueError: it is not finite and positive.
  """
  return optax.adam(check_positive("learning_rate", learning_rate), b2=_B2)


def check_max_weight(max_weight: jax.typing.ArrayLike) -> Callable[[], jax.Array]:
  """The logarithm of the largest weight, which float32 must be able to hold.

  Args:
    max_weight: the largest weight.

  Returns:
    A function that makes f32[] of it: no constructor may run anything on a device.

  Raises:
    TypeError: `max_weight` is not a real number.
    ValueError: it is not finite and positive.
  """
  most = check_positive("max_weight", max_weight)
  if isinstance(most, float):
    most = min(most, math.exp(LARGEST_LOG))

  def log_of() -> jax.Array:
    log = jnp.log(jnp.asarray(most, jnp.float32))
    return jnp.clip(log, -LARGEST_LOG, LARGEST_LOG)

  return log_of


def descend(
  optimizer: optax.GradientTransformation,
  gradient: jax.Array,
  usable: jax.Array,
  values: jax.Array,
  state: optax.OptState,
) -> tuple[jax.Array, optax.OptState]:
  """One step of each number.

  Args:
    optimizer: what `adam` returned.
    gradient: float[K], derivatives; of those that are not usable anything.
    usable: bool[K]; the other numbers and their Adams stay as they were.
    values: f32[K], the numbers.
    state: the state of the optimisers, with a leading axis K.

  Returns:
    The new numbers and states.
  """
  limit = _largest_derivative(state)
  gradient = jnp.clip(gradient, -limit, limit).astype(jnp.float32)
  step, new = jax.vmap(optimizer.update)(gradient, state)
  return optax.tree.where(
    usable, (optax.apply_updates(values, step), new), (values, state)
  )


def _largest_derivative(adam: optax.OptState) -> jax.Array:
  """f32[K]: beyond which a derivative is an outlier to one Adam a task."""
  count, nu = (optax.tree.get(adam, name) for name in ("count", "nu"))
  root_mean_square = jnp.sqrt(nu / (1 - jnp.float32(_B2) ** jnp.maximum(count, 1)))
  limit = _LARGEST_DERIVATIVE * jnp.maximum(root_mean_square, 1.0)
  return jnp.where(
    count > 0, jnp.minimum(limit, _LARGEST_OF_ALL), _LARGEST_FIRST_DERIVATIVE
  )
