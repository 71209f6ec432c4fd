"""What a balancer is.

A loss balancer is a pair of pure functions, in the way of optax:

    state = balancer.init(key)
    weighted_losses, state = balancer.update(losses, state)

Both run inside `jax.jit`; the state is a plain pytree of arrays.
"""

from typing import Any, NamedTuple, Protocol

import jax
import optax


class InitFn(Protocol):
  """`init(key=None) -> state`."""

  def __call__(self, key: jax.Array | None = None) -> Any:
    """Returns the initial state.

    Args:
      key: a PRNG key (`jax.random.key`); methods that draw no random numbers
        ignore it.

    Returns:
      The state, a NamedTuple of arrays with a field `weights: f32[K]`.

    Raises:
      ValueError: the method draws random numbers and `key` is None.
    """
    ...


class UpdateFn(Protocol):
  """`update(losses, state, **extra) -> (weighted_losses, state)`."""

  def __call__(
    self, losses: jax.typing.ArrayLike, state: Any, **extra: Any
  ) -> tuple[jax.Array, Any]:
    """Weighs the losses and advances the state.

    Args:
      losses: float[K], the losses of the batch; computed with in float32.
      state: the state that `init` or the previous `update` returned.
      **extra: extra arguments; those that a method does not know are ignored.

    Returns:
      The weighted losses, f32[K], differentiable in `losses` with the weights
      held constant, and the new state.

    Raises:
      TypeError: `losses` are not floating-point numbers.
      ValueError: `losses` have not the shape (num_tasks,).
    """
    ...


class LossBalancer(NamedTuple):
  """A loss balancer: two pure functions, as optax has it.

  Attributes:
    init: `init(key=None) -> state`, see `InitFn`.
    update: `update(losses, state, **extra) -> (weighted_losses, state)`, see
      `UpdateFn`.

  Example:
    >>> import jax.numpy as jnp
    >>> from igb_jax import balancers
    >>> balancer = balancers.scale_invariant(num_tasks=2)
    >>> state = balancer.init()
    >>> weighted, state = balancer.update(jnp.array([1.0, jnp.e]), state)
    >>> print(weighted, state.weights)
    [0. 1.] [1. 1.]
  """

  init: InitFn
  update: UpdateFn


class Balancer(NamedTuple):
  """A combination made by `create`: what weighs losses, what combines gradients.

  Attributes:
    loss: the loss balancer, or None where the specification names none.
    gradient: the gradient balancer, an optax transformation that takes stacked
      task gradients, or None where the specification names none.
  """

  loss: LossBalancer | None
  gradient: optax.GradientTransformationExtraArgs | None
