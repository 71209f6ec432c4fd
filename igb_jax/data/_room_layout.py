"""Where things stand in a room of `igb_jax.data.rooms`, and where the camera does.

The floor has the origin at its centre, with x and y along the walls and z upwards,
in metres. Walls 0 to 3 are those at -y, +x, +y and -x.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from igb_jax.data import _room_furniture as furniture
from igb_jax.data._room_furniture import (
  MOTTLED,
  OBJECTS,
  PLAID,
  PLANKS,
  STRIPES,
  TILES,
  Bounds,
  Dice,
  Interval,
  Paint,
  Solids,
)


class Room(NamedTuple):
  """An empty room with what `furnish` put into it.

  Attributes:
    half: half the extents in x and y, and the height, metres.
    faces: paints of the walls at -x, +x, -y, +y, of the floor and of the ceiling.
    solids: the furniture.
    pieces: bounds of every piece of furniture, ((x, x), (y, y), (z, z)).
    rug: where a rug lies on the floor, ((x, x), (y, y)), and its paint.
    lamp: x, y, z of the lamp, metres.
    daylight: x, y, z of the point before the first window that light comes from.
  """

  half: tuple[float, float, float]
  faces: list[Paint]
  solids: Solids
  pieces: list[Bounds]
  rug: tuple[tuple[Interval, Interval], Paint]
  lamp: tuple[float, float, float]
  daylight: tuple[float, float, float]


class View(NamedTuple):
  """Where the camera is: position f64[3] in metres, axes f64[3, 3] in rows."""

  position: np.ndarray
  axes: np.ndarray


_Builder = Callable[[Dice], Solids]

# What a room is furnished with, in the order in which it gets its place.
_ROOMS: tuple[tuple[tuple[_Builder, float], ...], ...] = (
  (
    (furniture.bed, 1.0),
    (furniture.wardrobe, 0.6),
    (furniture.cabinet, 0.8),
    (furniture.desk, 0.5),
    (furniture.bookshelf, 0.4),
    (furniture.television_stand, 0.3),
    (furniture.chair, 0.5),
  ),
  (
    (furniture.sofa_group, 1.0),
    (furniture.television_stand, 0.9),
    (furniture.sofa, 0.6),
    (furniture.bookshelf, 0.8),
    (furniture.cabinet, 0.5),
    (furniture.dining, 0.3),
    (furniture.chair, 0.4),
  ),
  (
    (furniture.desk, 1.0),
    (furniture.bookshelf, 0.9),
    (furniture.desk, 0.7),
    (furniture.bookshelf, 0.7),
    (furniture.cabinet, 0.6),
    (furniture.sofa, 0.4),
    (furniture.chair, 0.5),
  ),
  (
    (furniture.dining, 1.0),
    (furniture.kitchen, 0.8),
    (furniture.cabinet, 0.6),
    (furniture.sofa, 0.5),
    (furniture.bookshelf, 0.4),
    (furniture.television_stand, 0.4),
    (furniture.chair, 0.3),
  ),
)


def _wall_paint(dice: Dice) -> Paint:
  colour = dice.choice(
    (
      furniture.draw_colour(dice, (0.08, 0.16), (0.02, 0.25), (0.75, 0.95)),
      furniture.draw_colour(dice, (0.0, 1.0), (0.05, 0.35), (0.6, 0.9)),
    )
  )
  if dice.random() < 0.2:
    return Paint(
      STRIPES, colour, furniture.darker(colour, 0.88), dice.uniform(0.1, 0.3)
    )
  return furniture.plain(colour, 0.95, 0.7)


def _floor_paint(dice: Dice) -> Paint:
  draw = dice.random()
  if draw < 0.45:
    wood = furniture.wooden(dice)
    return wood._replace(pattern=PLANKS, scale=dice.uniform(0.08, 0.16))
  if draw < 0.8:
    colour = furniture.draw_colour(dice, (0.04, 0.14), (0.1, 0.4), (0.4, 0.75))
    return furniture.plain(colour, 0.7, 0.06)
  colour = furniture.draw_colour(dice, (0.05, 0.15), (0.02, 0.25), (0.5, 0.85))
  return Paint(
    TILES, colour, furniture.darker(colour, 0.8), dice.choice((0.3, 0.4, 0.5))
  )


def _rug(
  dice: Dice, half: tuple[float, float, float]
) -> tuple[tuple[Interval, Interval], Paint]:
  """A rug, which may have no area."""
  if dice.random() < 0.5:
    return ((0.0, 0.0), (0.0, 0.0)), furniture.plain((0.5, 0.5, 0.5))
  x, y = (dice.uniform(-0.3, 0.3) * half[axis] for axis in range(2))
  a, b = dice.uniform(0.7, 1.3), dice.uniform(0.6, 1.1)
  first = furniture.draw_colour(dice, (0, 1), (0.2, 0.7), (0.3, 0.7))
  second = furniture.draw_colour(dice, (0.05, 0.15), (0.1, 0.4), (0.5, 0.8))
  pattern = dice.choice((MOTTLED, STRIPES, PLAID))
  paint = Paint(pattern, first, second, dice.uniform(0.15, 0.4), (0.1, 0.1))
  return ((x - a, x + a), (y - b, y + b)), paint


# From walls 0 to 3 into the room.
_INWARDS = ((0, 1), (-1, 0), (0, -1), (1, 0))


class _Site:
  """The places of a room that are still free."""

  def __init__(self, dice: Dice, half: tuple[float, float, float]):
    self.dice, self.half = dice, half
    self.solids: Solids = []
    self.pieces: list[Bounds] = []

  def _fits(self, bounds: Bounds, gap: float) -> bool:
    for (low, high), half in zip(bounds[:2], self.half[:2], strict=True):
      if low < -half - 1e-6 or high > half + 1e-6:
        return False
    if bounds[2][1] > self.half[2] - 0.02:
      return False
    return not any(
      all(
        low < other_high + gap and high > other_low - gap
        for (low, high), (other_low, other_high) in zip(bounds, other, strict=True)
      )
      for other in self.pieces
    )

  def _place(
    self, solids: Solids, bounds: Bounds, x: float, y: float, gap: float
  ) -> bool:
    """Adds solids, shifted by x and y, if their place is free."""
    (left, right), (near, far), heights = bounds
    shifted = (left + x, right + x), (near + y, far + y), heights
    if not self._fits(shifted, gap):
      return False
    self.solids += furniture.moved(solids, x, y)
    self.pieces.append(shifted)
    return True

  def against_wall(self, solids: Solids, gap: float = 0.04, tries: int = 8) -> int:
    """Puts a piece with its back to a wall; gives the wall 0 to 3, or -1."""
    turned: dict[int, tuple[Solids, Bounds]] = {}
    (left, right), (_, front), _ = furniture.bounds(solids)
    for _ in range(tries):
      wall = self.dice.randrange(4)
      along, away = self.half[wall % 2], self.half[1 - wall % 2]
      if right - left > 2 * along or front > 2 * away - 0.8:
        continue
      if wall not in turned:
        piece = furniture.moved(solids, yaw=wall * math.pi / 2)
        turned[wall] = piece, furniture.bounds(piece)
      s = self.dice.uniform(-along - left, along - right)
      (inwards_x, inwards_y) = _INWARDS[wall]
      x, y = s * inwards_y - away * inwards_x, -s * inwards_x - away * inwards_y
      if self._place(*turned[wall], x, y, gap):
        return wall
    return -1

  def anywhere(self, solids: Solids, yaw: float, tries: int = 6) -> None:
    """Puts a piece on the floor, free of the walls."""
    solids = furniture.moved(solids, yaw=yaw)
    bounds = furniture.bounds(solids)
    for _ in range(tries):
      x, y = (self.dice.uniform(-half, half) for half in self.half[:2])
      if self._place(solids, bounds, x, y, 0.1):
        return


def furnish(dice: Dice) -> Room:
  """Draws a room with its furniture.

  Args:
    dice: where all random numbers come from.
  """
  half = dice.uniform(1.6, 2.5), dice.uniform(1.7, 2.9), dice.uniform(2.35, 2.8)
  site = _Site(dice, half)
  (kind,) = dice.choices(_ROOMS, (3, 3, 2, 2))
  for build, chance in kind:
    if dice.random() >= chance:
      continue
    if build is furniture.dining:
      site.anywhere(furniture.dining(dice), dice.choice((0.0, math.pi / 2)), tries=12)
    elif build is furniture.chair:
      site.anywhere(furniture.chair(dice), dice.uniform(0, 2 * math.pi))
    else:
      site.against_wall(build(dice))
  daylight = (0.0, 0.0, half[2] - 0.3)
  for number in range(dice.randint(1, 3)):
    wall = site.against_wall(furniture.window(dice), tries=12)
    if wall >= 0 and (number == 0 or daylight[0] == daylight[1] == 0):
      x, y, _ = site.pieces[-1]
      inwards = _INWARDS[wall]
      daylight = (
        (x[0] + x[1]) / 2 + 0.4 * inwards[0],
        (y[0] + y[1]) / 2 + 0.4 * inwards[1],
        1.6,
      )
  site.against_wall(furniture.door(dice))
  for _ in range(dice.randint(2, 6)):
    build = dice.choice(
      (
        furniture.cabinet,
        furniture.bookshelf,
        furniture.wardrobe,
        furniture.nightstand,
        furniture.chair,
      )
    )
    site.against_wall(build(dice), tries=5)
  for _ in range(dice.randint(2, 6)):
    site.against_wall(furniture.picture(dice))
  for _ in range(dice.randint(2, 6)):
    site.anywhere(furniture.big_thing(dice), dice.uniform(-0.5, 0.5))

  lamp = dice.uniform(-0.4, 0.4) * half[0], dice.uniform(-0.4, 0.4) * half[1]
  radius, high = dice.uniform(0.12, 0.22), half[2]
  shade = furniture.plain((1.0, 0.97, 0.9))._replace(glow=1.2)
  solids = [
    *site.solids,
    *furniture.moved(
      [furniture.column(OBJECTS, shade, radius, (high - 0.16, high - 0.001))], *lamp
    ),
  ]
  wall = _wall_paint(dice)
  walls = [wall] * 4
  if dice.random() < 0.2:  # one wall of another colour
    walls[dice.randrange(4)] = _wall_paint(dice)
  ceiling = furniture.plain(
    furniture.draw_colour(dice, (0.08, 0.16), (0.0, 0.08), (0.88, 0.98)), 0.97, 0.8
  )
  return Room(
    half=half,
    faces=[*walls, _floor_paint(dice), ceiling],
    solids=solids,
    pieces=site.pieces,
    rug=_rug(dice, half),
    lamp=(*lamp, high - 0.25),
    daylight=daylight,
  )


def look(room: Room, dice: Dice) -> View:
  """A place for the camera, looking at some piece of furniture past few others.

  Args:
    room: the furnished room.
    dice: where all random numbers come from.
  """
  best, chosen = -math.inf, (0.0, 0.0, 0.0, 0.0, 1.5)
  standing = [piece for piece in room.pieces if piece[2][0] < 0.3]
  standing = standing or [((-0.5, 0.5), (-0.5, 0.5), (0.0, 1.0))]
  for _ in range(16):
    x, y = (dice.uniform(0.25 - half, half - 0.25) for half in room.half[:2])
    z = dice.uniform(1.1, 1.7)
    target = [(low + high) / 2 for low, high in dice.choice(standing)]
    away = math.hypot(target[0] - x, target[1] - y)
    yaw = math.atan2(target[1] - y, target[0] - x) + dice.uniform(-0.3, 0.3)
    pitch = math.atan2(target[2] - z, away) + dice.uniform(-0.1, 0.25)
    pitch = min(max(pitch, -0.45), 0.15)
    cos, sin = math.cos(yaw), math.sin(yaw)

    score = dice.uniform(0, 1)
    for bounds in room.pieces:
      (left, right), (near, far), (low, high) = bounds
      if (
        left - 0.25 < x < right + 0.25
        and near - 0.25 < y < far + 0.25
        and low - 0.25 < z < high + 0.25
      ):
        score -= 100
      a, b = (left + right) / 2 - x, (near + far) / 2 - y
      forward, aside = cos * a + sin * b, abs(cos * b - sin * a)
      if forward > 0 and aside < 0.5 * forward:
        size = max(right - left, far - near) * (high - low)
        score += min(math.sqrt(size) / forward, 1) if forward > 1.3 else -2
    wall = min(
      (room.half[0] - math.copysign(x, x * cos)) / max(abs(cos), 1e-6),
      (room.half[1] - math.copysign(y, y * sin)) / max(abs(sin), 1e-6),
    )
    score += min(wall, 4)  # rather across the room than into a corner
    if score > best:
      best, chosen = score, (yaw, pitch, x, y, z)
  yaw, pitch, x, y, z = chosen
  forward = math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch)
  back = -np.array([*forward, math.sin(pitch)])
  right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
  up = np.cross(back, right)
  roll = dice.gauss(0, 0.02)
  axes = [
    math.cos(roll) * right + math.sin(roll) * up,
    math.cos(roll) * up - math.sin(roll) * right,
    back,
  ]
  return View(np.array([x, y, z]), np.stack(axes))
