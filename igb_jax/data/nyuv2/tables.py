"""What the official NYUv2 says of its camera, its classes and its split."""

import json
from importlib import resources
from typing import Any

import numpy as np

from igb_jax.data.normals import Intrinsics

TABLES: dict[str, Any] = json.loads(
  (resources.files("igb_jax.data") / "nyuv2_tables.json").read_text()
)

WHOLE_SIZE = (480, 640)
"""Rows and columns of the official images."""


def scaled_intrinsics(height: int, width: int) -> Intrinsics:
  """Intrinsics of NYUv2's colour camera for images of a size.

  Images of 480 x 640 are taken to be whole, others to be the valid region (rows 44 to
  470, columns 40 to 600) resized.

  Args:
    height: Rows of the images.
    width: Columns of the images.

  Returns:
    fx, fy, cx, cy in pixels.

  Example:
    >>> [round(value, 2) for value in scaled_intrinsics(288, 384)]
    [355.15, 350.37, 195.48, 141.46]
  """
  camera = TABLES["intrinsics_480x640"]
  fx, fy, cx, cy = (float(camera[name]) for name in ("fx", "fy", "cx", "cy"))
  if (height, width) == WHOLE_SIZE:
    return fx, fy, cx, cy
  top, bottom = TABLES["valid_rows"]
  left, right = TABLES["valid_columns"]
  x, y = width / (right - left), height / (bottom - top)
  return fx * x, fy * y, (cx - left) * x, (cy - top) * y


def classes_of_names(label: np.ndarray) -> np.ndarray:
  """Maps the 894 names of the official labels to the 13 classes.

  Args:
    label: Integers, 0 to 894, 0 unlabelled.

  Returns:
    i32 of the same shape, 0 to 12, -1 unlabelled.

  Raises:
    ValueError: If there are other labels.

  Example:
    >>> from igb_jax.data.scene import CLASS_NAMES
    >>> [CLASS_NAMES[i] for i in classes_of_names(np.array([5, 21]))]
    ['chair', 'wall']
  """
  label13 = np.array([0, *TABLES["label13"]], np.int32) - 1
  classes = label13[np.array([0, *TABLES["label40"]])]
  if label.size and (label.min() < 0 or label.max() >= len(classes)):
    raise ValueError(
      f"labels {label.min()} to {label.max()}, expected 0 to {len(classes) - 1}"
    )
  return classes[label]
