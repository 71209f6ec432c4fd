"""Casting rays into a room: what each pixel shows, and how far away it is.

Each solid is cut with the rays of the rectangle of pixels that its corners span. A box
is cut in its own axes by its three pairs of planes; a ray is in it between the last
pair that it enters and the first that it leaves.
"""

import itertools
from typing import NamedTuple

import numpy as np

from igb_jax.data.rooms._rows import FACES, Rows
from igb_jax.data.rooms._solids import BOX, ELLIPSOID
from igb_jax.data.rooms._view import View

_NEAR = 0.05  # metres from the camera within which nothing is seen


class Intrinsics(NamedTuple):
  """A pinhole camera; the centre of pixel (i, j) is at (i + 0.5, j + 0.5).

  A point at depth d seen there is, in camera axes,

      ((j + 0.5 - cx) / fx, -(i + 0.5 - cy) / fy, -1) d

  Attributes:
    fx: focal length in widths of a pixel.
    fy: focal length in heights of a pixel.
    cx: column of the camera's axis.
    cy: row of the camera's axis.
  """

  fx: float
  fy: float
  cx: float
  cy: float


class Rays(NamedTuple):
  """A ray through every pixel.

  Attributes:
    direction: f32[3, H, W], room axes, scaled so that a step of 1 is 1 m of depth.
    inverse: f32[3, H, W], 1 / direction.
  """

  direction: np.ndarray
  inverse: np.ndarray


def rays_through(view: View, camera: Intrinsics, height: int, width: int) -> Rays:
  """The rays through the centres of the pixels."""
  right, up, back = view.axes[:, :, None, None]
  x = (np.arange(width) + 0.5 - camera.cx) / camera.fx
  y = -(np.arange(height) + 0.5 - camera.cy) / camera.fy
  direction = (x * right + y[:, None] * up - back).astype(np.float32)
  direction += np.float32(1e-12)  # no zeros, whose inverse would be infinite
  return Rays(direction, 1 / direction)


class Hits(NamedTuple):
  """What each ray meets first: depth f32[H, W] and row i64[H, W], 0 for the room."""

  depth: np.ndarray
  row: np.ndarray


def cast(rows: Rows, view: View, camera: Intrinsics, rays: Rays) -> Hits:
  """Finds what each ray meets first."""
  cos, sin = rows.turn
  x, y, z = view.position.astype(np.float32)
  origin = np.array([cos * x + sin * y, cos * y - sin * x, np.full_like(cos, z)])
  low = (rows.centre - rows.half - origin).T[:, :, None, None]
  high = (rows.centre + rows.half - origin).T[:, :, None, None]

  depth = np.maximum(low[0] * rays.inverse, high[0] * rays.inverse).min(axis=0)
  row = np.zeros(depth.shape, np.intp)
  rectangles = _rectangles(rows, view, camera, *depth.shape)
  for number in np.flatnonzero(rectangles[:, 0] < rectangles[:, 1]):
    if number < FACES:
      continue
    top, bottom, left, right = rectangles[number].tolist()
    part = slice(top, bottom), slice(left, right)
    if rows.turn[1, number] == 0:
      direction, inverse = rays.direction[:, *part], rays.inverse[:, *part]
    else:
      direction, inverse = turned(rays.direction[:, *part], *rows.turn[:, number])
    if rows.shape[number] == BOX:
      first, second = low[number] * inverse, high[number] * inverse
      near = np.minimum(first, second).max(axis=0)
      hit = near < np.maximum(first, second).min(axis=0)
    else:
      near, hit = _cut_curved(rows.shape[number], low[number], high[number], direction)
    nearest = depth[part]
    hit &= (near > _NEAR) & (near < nearest)
    np.copyto(nearest, near, where=hit)
    np.copyto(row[part], number, where=hit)
  return Hits(depth, row)


def turned(
  direction: np.ndarray, cos: np.ndarray, sin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Directions f32[3, ...] in axes turned by an angle, and their inverses."""
  own = np.empty(direction.shape, np.float32)
  x, y, own[2] = direction
  own[0] = cos * x + sin * y
  own[1] = cos * y - sin * x
  own += np.float32(1e-12)
  return own, 1 / own


def _cut_curved(
  shape: int, low: np.ndarray, high: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Where rays enter a solid with bounds `low` to `high`: depth, and whether."""
  # float64: the difference of squares of a small solid far away has few digits
  half = (high.astype(np.float64) - low) / 2
  origin, step = -(high.astype(np.float64) + low) / 2 / half, direction / half
  axes = 3 if shape == ELLIPSOID else 2
  a = np.square(step[:axes]).sum(axis=0)
  b = (origin[:axes] * step[:axes]).sum(axis=0)
  c = float(np.square(origin[:axes]).sum()) - 1
  rest = b * b - a * c
  # a ray that only grazes has no certain normal
  hit = rest > 1e-4 * a
  root = np.sqrt(np.where(hit, rest, 0))
  near, far = (-b - root) / a, (-b + root) / a
  if axes == 2:
    ends = (np.array([-1.0, 1.0])[:, None, None] - origin[2]) / step[2]
    near = np.maximum(near, ends.min(axis=0))
    hit &= near < np.minimum(far, ends.max(axis=0))
  return near.astype(np.float32), hit


_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3))).T


def _rectangles(
  rows: Rows, view: View, camera: Intrinsics, height: int, width: int
) -> np.ndarray:
  """First and end row and column that each surface can be seen in, i64[N, 4]."""
  x, y, z = rows.centre[:, :, None] + rows.half[:, :, None] * _CORNERS[:, None]
  cos, sin = rows.turn[:, :, None]
  world = np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1) - view.position
  right, up, back = np.moveaxis(world @ view.axes.T, -1, 0)
  depth = np.maximum(-back, _NEAR)
  columns = camera.cx + camera.fx * right / depth
  lines = camera.cy - camera.fy * up / depth
  ends = np.stack([lines.min(1), lines.max(1), columns.min(1), columns.max(1)], axis=1)
  # half a pixel more than the centres that can lie within
  ends = np.floor(np.add(ends, [0, 1, 0, 1]))
  rectangles = np.clip(ends, 0, [height, height, width, width]).astype(int)
  behind = -back <= _NEAR
  rectangles[behind.any(axis=1)] = [0, height, 0, width]
  empty = behind.all(axis=1) | (rectangles[:, 2] >= rectangles[:, 3])
  rectangles[empty] = 0
  return rectangles
