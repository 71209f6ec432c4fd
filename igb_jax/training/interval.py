"""How often a run is saved."""

import re
from typing import NamedTuple

_SECONDS = {"s": 1, "min": 60, "h": 3600}


class Interval(NamedTuple):
  """Time from one checkpoint to the next: one of the two.

  Attributes:
    epochs: number of epochs, or None.
    seconds: the seconds of wall time, or None.
  """

  epochs: int | None = None
  seconds: float | None = None


EVERY_EPOCH = Interval(epochs=1)


def parse_interval(text: str) -> Interval:
  """Reads --checkpoint-every: a number and a unit, epoch, epochs, s, min or h.

  Raises:
    ValueError: it is not of that form, or not positive.

  Example:
    >>> parse_interval("10min")
    Interval(epochs=None, seconds=600.0)
  """
  match = re.fullmatch(r"([1-9]\d*) ?(epochs?|s|min|h)", text, re.ASCII)
  if match is None:
    raise ValueError(
      "--checkpoint-every must be a positive whole number with a unit, such as 1epoch, "
      f"5epochs, 30s, 10min or 1h, got {text!r}."
    )
  number, unit = int(match[1]), match[2]
  if unit in _SECONDS:
    return Interval(seconds=float(number * _SECONDS[unit]))
  return Interval(epochs=number)
