"""What there is to know of the surfaces that rays have met."""

from typing import NamedTuple

import numpy as np

from igb_jax.data.rooms._rays import Hits, Intrinsics, Rays
from igb_jax.data.rooms._rows import FLOOR_ROW, RUG_ROW, Rows
from igb_jax.data.rooms._solids import BOX, CYLINDER
from igb_jax.data.rooms._view import View


class Surface(NamedTuple):
  """What is seen in each of the P = H W pixels.

  Attributes:
    row: i64[P].
    point: f32[3, P], metres, room axes.
    normal: f32[3, P], room axes.
    axis: i64[P], the axis of its solid that the face is across.
    place: f32[2, P], metres along the face from its middle, first across and then,
      if it is upright, upwards.
    extent: f32[2, P], half the width and height of the face, metres.
    size: f32[P], metres of the surface that a pixel spans.
  """

  row: np.ndarray
  point: np.ndarray
  normal: np.ndarray
  axis: np.ndarray
  place: np.ndarray
  extent: np.ndarray
  size: np.ndarray


def surface_at(
  rows: Rows, view: View, camera: Intrinsics, rays: Rays, hits: Hits
) -> Surface:
  """What there is to know of the surfaces that rays have met."""
  row, depth = hits.row.ravel(), hits.depth.ravel()
  direction = rays.direction.reshape(3, -1)
  point = view.position.astype(np.float32)[:, None] + depth * direction
  # unlike an index, `take` keeps each axis together in memory
  cos, sin = rows.turn.take(row, axis=1)
  half = rows.half.take(row, axis=1)

  local, towards = np.empty_like(point), np.empty_like(point)
  for own, (x, y, z) in ((local, point), (towards, direction)):
    own[0] = cos * x + sin * y
    own[1] = cos * y - sin * x
    own[2] = z
  local -= rows.centre.take(row, axis=1)
  scaled = local / half

  # A ray enters by that of the faces towards it whose plane it meets last; it leaves
  # the room, seen from within, by a face away from it.
  ahead = np.sign(towards)
  facing = scaled * ahead
  facing *= np.where(row == 0, np.float32(1), np.float32(-1))
  axis = np.where(facing[1] > facing[0], 1, 0)
  axis[facing[2] > np.maximum(facing[0], facing[1])] = 2
  across_x, across_z = axis == 0, axis == 2
  normal = np.where(axis == np.arange(3)[:, None], -ahead, np.float32(0))
  place, extent = np.empty((2, 2, len(row)), np.float32)
  for array, of in ((place, local), (extent, half)):
    array[0] = np.where(across_x, of[1], of[0])
    array[1] = np.where(across_z, of[1], of[2])

  shape = rows.shape[row]
  curved = np.flatnonzero(shape != BOX)
  if curved.size:
    on = scaled[:, curved]
    outwards = on / half[:, curved]
    upright = shape[curved] == CYLINDER
    outwards[2, upright] = 0
    outwards /= np.sqrt(np.square(outwards).sum(axis=0))
    cap = upright & (facing[2, curved] > np.hypot(on[0], on[1]) - 1e-4)
    outwards[:2, cap] = 0
    outwards[2, cap] = -ahead[2, curved[cap]]
    normal[:, curved] = outwards
    place[0, curved] = np.arctan2(on[1], on[0]) * half[0, curved]

  x, y, z = normal
  normal = np.stack([cos * x - sin * y, sin * x + cos * y, z])
  room = np.flatnonzero(row == 0)
  row[room] = 2 * axis[room] + (ahead[axis[room], room] > 0)
  low_x, high_x, low_y, high_y = rows.rug
  rug = (row == FLOOR_ROW) & (low_x < point[0]) & (point[0] < high_x)
  row[rug & (low_y < point[1]) & (point[1] < high_y)] = RUG_ROW
  slant = np.abs((normal * direction).sum(axis=0))
  slant /= np.sqrt(np.square(direction).sum(axis=0))
  size = depth / np.float32(camera.fx) / np.maximum(slant, np.float32(0.2))
  return Surface(row, point, normal, axis, place, extent, size)
