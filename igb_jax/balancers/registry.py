"""Balancers by name: `create("igbv1", num_tasks=3, steps_per_epoch=397)`."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from igb_jax.balancers import gradient, loss
from igb_jax.balancers.gradient.stacked import Shared
from igb_jax.balancers.types import Balancer


class Method(NamedTuple):
  """What is known of a balancer.

  Attributes:
    kind: what it balances.
    constructor: makes it.
    reference: authors, venue and year; empty for what needs no paper.
  """

  kind: Literal["loss", "gradient"]
  constructor: Callable[..., Any]
  reference: str = ""

  @property
  def constructor_name(self) -> str:
    """The constructor's name in `igb_jax.balancers`.

    Example:
      >>> METHODS["rlwlog"].constructor_name
      'random_loss_weighting'
    """
    return getattr(self.constructor, "func", self.constructor).__name__

  @property
  def backward_passes(self) -> str:
    """How many a step takes: "1", or "K" for K tasks.

    Example:
      >>> METHODS["igbv1"].backward_passes, METHODS["mgda"].backward_passes
      ('1', 'K')
    """
    return {"loss": "1", "gradient": "K"}[self.kind]


_RLW = "Lin et al., TMLR 2022"
_DWA = "Liu et al., CVPR 2019"
_UW = "Kendall et al., CVPR 2018"
_IGB = "Dai et al., UAI 2023"
_NASH = "Navon et al., ICML 2022"


def _form(constructor: Callable[..., Any], *, log: bool) -> Callable[..., Any]:
  return functools.partial(constructor, log=log)


METHODS = {
  "ew": Method("loss", loss.equal),
  "si": Method("loss", loss.scale_invariant, _NASH),
  "stl": Method("loss", loss.single_task),
  "rlw": Method("loss", _form(loss.random_loss_weighting, log=False), _RLW),
  "rlwlog": Method("loss", _form(loss.random_loss_weighting, log=True), _RLW),
  "dwa": Method("loss", _form(loss.dynamic_weight_average, log=False), _DWA),
  "dwalog": Method("loss", _form(loss.dynamic_weight_average, log=True), _DWA),
  "uw": Method("loss", _form(loss.uncertainty_weighting, log=False), _UW),
  "uwlog": Method("loss", _form(loss.uncertainty_weighting, log=True), _UW),
  "igbv1": Method("loss", loss.igbv1, _IGB),
  "igbv2": Method("loss", loss.igbv2, _IGB),
  "mgda": Method("gradient", gradient.mgda, "Sener and Koltun, NeurIPS 2018"),
  "pcgrad": Method("gradient", gradient.pcgrad, "Yu et al., NeurIPS 2020"),
  "cagrad": Method("gradient", gradient.cagrad, "Liu et al., NeurIPS 2021"),
  "imtlg": Method("gradient", gradient.imtl_g, "Liu et al., ICLR 2021"),
  "nashmtl": Method("gradient", gradient.nash_mtl, _NASH),
}
ALIASES = {"ls": "ew", "imtl": "imtlg"}
# Hyper-parameters of a combination that differ from those of its parts, as published.
_COMBINATIONS = {
  frozenset({"igbv2", name}): {"learning_rate": 1e-4}
  for name in ("mgda", "pcgrad", "nashmtl")
}


def names() -> dict[str, Literal["loss", "gradient"]]:
  """The names that `create` knows, each with what the method balances.

  Example:
    >>> names()["igbv1"]
    'loss'
  """
  return {name: method.kind for name, method in METHODS.items()}


def names_of(spec: str) -> list[str]:
  """The names in a specification, without spaces, and aliases by what they mean.

  Args:
    spec: as for `create`; its names need not be known.

  Raises:
    TypeError: it is no string.

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
    kind, constructor, _ = METHODS[name]
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
