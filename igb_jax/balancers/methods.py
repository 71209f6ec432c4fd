"""What is known of every balancer; each file of a method says it above its constructor.

    @method("mgda", "gradient", paper="Sener and Koltun, NeurIPS 2018", ...)
    def mgda(num_tasks: int, ...): ...

`create`, lists of names, tables and the parameters of tests read `METHODS`. A trait
that is forgotten is an error on import, so that no test leaves a method out.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

_Constructor = TypeVar("_Constructor", bound=Callable[..., Any])
Kind = Literal["loss", "gradient"]


class LossTraits(NamedTuple):
  """What tests and tables need to know of a loss balancer.

  Attributes:
    forward_passes: how many a step takes, of the whole net.
    backward_passes: how many a step takes: "1", or "heads" for one more pass per task
      through the heads alone.
    draws: whether it draws random numbers, so that `init` needs a key.
    needs_positive: whether it takes logarithms, roots or ratios of the losses, which
      must be positive for that.
    equivariant: whether permuted tasks get permuted weights.
    scale_invariant: whether the direction of the summed gradient stays as it is where
      one loss is multiplied by a constant from the first step on.
    takes_log: whether it weighs the logarithms of the losses.
    normalised: whether the weights sum to the number of tasks.
    positive: whether the weight of a task that is present is always positive.
    recovers: whether one outlier is forgotten in hundreds of steps.
    ties_tasks: whether the weight of a task depends on the losses of others.
    needs: extra arguments that `update` cannot do without.
  """

  forward_passes: int
  backward_passes: Literal["1", "heads"]
  draws: bool
  needs_positive: bool
  equivariant: bool
  scale_invariant: bool
  takes_log: bool
  normalised: bool
  positive: bool
  recovers: bool
  ties_tasks: bool
  needs: tuple[str, ...]


class GradientTraits(NamedTuple):
  """What tests and tables need to know of a gradient balancer.

  Attributes:
    forward_passes: how many a step takes, of the whole net.
    backward_passes: how many a step takes: "K", one per task.
    draws: whether it draws random numbers.
    needs_positive: whether the losses must be positive, of which it takes ratios.
    equivariant: whether permuted tasks give the same result.
    degree: p, where c times all task gradients give c^p times the result; None where
      the length of the result depends on c in another way.
    scale_invariant: whether the direction of the result stays as it is where one
      task's gradient is multiplied by a constant.
    gramian_only: whether it needs no more of the task gradients than their Gramian.
    solves: whether it solves a problem, whose `residual` the state keeps.
    avoids_conflict: whether the result has no negative product with any task gradient.
    heads: what leaves that are not shared get: the weighted or the plain sum.
    fewest_tasks: the least K with the default hyper-parameters.
    needs: extra arguments that `update` cannot do without.
  """

  forward_passes: int
  backward_passes: Literal["K"]
  draws: bool
  needs_positive: bool
  equivariant: bool
  degree: float | None
  scale_invariant: bool
  gramian_only: bool
  solves: bool
  avoids_conflict: bool
  heads: Literal["weighted", "summed"]
  fewest_tasks: int
  needs: tuple[str, ...]


class Method(NamedTuple):
  """What is known of a balancer.

  Attributes:
    kind: what it balances.
    constructor: makes it.
    paper: authors, venue and year; empty for what needs no paper.
    traits: what else tests and tables need, by kind.
  """

  kind: Kind
  constructor: Callable[..., Any]
  paper: str
  traits: LossTraits | GradientTraits

  @property
  def constructor_name(self) -> str:
    """The constructor's name in `igb_jax.balancers`.

    Example:
      >>> from igb_jax import balancers
      >>> METHODS["rlwlog"].constructor_name
      'random_loss_weighting'
    """
    return getattr(self.constructor, "func", self.constructor).__name__

  @property
  def summary(self) -> str:
    """What it does, in a sentence: the first line of the constructor's docstring.

    Example:
      >>> from igb_jax import balancers
      >>> METHODS["mgda"].summary
      'Follows the shortest vector in the convex hull of the task gradients.'
    """
    made = getattr(self.constructor, "func", self.constructor)
    return (made.__doc__ or "").partition("\n")[0]


# Loss balancers first, each kind in the order of the alphabet.
METHODS: dict[str, Method] = {}
ALIASES: dict[str, str] = {}


def method(
  name: str,
  kind: Kind,
  *,
  paper: str = "",
  alias: str | None = None,
  fixed: dict[str, Any] | None = None,
  **traits: Any,
) -> Callable[[_Constructor], _Constructor]:
  """Gives a constructor a name in `create`; one with several forms has several.

  Args:
    name: its name in `create`.
    kind: what it balances.
    paper: authors (where known), venue and year; empty where there is no paper.
    alias: another name.
    fixed: hyper-parameters that the name fixes.
    **traits: all of those of `LossTraits` or `GradientTraits`.

  Raises:
    TypeError: a trait is missing, or there is none of that name.
    ValueError: the name or the alias is taken by another constructor.
  """
  checked = (LossTraits if kind == "loss" else GradientTraits)(**traits)

  def register(constructor: _Constructor) -> _Constructor:
    made = functools.partial(constructor, **fixed) if fixed else constructor
    new = Method(kind, made, paper, checked)
    for known in filter(None, (name, alias)):
      if known in METHODS or known in ALIASES:
        raise ValueError(
          f"{constructor.__name__}: the balancer name {known!r} is already registered."
        )
    METHODS[name] = new
    if alias is not None:
      ALIASES[alias] = name
    for _, known in sorted((each.kind != "loss", n) for n, each in METHODS.items()):
      METHODS[known] = METHODS.pop(known)
    return constructor

  return register
