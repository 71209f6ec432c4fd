"""The surfaces of a room as rows of arrays."""

from typing import NamedTuple

import numpy as np

from igb_jax.data.rooms._layout import Room
from igb_jax.data.rooms._patterns import PATTERNS
from igb_jax.data.rooms._solids import BOX, Solid
from igb_jax.data.scene import CLASS_NAMES

# Rows 0 to 5 are the faces of the room, in the order of `Room.faces`; then the rug.
FLOOR_ROW, RUG_ROW, FACES = 4, 6, 7


class Rows(NamedTuple):
  """The N surfaces of a scene as arrays.

  Attributes:
    shape: i64[N], BOX, ELLIPSOID or CYLINDER.
    turn: f32[2, N], cosine and sine from the room's axes to those of the row.
    centre: f32[3, N], metres, along the row's own axes.
    half: f32[3, N], metres.
    label: i32[N].
    pattern: i64[N], index into `PATTERNS`.
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
  """The room and its furniture as arrays."""
  (rug_x, rug_y), rug = room.rug
  half_height = room.half[2] / 2
  box = (0.0, 0.0, half_height), (*room.half[:2], half_height)
  labels = [*["wall"] * 4, "floor", "ceiling", "floor"]
  solids = [
    Solid(BOX, *box, 0.0, label, paint)
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
    label=np.array([CLASS_NAMES.index(name) for name in label], np.int32),
    pattern=np.array([list(PATTERNS).index(paint.pattern) for paint in paints]),
    front=np.where(odd, 0, 1),
    paint=np.concatenate([own, np.array(others)], axis=1).astype(np.float32),
    rug=np.array([*rug_x, *rug_y], np.float32),
  )
