"""Who is worse or better than the reference, and who is as good for less."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from .estimates import CONFIDENCE, Estimate, Spread, holm, paired_difference

Verdict = Literal["worse", "better", "cannot be told apart", "too few seeds to tell"]


@dataclasses.dataclass(frozen=True)
class Difference:
  """How a balancer's delta_m differs from that of the reference.

  Attributes:
    estimate: the interval of its delta_m less the reference's, seed by seed; None
      without a common seed.
    p: the p-value of the t test that there is none; None for fewer than two common
      seeds.
    p_holm: corrected for the number of comparisons.
    verdict: what follows, at 5% of p_holm.
  """

  estimate: Estimate | None
  p: float | None
  p_holm: float | None
  verdict: Verdict


def differences_from(
  reference: str | None, deciding: Mapping[str, Mapping[int, float]]
) -> dict[str, Difference]:
  """How every other balancer differs from the reference.

  Args:
    reference: the balancer, or None.
    deciding: balancer -> seed -> delta_m.
  """
  if reference is None:
    return {}
  found = {
    balancer: paired_difference(values, deciding[reference])
    for balancer, values in deciding.items()
    if balancer != reference
  }
  corrected = holm({name: p for name, (_, p) in found.items() if p is not None})

  def verdict_on(balancer: str, difference: Estimate | None) -> Verdict:
    p_holm = corrected.get(balancer)
    if p_holm is None or difference is None:
      return "too few seeds to tell"
    if p_holm > 1 - CONFIDENCE:
      return "cannot be told apart"
    # its runs on the other seeds may be what made the reference the better one
    return "worse" if difference.mean > 0 else "better"

  return {
    name: Difference(difference, p, corrected.get(name), verdict_on(name, difference))
    for name, (difference, p) in found.items()
  }


def as_good_as(
  reference: str | None, differences: Mapping[str, Difference]
) -> list[str | None]:
  """The reference and those that cannot be told apart from it, over the most seeds.

  One with fewer seeds than others escapes their verdict by that alone. Empty where none
  has seeds enough.
  """
  seeds = {
    name: each.estimate.seeds
    for name, each in differences.items()
    if each.estimate is not None and each.p is not None
  }
  same = (
    name
    for name, number in seeds.items()
    if number == max(seeds.values())
    and differences[name].verdict == "cannot be told apart"
  )
  return [reference, *same] if seeds else []


def equally_cheap_of(cost: Mapping[str, Spread | None]) -> list[str]:
  """Those whose range of times overlaps that of the fastest, if all were timed."""
  times = {name: time for name, time in cost.items() if time is not None}
  if not times or len(times) < len(cost):
    return []
  fastest = min(times.values(), key=lambda time: time.median)
  return [name for name, time in times.items() if time.least <= fastest.largest]
