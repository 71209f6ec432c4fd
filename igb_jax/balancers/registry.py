"""Balancers by name: `create("igbv1", num_tasks=3, steps_per_epoch=397)`."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any

from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.methods import ALIASES, METHODS, Kind
from igb_jax.balancers.types import Balancer

# Hyper-parameters of a combination that differ from those of its parts, as published.
_COMBINATIONS = {
  frozenset({"igbv2", name}): {"learning_rate": 1e-4}
  for name in ("mgda", "pcgrad", "nashmtl")
}


def names() -> dict[str, Kind]:
  """The names that `create` knows, each with what the method balances.

  Example:
    >>> from igb_jax import balancers
    >>> balancers.names()["igbv1"]
    'loss'
  """
  return {name: method.kind for name, method in METHODS.items()}


def names_of(spec: str) -> list[str]:
  """The names in a specification, without spaces, and aliases by what they mean.

  Args:
    spec: as for `create`; its names need not be known.

  Raises:
    TypeError: it is not a string.

  Example:
    >>> names_of("igbv1 + imtl")
    ['igbv1', 'imtlg']
  """
  if not isinstance(spec, str):
    raise TypeError(f"the specification must be a string, got {spec!r}.")
  found = (name.strip() for name in spec.split("+"))
  return [ALIASES.get(name, name) for name in found]


def create(
  spec: str,
  *,
  num_tasks: int,
  steps_per_epoch: int | None = None,
  shared: Shared = None,
  **hyperparameters: Any,
) -> Balancer:
  """Makes the balancer that a specification names.

  Args:
    spec: "loss", "gradient" or "loss+gradient", with names from `names()` or the
      aliases "ls" for "ew" and "imtl" for "imtlg". The agent of "igbv2+mgda",
      "igbv2+pcgrad" and "igbv2+nashmtl" learns at the rate 1e-4 unless told otherwise,
      as in the published code.
    num_tasks: K, the number of tasks.
    steps_per_epoch: number of updates that make an epoch. It describes the run, so
      every specification accepts it; igbv1 and igbv2 need it.
    shared: which parameters the tasks share, for gradient balancers: a predicate on the
      key path, a pytree of bools like the parameters or a prefix of one, or None for
      all. It describes the model, so every specification accepts it.
    **hyperparameters: keyword arguments of the methods named. One that several parts
      of the specification take goes to each of them.

  Returns:
    A `Balancer`, whose part that the specification does not name is None.

  Raises:
    TypeError: no part of the specification takes a hyper-parameter, or a part lacks
      one that it needs.
    ValueError: an unknown name, two names of one kind, or a bad value.

  Example:
    >>> from igb_jax.balancers import create
    >>> balancer = create("igbv1", num_tasks=3, steps_per_epoch=397)
    >>> balancer.loss.init().weights.shape
    (3,)
    >>> balancer.gradient is None
    True
    >>> create("igbv1+nashmtl", num_tasks=3, steps_per_epoch=397).gradient is None
    False
  """
  names_in_spec = names_of(spec)
  offered: dict[str, Any] = {
    "num_tasks": num_tasks,
    **_COMBINATIONS.get(frozenset(names_in_spec), {}),
    **hyperparameters,
  }
  if steps_per_epoch is not None:
    offered["steps_per_epoch"] = steps_per_epoch
  if shared is not None:
    offered["shared"] = shared
  facts = {"num_tasks", "steps_per_epoch", "shared"}
  known: set[str] = set()
  parts: dict[str, Any] = {"loss": None, "gradient": None}
  for name in names_in_spec:
    if name not in METHODS:
      raise ValueError(
        f"unknown balancer {name!r} in {spec!r}{_nearest(name)}; known: "
        f"{', '.join(METHODS)}; a loss and a gradient balancer combine as "
        "'loss+gradient'."
      )
    kind, constructor = METHODS[name].kind, METHODS[name].constructor
    if parts[kind] is not None:
      raise ValueError(f"{spec!r} names two {kind} balancers; at most one is allowed.")
    parameters = _parameters(constructor)
    needed = [
      parameter.name
      for parameter in parameters.values()
      if parameter.default is parameter.empty and parameter.name not in offered
    ]
    if needed:
      raise TypeError(f"{name!r} needs {', '.join(needed)}; pass it by keyword.")
    arguments = {key: value for key, value in offered.items() if key in parameters}
    known |= parameters.keys() - facts
    parts[kind] = functools.partial(constructor, **arguments)
  unknown = sorted(hyperparameters.keys() - known)
  if unknown:
    raise TypeError(
      f"{spec!r} takes no hyper-parameter {', '.join(unknown)}; it takes "
      f"{', '.join(sorted(known)) or 'none'}."
    )
  return Balancer(**{kind: make and make() for kind, make in parts.items()})


def _nearest(name: str) -> str:
  """The question whether a known name was meant, or nothing where none is like it."""
  spelt = {name: name for name in METHODS} | ALIASES
  for known, method in METHODS.items():
    spelt.setdefault(method.constructor_name, known)
  near = difflib.get_close_matches(name.lower(), spelt, n=1)
  return f" (did you mean {spelt[near[0]]!r}?)" if near else ""


def _parameters(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """The parameters that a name leaves open; "rlw" and "rlwlog" fix `log`."""
  fixed = constructor.keywords if isinstance(constructor, functools.partial) else {}
  parameters = inspect.signature(constructor).parameters
  return {name: value for name, value in parameters.items() if name not in fixed}
