"""Scenes on the way to the net: resized, cropped, flipped.

Augmentation as in the published code: a scale s of 1, 1.1, ..., 1.5, a random crop of
H/s x W/s, resized back (bilinear for image and normals, nearest for label and depth),
depth divided by s (what is nearer looks larger); and a horizontal flip every other
time, which negates the normals' x.

The published code leaves interpolated normals as they are, shorter than 1 at edges and
at holes, so that a perfect prediction has a loss above 0. Here they are made unit
vectors again, or unknown where less than half of one is left.
"""

import numpy as np

from igb_jax.data.scene import Scene

SCALES = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)


def augment(scene: Scene, generator: np.random.Generator) -> Scene:
  """Crops and flips a scene at random.

  Args:
    scene: the scene.
    generator: the generator of the random numbers; equal ones give equal results.

  Returns:
    A scene of the same shape.

  Example:
    >>> scene = Scene(np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.int32),
    ...               np.ones((4, 6), np.float32), np.ones((4, 6, 3), np.float32))
    >>> augment(scene, np.random.default_rng(0)).image.shape
    (4, 6, 3)
  """
  height, width = scene.label.shape
  scale = float(generator.choice(SCALES))
  crop_height, crop_width = int(height / scale), int(width / scale)
  top = generator.integers(height - crop_height + 1)
  left = generator.integers(width - crop_width + 1)
  rows, columns = slice(top, top + crop_height), slice(left, left + crop_width)
  cropped = resize(Scene(*(part[rows, columns] for part in scene)), height, width)
  scene = cropped._replace(depth=(cropped.depth / scale).astype(np.float32))
  return flip(scene) if generator.random() < 0.5 else scene


def flip(scene: Scene) -> Scene:
  """The mirror image: columns reversed, the normals' x negated.

  Args:
    scene: the scene.
  """
  mirrored = Scene(*(np.ascontiguousarray(part[:, ::-1]) for part in scene))
  return mirrored._replace(
    normal=mirrored.normal * np.array([-1.0, 1.0, 1.0], np.float32)
  )


def resize(scene: Scene, height: int, width: int) -> Scene:
  """Resizes a scene: bilinear for image and normals, nearest for label and depth.

  To a whole fraction of its size an image shrinks to means of blocks, so that fine
  patterns do not alias, and the others to what is in the middle of a block.

  Args:
    scene: a scene of any size.
    height: the height of the result.
    width: the width of the result.
  """
  if scene.label.shape == (height, width):
    return scene
  rows, remainder_of_rows = divmod(scene.label.shape[0], height)
  columns, remainder_of_columns = divmod(scene.label.shape[1], width)
  if rows and columns and not remainder_of_rows and not remainder_of_columns:
    blocks = scene.image.reshape(height, rows, width, columns, -1)
    middle = slice(rows // 2, None, rows), slice(columns // 2, None, columns)
    return Scene(
      image=blocks.mean(axis=(1, 3)),
      label=scene.label[middle],
      depth=scene.depth[middle],
      normal=scene.normal[middle],
    )
  return Scene(
    image=_bilinear(scene.image, height, width),
    label=_nearest(scene.label, height, width),
    depth=_nearest(scene.depth, height, width),
    normal=_unit(_bilinear(scene.normal, height, width)),
  )


def _nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
  rows = np.arange(height) * values.shape[0] // height
  columns = np.arange(width) * values.shape[1] // width
  return values[rows[:, None], columns]


def _unit(vectors: np.ndarray) -> np.ndarray:
  length = np.linalg.norm(vectors, axis=-1, keepdims=True)
  return np.where(length >= 0.5, vectors / np.maximum(length, 0.5), np.float32(0))


def _bilinear(values: np.ndarray, height: int, width: int) -> np.ndarray:
  """Linear in both directions; the corners stay (PyTorch's align_corners)."""
  for axis, size in enumerate((height, width)):
    place = np.linspace(0, values.shape[axis] - 1, size, dtype=np.float32)
    below = np.minimum(place.astype(np.int32), max(values.shape[axis] - 2, 0))
    above = np.minimum(below + 1, values.shape[axis] - 1)
    share = (place - below.astype(np.float32)).reshape(
      -1, *[1] * (values.ndim - 1 - axis)
    )
    lower, upper = values.take(below, axis), values.take(above, axis)
    values = lower + share * (upper - lower)
  return values
