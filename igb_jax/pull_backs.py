"""Where task gradients meet: in the parameters that are shared, or in features.

A `PullBack` takes cotangents of the losses back to that place, and from there on to all
parameters.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.stacked import join, split
from igb_jax.balancers.solvers.taps import probes, tap
from igb_jax.task_grads import differentiate, replaced


class Call(NamedTuple):
  """One call of a function of losses.

  Attributes:
    args: the arguments by position.
    kwargs: the arguments by keyword.
    numbers: which of `args` to differentiate.
    has_aux: whether the function returns a pair `(losses, aux)`.
  """

  args: tuple[Any, ...]
  kwargs: dict[str, Any]
  numbers: tuple[int, ...]
  has_aux: bool

  @property
  def params(self) -> tuple[Any, ...]:
    """The arguments to differentiate."""
    return tuple(self.args[number] for number in self.numbers)


class PullBack(NamedTuple):
  """The losses, and the ways back from them.

  Attributes:
    losses: float[K].
    aux: what else was returned, or None.
    at: `at(cotangent f32[K]) -> leaves`, the gradient where task gradients meet.
    products: `products(cotangent) -> f32[1 + K] a leaf`, see
      `igb_jax.balancers.solvers.taps`; nothing where there are no taps.
    whole: `whole(leaves, cotangent) -> gradients`, a tuple of one tree for each
      argument: from the gradient where task gradients meet, and from the losses by all
      other ways.
  """

  losses: jax.Array
  aux: Any
  at: Callable[[jax.Array], list[jax.Array]]
  products: Callable[[jax.Array], list[jax.Array]]
  whole: Callable[[list[jax.Array], jax.Array], tuple[Any, ...]]

  def through(self, pull_back: Callable[[jax.Array], jax.Array]) -> "PullBack":
    """The same, for cotangents that `pull_back` first takes back to the losses."""
    return self._replace(
      at=lambda cotangent: self.at(pull_back(cotangent)),
      products=lambda cotangent: self.products(pull_back(cotangent)),
      whole=lambda leaves, cotangent: self.whole(leaves, pull_back(cotangent)),
    )


def at_parameters(
  fun: Callable[..., Any], call: Call, is_shared: list[bool], num_taps: int
) -> PullBack:
  """Task gradients of `fun` meet in the parameters that are shared.

  `is_shared` says so of every leaf that is differentiated; `num_taps` is K with taps, 0
  without.
  """
  leaves, structure = jax.tree.flatten(call.params)
  shared = split(leaves, is_shared)[True] if num_taps else []
  position = len(call.args)

  def tapped(*args: Any, **kwargs: Any) -> Any:
    given, at_leaves = call._replace(args=args[:-1]), args[-1]
    parts = split(jax.tree.leaves(given.params), is_shared)
    if num_taps:
      parts[True] = list(map(tap, parts[True], at_leaves))
    values = structure.unflatten(join(parts[True], parts[False], is_shared))
    return fun(*replaced(given.args, call.numbers, values), **kwargs)

  losses, pull_back, aux = differentiate(
    tapped,
    (*call.numbers, position),
    call.has_aux,
    (*call.args, probes(num_taps, shared)),
    call.kwargs,
  )

  def parts_of(cotangent: jax.Array) -> dict[bool, list[jax.Array]]:
    return split(jax.tree.leaves(pull_back(cotangent)[:-1]), is_shared)

  def whole(at_leaves: list[jax.Array], cotangent: jax.Array) -> tuple[Any, ...]:
    others = [] if all(is_shared) else parts_of(cotangent)[False]
    return structure.unflatten(join(at_leaves, others, is_shared))

  return PullBack(
    losses,
    aux,
    at=lambda cotangent: parts_of(cotangent)[True],
    products=lambda cotangent: pull_back(cotangent)[-1],
    whole=whole,
  )


def at_features(
  trunk: Callable[..., Any],
  fun: Callable[..., Any],
  call: Call,
  trunk_kwargs: dict[str, Any],
  num_taps: int,
) -> PullBack:
  """Task gradients meet in the features that a trunk returns.

  `call` is that of `fun(params, features, ...)` without the features, which
  `trunk(params, ...)` returns; `num_taps` is K with taps, 0 without.

  Raises:
    TypeError: `fun` does not take what the trunk gives.
    ValueError: no leaf of the features is floating-point.
  """
  structure = None
  is_float: list[bool] = []

  def of_params(*values: Any) -> tuple[list[jax.Array], list[Any]]:
    nonlocal structure, is_float
    features = trunk(*replaced(call.args, call.numbers, values), **trunk_kwargs)
    leaves, structure = jax.tree.flatten(features)
    is_float = list(map(_is_float, leaves))
    parts = split(leaves, is_float)
    return parts[True], parts[False]

  floats, pull_trunk, others = jax.vjp(of_params, *call.params, has_aux=True)
  assert structure is not None
  if not floats:
    raise ValueError(
      "trunk must return features with a floating-point array, in whose gradients the "
      f"tasks meet, got {structure}."
    )
  features = structure.unflatten(join(floats, others, is_float))
  _check_takes(fun, (call.args[0], features, *call.args[1:]), call.kwargs)

  def heads(*args: Any, **kwargs: Any) -> Any:
    given, (leaves, at_leaves) = args[:-2], args[-2:]
    if num_taps:
      leaves = list(map(tap, leaves, at_leaves))
    assert structure is not None
    features = structure.unflatten(join(leaves, others, is_float))
    return fun(given[0], features, *given[1:], **kwargs)

  position = len(call.args)
  losses, pull_back, aux = differentiate(
    heads,
    (*call.numbers, position, position + 1),
    call.has_aux,
    (*call.args, floats, probes(num_taps, floats if num_taps else [])),
    call.kwargs,
  )

  def whole(leaves: list[jax.Array], cotangent: jax.Array) -> tuple[Any, ...]:
    return jax.tree.map(jnp.add, pull_trunk(leaves), pull_back(cotangent)[:-2])

  return PullBack(
    losses,
    aux,
    at=lambda cotangent: pull_back(cotangent)[-2],
    products=lambda cotangent: pull_back(cotangent)[-1],
    whole=whole,
  )


def _is_float(leaf: Any) -> bool:
  """Whether a feature is differentiated.

  Raises:
    TypeError: it is not an array, or complex.
  """
  try:
    dtype = jax.typeof(leaf).dtype
  except TypeError as error:
    raise TypeError(
      f"trunk must return arrays, got {leaf!r}; let fun close over values that are not "
      "arrays."
    ) from error
  if jnp.issubdtype(dtype, jnp.complexfloating):
    raise TypeError(
      "trunk must return real features, got complex ones; return their real and "
      "imaginary parts."
    )
  return jnp.issubdtype(dtype, jnp.floating)


def keywords(fun: Callable[..., Any]) -> set[str]:
  """The arguments that a function names and that may be passed by keyword."""
  signature = _signature(fun)
  by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
  every = signature.parameters.values() if signature else ()
  return {parameter.name for parameter in every if parameter.kind in by_name}


def _signature(fun: Callable[..., Any]) -> inspect.Signature | None:
  try:
    return inspect.signature(fun)
  except (TypeError, ValueError):  # of a builtin, say
    return None


def _check_takes(
  fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
  signature = _signature(fun)
  if signature is None:
    return
  try:
    signature.bind(*args, **kwargs)
  except TypeError as error:
    raise TypeError(
      "with trunk= the losses are fun(params, features, ...), with the other arguments "
      f"of trunk behind the features: {len(args)} by position here, but fun has the "
      f"signature {signature} ({error})."
    ) from error
