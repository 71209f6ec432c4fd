"""How the numbers of a set of scenes are coded, which one file alone may not show.

Normals of [0, 1] and labels that count from 1 pass the checks of a single file: a
corner seen from the left has no negative normal, and few images show every class. A
file gives signs instead, and those of all files together tell.
"""

from typing import Any, Literal

import numpy as np

from igb_jax.data.normals import unit_normals
from igb_jax.data.scene import CLASS_NAMES, IGNORED, RawScene

Sign = Literal[
  "label", "depth", "normal",
  "class 0", "ignored", "bright", "negative normal", "scaled normal",
]  # fmt: skip
"""What some pixel has: a label, a depth or a normal; the class 0, the label that is
ignored, a colour above 1 / 255, a normal with a negative component, a normal whose
length is not 1."""

_TOLERANCE = 0.01  # in a normal's components and length


def signs_of(raw: RawScene) -> frozenset[Sign]:
  """The signs that a scene gives.

  Args:
    raw: The scene, as its source has it.
  """
  normal = np.zeros((0, 3)) if raw.normal is None else raw.normal
  known = normal[unit_normals(normal).any(axis=-1)]
  length = np.linalg.norm(known, axis=-1)
  found: dict[Sign, Any] = {
    "label": (raw.label != IGNORED).any(),
    "depth": raw.depth.any(),
    "normal": known.size,
    "class 0": (raw.label == 0).any(),
    "ignored": (raw.label == IGNORED).any(),
    "bright": (raw.image > 1).any(),
    "negative normal": (known < -_TOLERANCE).any(),
    "scaled normal": (np.abs(length - 1) > _TOLERANCE).any(),
  }
  return frozenset(sign for sign, some in found.items() if some)


def misread(kind: str, signs: frozenset[Sign]) -> list[str]:
  """What has another coding than it is read with, for certain.

  Args:
    kind: Format of the source.
    signs: Those of all its scenes.

  Returns:
    The problems, each beginning with the files that have it.
  """
  problems = []
  if kind != "arrays":  # all others hold integers, whose coding is that of the format
    return problems
  if "bright" not in signs:
    problems.append(
      "*/image/*.npy: no value is above 1 / 255, expected 0 to 1; if they were divided "
      "by 255 twice, multiply by 255"
    )
  if "scaled normal" in signs and "negative normal" not in signs:
    problems.append(
      "*/normal/*.npy: no component of any normal is negative, and their lengths are "
      "not 1, expected unit vectors with components of -1 to 1; if n is stored as "
      "(n + 1) / 2, store 2 * n - 1"
    )
  return problems


def assumed(kind: str, signs: frozenset[Sign]) -> str | None:
  """What is taken for granted of the labels, None if the set itself shows it.

  Counted from 1, with 0 for unlabelled, no label is the ignored one; with the ignored
  one for unlabelled, none is 0. Neither is an error: a few rooms may have no bed, and
  rendered images no pixel without a class.

  Args:
    kind: Format of the source.
    signs: Those of all its scenes.
  """
  ignored = -1 if kind == "arrays" else 255
  names: dict[Sign, str] = {"class 0": "0", "ignored": str(ignored)}
  lacking = " or ".join(name for sign, name in names.items() if sign not in signs)
  if kind == "mat" or not lacking:  # the official file names its classes
    return None
  last = len(CLASS_NAMES) - 1
  return (
    f"labels taken as 0 ({CLASS_NAMES[0]}) to {last} ({CLASS_NAMES[last]}), {ignored} "
    f"ignored, though no pixel is {lacking}; if they count the classes from 1, store "
    f"label - 1, and {ignored} where there is none"
  )
