"""Casting rays into a room of `igb_jax.data.rooms`: what each pixel shows, and where.

The walls, the floor, the ceiling and the furniture become rows of arrays, and each
solid is cut with the rays of the rectangle of pixels that its corners span. A box is
cut in its own axes by its three pairs of planes; a ray is in it between the last pair
that it enters and the first that it leaves.
"""

import itertools
from typing import NamedTuple

import numpy as np

from igb_jax.data import _room_furniture as furniture
from igb_jax.data._room_layout import Room, View

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


# Rows 0 to 5 are the faces of the room, in the order of `Room.faces`; then the rug.
_FLOOR, _RUG, FACES = 4, 6, 7


class Rows(NamedTuple):
  """The N surfaces of a scene as arrays.

  Attributes:
    shape: i64[N], BOX, ELLIPSOID or CYLINDER.
    turn: f32[2, N], cosine and sine from the room's axes to those of the row.
    centre: f32[3, N], metres, along the row's own axes.
    half: f32[3, N], metres.
    label: i32[N].
    pattern: i64[N].
    front: i64[N], the axis that the front looks along.
    paint: f32[N, 13], first and second colour, scale, grain, cells, glow, and a
      number of its own.
    rug: f32[4], least and largest x and y of the rug.
  """

  shape: np.ndarray
  turn: np.ndarray
  centre: np.ndarray
  half: np.ndarray
  label: np.ndarray
  pattern: np.ndarray
  front: np.ndarray
  paint: np.ndarray
  rug: np.ndarray


def rows_of(room: Room) -> Rows:
  """The room and its furniture as arrays.

  Args:
    room: what `furnish` made.
  """
  (rug_x, rug_y), rug = room.rug
  half_height = room.half[2] / 2
  box = (0.0, 0.0, half_height), (*room.half[:2], half_height)
  labels = [*[furniture.WALL] * 4, furniture.FLOOR, furniture.CEILING, furniture.FLOOR]
  solids = [
    furniture.Solid(furniture.BOX, *box, 0.0, label, paint)
    for label, paint in zip(labels, [*room.faces, rug], strict=True)
  ]
  solids += room.solids
  shape, centre, half, yaw, label, paints = zip(*solids, strict=True)
  centre, half, yaw = np.array(centre), np.array(half), np.array(yaw)

  # turns by right angles become exchanges of x and y, which are faster to cut
  quarters = np.round(yaw / (np.pi / 2)).astype(int)
  rest = yaw - quarters * (np.pi / 2)
  rest[np.abs(rest) < 1e-9] = 0
  odd = quarters % 2 == 1
  half[odd] = half[odd][:, [1, 0, 2]]
  cos, sin = np.cos(rest), np.sin(rest)
  x, y, z = centre.T
  own = np.array([paint[1] + paint[2] for paint in paints])
  others = [
    (paint.scale, *paint.grain, *paint.cells, paint.glow, number)
    for number, paint in enumerate(paints)
  ]
  return Rows(
    shape=np.array(shape),
    turn=np.array([cos, sin], np.float32),
    centre=np.array([cos * x + sin * y, cos * y - sin * x, z], np.float32),
    half=half.T.astype(np.float32),
    label=np.array(label, np.int32),
    pattern=np.array([paint.pattern for paint in paints]),
    front=np.where(odd, 0, 1),
    paint=np.concatenate([own, np.array(others)], axis=1).astype(np.float32),
    rug=np.array([*rug_x, *rug_y], np.float32),
  )


class Rays(NamedTuple):
  """A ray through every pixel.

  Attributes:
    direction: f32[3, H, W], room axes, scaled so that a step of 1 is 1 m of depth.
    inverse: f32[3, H, W], 1 / direction.
  """

  direction: np.ndarray
  inverse: np.ndarray


def rays_through(view: View, camera: Intrinsics, height: int, width: int) -> Rays:
  """The rays through the centres of the pixels.

  Args:
    view: where the camera is.
    camera: its intrinsics.
    height: H.
    width: W.
  """
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
  """Finds what each ray meets first.

  Args:
    rows: the surfaces.
    view: where the camera is.
    camera: its intrinsics.
    rays: a ray a pixel.
  """
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
    if rows.shape[number] == furniture.BOX:
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
  axes = 3 if shape == furniture.ELLIPSOID else 2
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
  """What there is to know of the surfaces that rays have met.

  Args:
    rows: the surfaces.
    view: where the camera is.
    camera: its intrinsics.
    rays: a ray a pixel.
    hits: what the rays have met.
  """
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
  curved = np.flatnonzero(shape != furniture.BOX)
  if curved.size:
    on = scaled[:, curved]
    outwards = on / half[:, curved]
    upright = shape[curved] == furniture.CYLINDER
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
  rug = (row == _FLOOR) & (low_x < point[0]) & (point[0] < high_x)
  row[rug & (low_y < point[1]) & (point[1] < high_y)] = _RUG
  slant = np.abs((normal * direction).sum(axis=0))
  slant /= np.sqrt(np.square(direction).sum(axis=0))
  size = depth / np.float32(camera.fx) / np.maximum(slant, np.float32(0.2))
  return Surface(row, point, normal, axis, place, extent, size)
