"""Scenes of rooms, from a seed and an index."""

import random

import numpy as np

from igb_jax.data.rooms import _colours, _layout, _light, _rays, _rows, _surfaces, _view
from igb_jax.data.rooms._rays import Intrinsics
from igb_jax.data.scene import Scene

_SMALLEST = 8  # pixels a side


def intrinsics(height: int, width: int) -> Intrinsics:
  """The camera of NYUv2 at another size of picture.

  Args:
    height: rows of the picture, of NYUv2's rows 44 to 471.
    width: columns of the picture, of NYUv2's columns 40 to 601.

  Raises:
    TypeError: a size is not an integer.
    ValueError: a size is below 8.

  Example:
    >>> [round(number, 1) for number in intrinsics(288, 384)]
    [355.2, 350.4, 195.5, 141.5]
  """
  _check("height", height, _SMALLEST)
  _check("width", width, _SMALLEST)
  x, y = width / (601 - 40), height / (471 - 44)
  return Intrinsics(
    fx=518.86 * x, fy=519.47 * y, cx=(325.58 - 40) * x, cy=(253.74 - 44) * y
  )


def scene(index: int, *, seed: int = 0, height: int = 96, width: int = 128) -> Scene:
  """Makes a scene.

  Args:
    index: its number, from 0; there is no last.
    seed: the seed of all scenes: another seed gives other scenes for the same indices.
    height: rows H of the picture.
    width: columns W of the picture.

  Returns:
    The scene: the same in every process. Other sizes show the same scene, with other
    noise in the image.

  Raises:
    TypeError: an argument is not an integer.
    ValueError: the index or the seed is negative, or a size is below 8.

  Example:
    >>> image, label, depth, normal = scene(3, height=24, width=32)
    >>> image.shape, label.shape, depth.shape, normal.shape
    ((24, 32, 3), (24, 32), (24, 32), (24, 32, 3))
    >>> from igb_jax.data.scene import CLASS_NAMES
    >>> CLASS_NAMES[label[-1, -1]]
    'bed'
  """
  _check("index", index, 0)
  _check("seed", seed, 0)
  camera = intrinsics(height, width)
  seeds = np.random.SeedSequence([int(seed), int(index)])
  generator = np.random.default_rng(seeds)
  # a room takes some thousand numbers one by one, for which NumPy is slow
  dice = random.Random(int.from_bytes(seeds.generate_state(8).tobytes(), "little"))
  room = _layout.furnish(dice)
  view = _view.look(room, dice)

  rows = _rows.rows_of(room)
  rays = _rays.rays_through(view, camera, int(height), int(width))
  hits = _rays.cast(rows, view, camera, rays)
  surface = _surfaces.surface_at(rows, view, camera, rays, hits)

  table = _colours.random_table(generator)
  albedo, glow = _colours.paint(rows, surface, table)
  light = _light.illuminate(room, rows, surface, dice) + glow
  shape = hits.depth.shape
  normal = surface.normal.T @ view.axes.T.astype(np.float32)
  return Scene(
    image=_light.develop(albedo * light, shape, generator, dice),
    label=rows.label[surface.row].reshape(shape),
    depth=hits.depth,
    normal=normal.reshape(*shape, 3),
  )


class Rooms:
  """Scenes 0 to `size` - 1 of a seed, as a random access source.

  Args:
    size: how many scenes.
    seed: the seed of the scenes.
    height: rows of the pictures.
    width: columns of the pictures.

  Raises:
    TypeError: an argument is not an integer.
    ValueError: the size or the seed is negative, or a side is below 8.

  Example:
    >>> rooms = Rooms(2, seed=1, height=24, width=32)
    >>> [scene.label.shape for scene in rooms]
    [(24, 32), (24, 32)]
  """

  def __init__(self, size: int, *, seed: int = 0, height: int = 96, width: int = 128):
    _check("size", size, 0)
    _check("seed", seed, 0)
    intrinsics(height, width)  # checks
    self._size, self._seed = int(size), int(seed)
    self._height, self._width = int(height), int(width)

  def __len__(self) -> int:
    """Number of scenes."""
    return self._size

  def __getitem__(self, index: int) -> Scene:
    """Scene number `index`, which may count from the end."""
    if not -self._size <= index < self._size:
      raise IndexError(f"index must be within {self._size} scenes, got {index}.")
    return scene(
      index % self._size, seed=self._seed, height=self._height, width=self._width
    )

  def __repr__(self) -> str:
    """The call that makes this source."""
    return (
      f"Rooms({self._size}, seed={self._seed}, height={self._height}, "
      f"width={self._width})"
    )


def _check(name: str, number: int, least: int) -> None:
  if isinstance(number, bool | np.bool_) or not isinstance(number, int | np.integer):
    raise TypeError(f"{name} must be an integer, got {number!r}.")
  if number < least:
    raise ValueError(f"{name} must be at least {least}, got {number}.")
