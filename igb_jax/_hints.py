"""What may help, in sentences that name methods by their traits: for `diagnosis`."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from igb_jax.balancers.methods import METHODS, GradientTraits, LossTraits

LARGE_FACTOR = 10.0  # between scales of tasks, from which the text calls one dominant
DEPENDENT = 1e3  # condition number: of two tasks, a cosine of 0.998 or -0.998
PARALLEL = 0.99  # |cosine|
_MOST_NAMES = 5  # of methods in a hint
_Traits = TypeVar("_Traits", LossTraits, GradientTraits)


def factor_of(values: np.ndarray) -> float:
  """Largest over smallest of some positive numbers; 1 of none."""
  return float(values.max() / values.min()) if len(values) else 1.0


def hints(
  losses: np.ndarray,
  norms: np.ndarray,
  known: np.ndarray,
  positive: np.ndarray,
  cosines: np.ndarray,
  condition_number: float,
) -> list[str]:
  """What may help, a sentence or two each.

  Args:
    losses: f64[K].
    norms: f64[K], of the task gradients.
    known: i[N], the tasks whose gradient is finite and not zero.
    positive: i[M], the tasks whose loss is finite and positive.
    cosines: f64[P], of the pairs of known tasks.
    condition_number: the condition number of the normalised Gramian.
  """
  found: list[str] = []
  if not np.isfinite([*losses, *norms]).all():
    found.append(
      "no balancer mends numbers that are not finite: look for their origin first, "
      "as with jax.debug_nans."
    )
  if (losses <= 0).any():
    found.append(
      "balancers that take logarithms, roots or ratios of the losses "
      f"({_methods(LossTraits, lambda its: its.needs_positive)}) need positive ones."
    )
  if (norms == 0).any():
    found.append(
      "a task with a zero gradient does not move the shared parameters: it may not "
      "depend on them, or have no labels in this batch (then pass present= to the "
      "balancer)."
    )
  if factor_of(norms[known]) >= LARGE_FACTOR:
    both = np.intersect1d(known, positive)
    after = factor_of(norms[both] / losses[both])
    if after < LARGE_FACTOR and len(both) == len(known):
      found.append(
        "divided by their losses the gradients are within a factor of "
        f"{after:.3g}: a loss balancer that takes logarithms may be enough, such as "
        f"{_methods(LossTraits, _divides_by_losses)}."
      )
    else:
      found.append(
        "dividing by the losses does not even the gradients out. A gradient balancer "
        "whose direction does not depend on the scales may: "
        f"{_methods(GradientTraits, lambda its: its.scale_invariant)}. So may other "
        "units of a loss."
      )
  elif factor_of(losses[positive]) >= LARGE_FACTOR:
    found.append(
      "the losses differ and their gradients do not: the sum of the gradients may be "
      "balanced as it is."
    )
  if (cosines < 0).any():
    found.append(
      "where tasks conflict over many batches, a gradient balancer may help, at the "
      "cost of one backward pass per task. Those whose result conflicts with no task: "
      f"{_methods(GradientTraits, lambda its: its.avoids_conflict)}."
    )
  if len(known) > 1 and condition_number >= DEPENDENT:
    is_parallel = (cosines >= PARALLEL).any()
    found.append(
      "where gradients are dependent, the weights of methods that solve a problem "
      f"({_methods(GradientTraits, lambda its: its.solves)}) may change a lot from "
      "step to step: see the residual in their state"
      + ("; parallel tasks may be trained as one." if is_parallel else ".")
    )
  if not found and len(losses) > 1:
    found.append("nothing here asks for a balancer: equal weights may do as well.")
  return found


def _divides_by_losses(traits: LossTraits) -> bool:
  """Whether it divides gradients by their losses, and draws no weights beside."""
  return traits.takes_log and traits.scale_invariant and not traits.draws


def _methods(kind: type[_Traits], choose: Callable[[_Traits], bool]) -> str:
  """Some of the methods of a kind whose traits are as wanted, by name."""
  every = ((name, method.traits) for name, method in METHODS.items())
  return _some([n for n, t in every if isinstance(t, kind) and choose(t)])


def _some(names: Sequence[str]) -> str:
  """Names in a list that stays short.

  Example:
    >>> _some(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 others'
  """
  more = len(names) - _MOST_NAMES
  others = f" and {more} other{'s' if more > 1 else ''}" if more > 0 else ""
  return ", ".join(names[:_MOST_NAMES]) + others
