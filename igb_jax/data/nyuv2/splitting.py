"""Which scenes of NYUv2 are for training, for validation and for testing."""

import dataclasses
from typing import Literal, get_args

import numpy as np

SplitName = Literal["standard", "paper"]
"""How scenes are divided, see `split`."""

_PAPER_VALIDATION, _PAPER_TEST = 197, 457


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Positions of scenes in `NYUv2`, disjoint and in order.

  Attributes:
    train: i64[number of training scenes].
    validation: i64[number of validation scenes], which may be 0.
    test: i64[number of test scenes].
  """

  train: np.ndarray
  validation: np.ndarray
  test: np.ndarray


def split(
  num_train: int,
  num_validation: int,
  num_test: int,
  name: SplitName = "standard",
  *,
  seed: int = 0,
) -> Split:
  """Says which scenes are for what, of those in the order train, validation, test.

  `standard` is 795 for training and 654 for testing, none for validation: a source's
  own validation scenes are tested too. `paper` divides those 654 into 197 for
  validation and 457 for testing, at random, unless the source does so itself; of fewer
  scenes it takes the same share, at least one.

  Args:
    num_train: Number of training scenes.
    num_validation: Number of the source's own validation scenes.
    num_test: Number of test scenes.
    name: `standard` or `paper`.
    seed: Seed of the division.

  Returns:
    The positions.

  Raises:
    ValueError: If the name is unknown, there are no training or test scenes, or
      `paper` has fewer than two scenes to divide.

  Example:
    >>> parts = split(795, 0, 654, "paper")
    >>> len(parts.train), len(parts.validation), len(parts.test)
    (795, 197, 457)
  """
  if name not in get_args(SplitName):
    names = list(get_args(SplitName))
    raise ValueError(f"unknown split {name!r}, expected one of {names}")
  if num_train < 1 or num_validation < 0 or num_test < 1:
    raise ValueError(
      f"there must be training and test scenes, got {num_train} train, "
      f"{num_validation} validation and {num_test} test"
    )
  train = np.arange(num_train)
  held_out = np.arange(num_train, num_train + num_validation + num_test)
  if name == "standard":
    return Split(train, held_out[:0], held_out)
  if not num_validation:
    if num_test < 2:
      raise ValueError(
        "the split paper divides the test scenes for validation and needs at least 2 "
        f"of them, got {num_test}; raise `limit`, if there is one"
      )
    share = _PAPER_VALIDATION / (_PAPER_VALIDATION + _PAPER_TEST)
    num_validation = max(1, round(share * num_test))
    held_out = np.random.default_rng(seed).permutation(held_out)
  validation, test = np.split(held_out, [num_validation])
  return Split(train, np.sort(validation), np.sort(test))
