"""What a balancer is.

A loss balancer is a pair of pure functions, in the way of optax:

    state = balancer.init(key)
    weighted_losses, state = balancer.update(losses, state)

Both run inside `jax.jit`; the state is a plain pytree of arrays.

Every balancer, of losses or of gradients, takes `present=bool[K]` where a batch may
lack the labels of a task. A task that is absent has the weight 0 and contributes
exactly 0, whatever its loss or gradient is, NaN included; its history stays as it was;
and the others are balanced as if it did not exist. Where no task is present nothing of
the state changes but the weights, which are 0.

A loss balancer made with `absent="remember"` weighs the others as if each absent task
still had its latest valid loss, so that tasks that come one per batch are balanced too.
"""

from typing import Any, NamedTuple, NoReturn, Protocol, cast

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.base import GradientBalancer, GradientState


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
  """`update(losses, state, present=None, **extra) -> (weighted_losses, state)`."""

  def __call__(
    self,
    losses: jax.typing.ArrayLike,
    state: Any,
    *,
    present: jax.typing.ArrayLike | None = None,
    **extra: Any,
  ) -> tuple[jax.Array, Any]:
    """Weighs the losses and advances the state.

    Args:
      losses: float[K], the losses of the batch.
      state: the state that `init` or the previous `update` returned.
      present: bool[K], which tasks have a loss in this batch; all by default. The
        weighted loss of an absent task is 0, and so is its derivative.
      **extra: extra arguments; those that a method does not know are ignored.

    Returns:
      The weighted losses, f32[K] (f64[K] where the losses are), differentiable in
      `losses` with the weights held constant, and the new state, whose numbers are
      float32 either way.

    Raises:
      TypeError: `losses` are not floating-point numbers, or `present` are not bools.
      ValueError: `losses` or `present` do not have the shape (num_tasks,).
    """
    ...


class ObserveFn(Protocol):
  """`observe(losses_after, state, present=None) -> state`."""

  def __call__(
    self,
    losses_after: jax.typing.ArrayLike,
    state: Any,
    *,
    present: jax.typing.ArrayLike | None = None,
  ) -> Any:
    """Tells the balancer what the step that it weighed has done.

    Args:
      losses_after: float[K], the losses of the same batch after the step.
      state: the state that `update` returned.
      present: bool[K], which tasks have a loss in this batch; all by default.

    Returns:
      The new state. Where nobody calls it between two updates, the second update takes
      the losses that it is given instead.
    """
    ...


class LossBalancer(NamedTuple):
  """A loss balancer: two or three pure functions, as optax has it.

  Attributes:
    init: `init(key=None) -> state`, see `InitFn`.
    update: `update(losses, state, present=None, **extra) -> (weighted_losses, state)`,
      see `UpdateFn`.
    observe: `observe(losses_after, state, present=None) -> state` of a method that asks
      for the losses after the step, see `ObserveFn`; None for all others.

  Example:
    >>> import jax.numpy as jnp
    >>> from igb_jax import balancers
    >>> balancer = balancers.scale_invariant(num_tasks=2)
    >>> state = balancer.init()
    >>> weighted, state = balancer.update(jnp.array([1.0, jnp.e]), state)
    >>> print(weighted, state.weights)
    [0. 1.] [1. 1.]

    A batch without labels for the first task:

    >>> losses, present = jnp.array([jnp.nan, jnp.e]), jnp.array([False, True])
    >>> weighted, state = balancer.update(losses, state, present=present)
    >>> print(weighted, state.weights)
    [0. 1.] [0. 1.]
  """

  init: InitFn
  update: UpdateFn
  observe: ObserveFn | None = None


class BalancerState(NamedTuple):
  """State of a `Balancer`.

  Attributes:
    loss: the state of the loss balancer; None without one.
    gradient: the state of the gradient balancer; None without one.
  """

  loss: Any
  gradient: GradientState | None


class Balancer(NamedTuple):
  """A combination made by `create`: what weighs losses, what combines gradients.

  Attributes:
    loss: the loss balancer, or None where the specification names none.
    gradient: the gradient balancer, an optax transformation that takes stacked
      task gradients, or None where the specification names none.
  """

  loss: LossBalancer | None
  gradient: GradientBalancer | None

  @property
  def update(self) -> NoReturn:
    """Not there: each part has an `update` of its own.

    Raises:
      AttributeError: always; the message says what to use instead.
    """
    part = ".gradient into optax.chain" if self.gradient else ".loss before the sum"
    raise AttributeError(
      "a Balancer has no update, since it is not an optax transformation: put its part "
      f"{part}, or use igb_jax.value_and_balanced_grad."
    )

  @classmethod
  def of(cls, balancer: Any) -> "Balancer":
    """A balancer of what is one, or a part of one.

    Args:
      balancer: a `Balancer`, a `LossBalancer` or a gradient balancer.

    Raises:
      TypeError: it is none of these, or a part of it is not.
      ValueError: it has no part.
    """
    if isinstance(balancer, LossBalancer):
      return cls(balancer, None)
    if isinstance(balancer, GradientBalancer):
      return cls(None, balancer)
    if not isinstance(balancer, Balancer):
      raise TypeError(
        "balancer must be what igb_jax.balancers.create returns, a LossBalancer or a "
        f"gradient balancer, got {balancer!r}."
      )
    if balancer.loss is None and balancer.gradient is None:
      raise ValueError("balancer must have a part, loss or gradient, and has neither.")
    for part, kind in zip(balancer, (LossBalancer, GradientBalancer), strict=True):
      if part is not None and not isinstance(part, kind):
        raise TypeError(
          f"a part of balancer must be a {kind.__name__}, as the functions of "
          f"igb_jax.balancers make them, got {part!r}; chain an optimiser behind the "
          "balanced gradient, not into the balancer."
        )
    return balancer

  def check_state(self, state: Any, params: Any, num_tasks: int) -> BalancerState:
    """Returns the state of this balancer; runs while tracing.

    Args:
      state: the state to check.
      params: the parameters.
      num_tasks: how many losses there are.

    Raises:
      ValueError: there is no state, or that of another balancer, or it is for another
        number of tasks.
    """
    if state is None:
      raise ValueError(
        "state is missing: pass state=balancer.init(params, key) at the first step; "
        "after that, pass the state returned by the previous step."
      )
    expected = jax.eval_shape(lambda of: self.init(of, jax.random.key(0)), params)
    described = [
      (jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)])
      for tree in (state, expected)
    ]
    if described[0] != described[1]:
      raise ValueError(
        "state must be what this balancer's init(params, key) or its previous step "
        "returned; this state belongs to a different balancer or parameters, or is "
        f"not a BalancerState: got {jax.tree.map(jnp.shape, state)}, expected "
        f"{jax.tree.map(jnp.shape, expected)}."
      )
    expected_tasks = len((state.gradient if self.loss is None else state.loss).weights)
    if num_tasks != expected_tasks:
      raise ValueError(
        f"there are {num_tasks} losses, but the balancer was made for {expected_tasks} "
        "tasks; num_tasks must be the number of losses."
      )
    return state

  def init(self, params: Any, key: jax.Array | None = None) -> BalancerState:
    """The state of both parts before the first step, as one pytree.

    Args:
      params: the parameters, of which a gradient balancer asks which are shared.
      key: a PRNG key; a balancer that draws no random numbers ignores it.

    Raises:
      TypeError: a part of `shared` is not a bool.
      ValueError: a part draws random numbers and `key` is None, or `shared` does not
        fit the parameters or shares none of them.

    Example:
      >>> import jax.numpy as jnp
      >>> from igb_jax import balancers
      >>> balancer = balancers.create("rlw+pcgrad", num_tasks=3)
      >>> state = balancer.init({"w": jnp.zeros(2)}, jax.random.key(0))
      >>> state.loss.weights.shape, state.gradient.weights.shape
      ((3,), (3,))
    """
    keys = (None, None) if key is None else jax.random.split(key)
    loss = gradient = None
    if self.loss is not None:
      loss = self.loss.init(keys[0])
    if self.gradient is not None:
      if self.gradient.draws and key is None:
        raise ValueError(
          "the gradient balancer draws random numbers: init needs a key, e.g. "
          "init(params, jax.random.key(0)), got None."
        )
      gradient = cast(Any, self.gradient.init)(params, keys[1])
    return BalancerState(loss, gradient)
