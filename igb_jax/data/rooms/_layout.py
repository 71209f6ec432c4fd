"""Where things stand in a room.

The floor has the origin at its centre, with x and y along the walls and z upwards,
in metres. Walls 0 to 3 are those at -y, +x, +y and -x.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from igb_jax.data.rooms import _furniture as furniture
from igb_jax.data.rooms._fixtures import (
  door,
  floor_paint,
  picture,
  rug,
  wall_paint,
  window,
)
from igb_jax.data.rooms._solids import (
  Bounds,
  Dice,
  Interval,
  Paint,
  Solids,
  Triple,
  bounds,
  column,
  draw_colour,
  moved,
  plain,
)
from igb_jax.data.rooms._things import big_thing


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

  half: Triple
  faces: list[Paint]
  solids: Solids
  pieces: list[Bounds]
  rug: tuple[tuple[Interval, Interval], Paint]
  lamp: Triple
  daylight: Triple


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


# From walls 0 to 3 into the room.
_INWARDS = ((0, 1), (-1, 0), (0, -1), (1, 0))


class _Site:
  """The places of a room that are still free."""

  def __init__(self, dice: Dice, half: Triple):
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
    self.solids += moved(solids, x, y)
    self.pieces.append(shifted)
    return True

  def against_wall(self, solids: Solids, gap: float = 0.04, tries: int = 8) -> int:
    """Puts a piece with its back to a wall; gives the wall 0 to 3, or -1."""
    turned: dict[int, tuple[Solids, Bounds]] = {}
    (left, right), (_, front), _ = bounds(solids)
    for _ in range(tries):
      wall = self.dice.randrange(4)
      along, away = self.half[wall % 2], self.half[1 - wall % 2]
      if right - left > 2 * along or front > 2 * away - 0.8:
        continue
      if wall not in turned:
        piece = moved(solids, yaw=wall * math.pi / 2)
        turned[wall] = piece, bounds(piece)
      s = self.dice.uniform(-along - left, along - right)
      (inwards_x, inwards_y) = _INWARDS[wall]
      x, y = s * inwards_y - away * inwards_x, -s * inwards_x - away * inwards_y
      if self._place(*turned[wall], x, y, gap):
        return wall
    return -1

  def anywhere(self, solids: Solids, yaw: float, tries: int = 6) -> None:
    """Puts a piece on the floor, free of the walls."""
    solids = moved(solids, yaw=yaw)
    around = bounds(solids)
    for _ in range(tries):
      x, y = (self.dice.uniform(-half, half) for half in self.half[:2])
      if self._place(solids, around, x, y, 0.1):
        return


def furnish(dice: Dice) -> Room:
  """Draws a room with its furniture."""
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
    wall = site.against_wall(window(dice), tries=12)
    if wall >= 0 and (number == 0 or daylight[0] == daylight[1] == 0):
      x, y, _ = site.pieces[-1]
      inwards = _INWARDS[wall]
      daylight = (
        (x[0] + x[1]) / 2 + 0.4 * inwards[0],
        (y[0] + y[1]) / 2 + 0.4 * inwards[1],
        1.6,
      )
  site.against_wall(door(dice))
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
    site.against_wall(picture(dice))
  for _ in range(dice.randint(2, 6)):
    site.anywhere(big_thing(dice), dice.uniform(-0.5, 0.5))

  lamp = dice.uniform(-0.4, 0.4) * half[0], dice.uniform(-0.4, 0.4) * half[1]
  radius, high = dice.uniform(0.12, 0.22), half[2]
  shade = plain((1.0, 0.97, 0.9))._replace(glow=1.2)
  solids = [
    *site.solids,
    *moved([column("objects", shade, radius, (high - 0.16, high - 0.001))], *lamp),
  ]
  wall = wall_paint(dice)
  walls = [wall] * 4
  if dice.random() < 0.2:  # one wall of another colour
    walls[dice.randrange(4)] = wall_paint(dice)
  ceiling = plain(draw_colour(dice, (0.08, 0.16), (0.0, 0.08), (0.88, 0.98)), 0.97, 0.8)
  return Room(
    half=half,
    faces=[*walls, floor_paint(dice), ceiling],
    solids=solids,
    pieces=site.pieces,
    rug=rug(dice, half),
    lamp=(*lamp, high - 0.25),
    daylight=daylight,
  )
