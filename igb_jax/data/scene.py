"""A scene: an image with its label, depth and normal at every pixel."""

from typing import NamedTuple

import numpy as np

CLASS_NAMES = (
  "bed",
  "books",
  "ceiling",
  "chair",
  "floor",
  "furniture",
  "objects",
  "picture",
  "sofa",
  "table",
  "tv",
  "wall",
  "window",
)
"""The 13 classes of NYUv2, in the order of the labels."""

IGNORED = -1
"""Label of pixels without a class."""


class Scene(NamedTuple):
  """An image and the targets of its three tasks.

  Attributes:
    image: f32[H, W, 3], red, green and blue in [0, 1].
    label: i32[H, W], class, -1 where it is to be ignored.
    depth: f32[H, W], metres, 0 where it is unknown.
    normal: f32[H, W, 3], of length 1, x right, y up, z towards the camera; 0, 0, 0
      where it is unknown.
  """

  image: np.ndarray
  label: np.ndarray
  depth: np.ndarray
  normal: np.ndarray


class RawScene(NamedTuple):
  """A scene as its source has it, checked.

  Attributes:
    image: u8[H, W, 3].
    label: i32[H, W], -1 ignored.
    depth: f32[H, W], metres, 0 unknown.
    normal: f32[H, W, 3], of the source's lengths, see
      `igb_jax.data.normals.unit_normals`; None if it is to be derived from depth.
  """

  image: np.ndarray
  label: np.ndarray
  depth: np.ndarray
  normal: np.ndarray | None
