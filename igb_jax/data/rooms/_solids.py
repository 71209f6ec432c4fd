"""What the things in a room are made of: painted boxes, ellipsoids and cylinders.

A thing is a list of solids in axes of its own: x along its width, y from its back to
its front, z up from the floor, in metres. What hangs on a wall has its back there.
"""

import colorsys
import math
import random
from typing import NamedTuple

BOX, ELLIPSOID, CYLINDER = range(3)

Triple = tuple[float, float, float]
Colour = Triple
Interval = tuple[float, float]
Bounds = tuple[Interval, Interval, Interval]


class Paint(NamedTuple):
  """How a solid looks.

  Attributes:
    pattern: how it is painted, a key of `PATTERNS`.
    first: main colour, sRGB in [0, 1].
    second: the colour of what the pattern draws on it.
    scale: metres, size of the pattern, or of the handles of panels.
    grain: metres, sizes of the blotches along and across the surface.
    cells: number of columns and rows of panels or panes.
    glow: light that it gives off by itself.
  """

  pattern: str
  first: Colour
  second: Colour
  scale: float = 0.1
  grain: tuple[float, float] = (0.3, 0.3)
  cells: tuple[int, int] = (1, 1)
  glow: float = 0.0


class Solid(NamedTuple):
  """A box, ellipsoid or upright cylinder.

  Attributes:
    shape: BOX, ELLIPSOID or CYLINDER.
    centre: x, y, z in metres.
    half: half its extent along its own axes, metres.
    yaw: radians, turn about the vertical axis through its centre.
    label: its class, one of `CLASSES`.
    paint: its looks.
  """

  shape: int
  centre: Triple
  half: Triple
  yaw: float
  label: str
  paint: Paint


Solids = list[Solid]
Dice = random.Random


def draw_colour(
  dice: Dice, hue: Interval, saturation: Interval, value: Interval
) -> Colour:
  """A colour with hue, saturation and value in given intervals."""
  return colorsys.hsv_to_rgb(
    dice.uniform(*hue) % 1, dice.uniform(*saturation), dice.uniform(*value)
  )


def any_colour(dice: Dice) -> Colour:
  """A colour that is neither pale nor dark."""
  return draw_colour(dice, (0, 1), (0.2, 0.85), (0.25, 0.9))


def scaled(triple: Triple, factor: float) -> Triple:
  """The lengths, or the colour, times a factor."""
  x, y, z = triple
  return x * factor, y * factor, z * factor


def plain(colour: Colour, contrast: float = 0.9, grain: float = 0.2) -> Paint:
  """Paint of one colour with blotches of some contrast and size."""
  return Paint("mottled", colour, scaled(colour, contrast), grain=(grain, grain))


def wooden(dice: Dice) -> Paint:
  """Dark, middling or pale wood with its grain."""
  value = dice.choice(((0.22, 0.35), (0.4, 0.6), (0.6, 0.8)))
  colour = draw_colour(dice, (0.045, 0.1), (0.35, 0.65), value)
  return Paint("mottled", colour, scaled(colour, 0.7), grain=(0.5, 0.03))


def lacquer(dice: Dice) -> Paint:
  """Black or white paint."""
  value = dice.choice(((0.1, 0.2), (0.8, 0.95)))
  return plain(draw_colour(dice, (0, 1), (0.0, 0.08), value), 0.95)


def block(label: str, paint: Paint, x: Interval, y: Interval, z: Interval) -> Solid:
  """A box between least and largest x, y and z."""
  centre = (x[0] + x[1]) / 2, (y[0] + y[1]) / 2, (z[0] + z[1]) / 2
  half = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2, (z[1] - z[0]) / 2
  return Solid(BOX, centre, half, 0.0, label, paint)


def column(label: str, paint: Paint, radius: float, z: Interval) -> Solid:
  """An upright cylinder about the origin."""
  half = radius, radius, (z[1] - z[0]) / 2
  return Solid(CYLINDER, (0.0, 0.0, (z[0] + z[1]) / 2), half, 0.0, label, paint)


def moved(
  solids: Solids, x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0
) -> Solids:
  """The solids turned about the origin by `yaw`, then shifted."""
  cos, sin = math.cos(yaw), math.sin(yaw)
  return [
    solid._replace(
      centre=(
        x + cos * solid.centre[0] - sin * solid.centre[1],
        y + sin * solid.centre[0] + cos * solid.centre[1],
        z + solid.centre[2],
      ),
      yaw=solid.yaw + yaw,
    )
    for solid in solids
  ]


def bounds(solids: Solids) -> Bounds:
  """Least and largest x, y and z of the solids."""
  lows, highs = [], []
  for solid in solids:
    cos, sin = abs(math.cos(solid.yaw)), abs(math.sin(solid.yaw))
    a, b, c = solid.half
    half = cos * a + sin * b, sin * a + cos * b, c
    ends = list(zip(solid.centre, half, strict=True))
    lows.append([middle - away for middle, away in ends])
    highs.append([middle + away for middle, away in ends])
  lows, highs = zip(*lows, strict=True), zip(*highs, strict=True)
  x, y, z = zip(map(min, lows), map(max, highs), strict=True)
  return x, y, z
