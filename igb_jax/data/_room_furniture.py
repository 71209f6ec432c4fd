"""The furniture of `igb_jax.data.rooms`, made of boxes, ellipsoids and cylinders.

A piece of furniture is a list of solids in axes of its own: x along its width, y
from its back to its front, z up from the floor, in metres. What hangs on a wall has
its back there.
"""

import colorsys
import math
import random
from typing import NamedTuple

CLASSES = (
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
"""Names of the labels 0 to 12, the 13 classes of NYUv2."""

BED, BOOKS, CEILING, CHAIR, FLOOR, FURNITURE, OBJECTS = range(7)
PICTURE, SOFA, TABLE, TV, WALL, WINDOW = range(7, 13)

BOX, ELLIPSOID, CYLINDER = range(3)

# How a surface is painted; rooms.py has one function for each.
PATTERNS = (
  "mottled",
  "stripes",
  "plaid",
  "tiles",
  "planks",
  "panels",
  "spines",
  "glazing",
  "painting",
  "screen",
)
MOTTLED, STRIPES, PLAID, TILES, PLANKS, PANELS = range(6)
SPINES, GLAZING, PAINTING, SCREEN = range(6, 10)

Colour = tuple[float, float, float]
Interval = tuple[float, float]
Bounds = tuple[Interval, Interval, Interval]


class Paint(NamedTuple):
  """How a solid looks.

  Attributes:
    pattern: index into `PATTERNS`.
    first: main colour, sRGB in [0, 1].
    second: the colour of what the pattern draws on it.
    scale: metres, size of the pattern, or of the handles of panels.
    grain: metres, sizes of the blotches along and across the surface.
    cells: number of columns and rows of panels or panes.
    glow: light that it gives off by itself.
  """

  pattern: int
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
    label: index into `CLASSES`.
    paint: its looks.
  """

  shape: int
  centre: tuple[float, float, float]
  half: tuple[float, float, float]
  yaw: float
  label: int
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


def _any_colour(dice: Dice) -> Colour:
  return draw_colour(dice, (0, 1), (0.2, 0.85), (0.25, 0.9))


def darker(colour: Colour, factor: float) -> Colour:
  """The colour times a factor, which may brighten it as well."""
  return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def plain(colour: Colour, contrast: float = 0.9, grain: float = 0.2) -> Paint:
  """Paint of one colour with blotches of some contrast and size."""
  return Paint(MOTTLED, colour, darker(colour, contrast), grain=(grain, grain))


def wooden(dice: Dice) -> Paint:
  """Dark, middling or pale wood with its grain."""
  value = dice.choice(((0.22, 0.35), (0.4, 0.6), (0.6, 0.8)))
  colour = draw_colour(dice, (0.045, 0.1), (0.35, 0.65), value)
  return Paint(MOTTLED, colour, darker(colour, 0.7), grain=(0.5, 0.03))


def lacquer(dice: Dice) -> Paint:
  """Black or white paint."""
  value = dice.choice(((0.1, 0.2), (0.8, 0.95)))
  return plain(draw_colour(dice, (0, 1), (0.0, 0.08), value), 0.95)


def _fabric(dice: Dice) -> Paint:
  colour = draw_colour(dice, (0, 1), (0.1, 0.75), (0.2, 0.75))
  return plain(colour, 0.72, 0.05)


def _block(label: int, paint: Paint, x: Interval, y: Interval, z: Interval) -> Solid:
  centre = (x[0] + x[1]) / 2, (y[0] + y[1]) / 2, (z[0] + z[1]) / 2
  half = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2, (z[1] - z[0]) / 2
  return Solid(BOX, centre, half, 0.0, label, paint)


def column(label: int, paint: Paint, radius: float, z: Interval) -> Solid:
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
  ends: tuple[list[float], ...] = ([], [], [], [], [], [])
  for solid in solids:
    cos, sin = abs(math.cos(solid.yaw)), abs(math.sin(solid.yaw))
    half = (
      cos * solid.half[0] + sin * solid.half[1],
      sin * solid.half[0] + cos * solid.half[1],
      solid.half[2],
    )
    for axis in range(3):
      ends[2 * axis].append(solid.centre[axis] - half[axis])
      ends[2 * axis + 1].append(solid.centre[axis] + half[axis])
  x, y, z = ((min(ends[2 * a]), max(ends[2 * a + 1])) for a in range(3))
  return x, y, z


def _legs(label: int, paint: Paint, x: float, y: Interval, top: float) -> Solids:
  """Four legs below a board from -x to x."""
  width = 0.022
  return [
    _block(label, paint, (a - width, a + width), (b - width, b + width), (0, top))
    for a in (-x + 0.04, x - 0.04)
    for b in (y[0] + 0.04, y[1] - 0.04)
  ]


# Small things, which stand about the origin on whatever they are put on.


def _book_row(dice: Dice, width: float, height: float) -> Solids:
  paint = Paint(
    SPINES, (0.85, 0.8, 0.7), _any_colour(dice), scale=dice.uniform(0.025, 0.05)
  )
  depth = dice.uniform(0.14, 0.2)
  return [_block(BOOKS, paint, (-width / 2, width / 2), (0.02, depth), (0, height))]


def _book_stack(dice: Dice) -> Solids:
  solids: Solids = []
  z = 0.0
  for _ in range(dice.randint(2, 5)):
    thick = dice.uniform(0.02, 0.05)
    a, b = dice.uniform(0.09, 0.13), dice.uniform(0.11, 0.16)
    paint = plain(_any_colour(dice), 0.85)
    book = [_block(BOOKS, paint, (-a, a), (-b, b), (z, z + thick))]
    solids += moved(book, yaw=dice.uniform(-0.25, 0.25))
    z += thick
  return solids


def _lamp(dice: Dice) -> Solids:
  shade = draw_colour(dice, (0.08, 0.14), (0.1, 0.4), (0.9, 1.0))
  high, radius = dice.uniform(0.2, 0.32), dice.uniform(0.1, 0.17)
  glow = dice.choice((0.0, 0.9))
  return [
    column(OBJECTS, plain(_any_colour(dice)), 0.03, (0, high)),
    column(
      OBJECTS, plain(shade)._replace(glow=glow), radius, (high, high + radius * 1.3)
    ),
  ]


def _carton(dice: Dice) -> Solids:
  colour = _any_colour(dice)
  if dice.random() < 0.5:
    colour = draw_colour(dice, (0.07, 0.1), (0.35, 0.55), (0.5, 0.75))
  a, b, c = (dice.uniform(0.05, 0.13) for _ in range(3))
  box = [_block(OBJECTS, plain(colour), (-a, a), (-b, b), (0, 2 * c))]
  return moved(box, yaw=dice.uniform(-0.7, 0.7))


def _vase(dice: Dice) -> Solids:
  radius, high = dice.uniform(0.035, 0.09), dice.uniform(0.1, 0.3)
  return [column(OBJECTS, plain(_any_colour(dice)), radius, (0, high))]


def _ball(dice: Dice) -> Solids:
  r = dice.uniform(0.06, 0.13)
  paint = plain(_any_colour(dice), 0.8)
  return [Solid(ELLIPSOID, (0.0, 0.0, r), (r, r, r), 0.0, OBJECTS, paint)]


def _plant(dice: Dice) -> Solids:
  pot = plain(draw_colour(dice, (0.02, 0.08), (0.2, 0.7), (0.4, 0.8)))
  green = draw_colour(dice, (0.25, 0.38), (0.5, 0.8), (0.25, 0.5))
  leaves = Paint(MOTTLED, green, darker(green, 0.35), grain=(0.04, 0.04))
  radius, high = dice.uniform(0.06, 0.1), dice.uniform(0.1, 0.18)
  solids = [column(OBJECTS, pot, radius, (0, high))]
  for _ in range(3):
    r = dice.uniform(1.0, 1.8) * radius
    place = dice.uniform(-0.08, 0.08), dice.uniform(-0.08, 0.08), high + r
    solids.append(Solid(ELLIPSOID, place, (r, r, 1.2 * r), 0.0, OBJECTS, leaves))
  return solids


def _clutter(dice: Dice, x: Interval, y: Interval, z: float, count: int) -> Solids:
  """Small things side by side on a board."""
  solids: Solids = []
  step = (x[1] - x[0]) / max(count, 1)
  kinds = (_book_stack, _book_stack, _lamp, _carton, _carton, _vase, _ball, _plant)
  for place in range(count):
    solids += moved(
      dice.choice(kinds)(dice),
      x=x[0] + (place + dice.uniform(0.35, 0.65)) * step,
      y=dice.uniform(*y),
      z=z,
    )
  return solids


def _cushion(dice: Dice, x: float, y: float, z: float, width: float) -> Solid:
  pale = draw_colour(dice, (0, 1), (0.0, 0.15), (0.8, 0.97))
  paint = plain(pale if dice.random() < 0.5 else _any_colour(dice), 0.9)
  half = width / 2, 0.19, 0.095
  return Solid(ELLIPSOID, (x, y, z + 0.07), half, 0.0, OBJECTS, paint)


# Furniture.


def bed(dice: Dice) -> Solids:
  """A bed with quilt and pillows, and perhaps nightstands."""
  half = dice.choice((0.5, 0.7, 0.8, 0.9))
  long, top = dice.uniform(1.95, 2.1), dice.uniform(0.42, 0.6)
  wood = wooden(dice)
  sheet = plain(draw_colour(dice, (0, 1), (0.0, 0.12), (0.85, 0.97)), 0.94)
  first, second = _any_colour(dice), _any_colour(dice)
  pattern = dice.choice((MOTTLED, STRIPES, PLAID))
  quilt = Paint(pattern, first, second, dice.uniform(0.12, 0.3))
  if pattern == MOTTLED:
    quilt = plain(first, 0.75, 0.15)
  edge = dice.uniform(0.45, 0.8)
  drop = dice.uniform(0.1, 0.3)
  solids = [
    _block(
      BED,
      wood,
      (-half - 0.02, half + 0.02),
      (0, 0.06),
      (0, top + dice.uniform(0.2, 0.5)),
    ),
    _block(BED, wood, (-half, half), (0.06, long), (0.04, 0.26)),
    _block(BED, sheet, (-half + 0.01, half - 0.01), (0.06, long - 0.02), (0.26, top)),
    _block(
      BED, quilt, (-half - 0.02, half + 0.02), (edge, long + 0.02), (drop, top + 0.03)
    ),
  ]
  count = 1 if half < 0.6 else 2
  for place in range(count):
    x = (2 * place + 1 - count) * half / 2
    solids.append(_cushion(dice, x, 0.28, top, min(0.7, 1.7 * half / count)))
  for side in (-1, 1):
    if dice.random() < 0.65:
      solids += moved(nightstand(dice), x=side * (half + 0.32))
  return solids


def nightstand(dice: Dice) -> Solids:
  """A small chest with something on it."""
  half, high = dice.uniform(0.2, 0.25), dice.uniform(0.42, 0.6)
  paint = _panels(dice, (1, dice.randint(1, 3)))
  solids = [_block(FURNITURE, paint, (-half, half), (0, 0.4), (0, high))]
  return solids + _clutter(dice, (-half, half), (0.15, 0.25), high, 1)


def _panels(dice: Dice, cells: tuple[int, int]) -> Paint:
  paint = wooden(dice) if dice.random() < 0.7 else lacquer(dice)
  return paint._replace(pattern=PANELS, cells=cells)


def cabinet(dice: Dice) -> Solids:
  """A chest of drawers or a sideboard, with things on it."""
  half, depth = dice.uniform(0.4, 0.8), dice.uniform(0.4, 0.55)
  high = dice.uniform(0.7, 1.1)
  paint = _panels(dice, (dice.randint(1, 3), dice.randint(2, 4)))
  solids = [_block(FURNITURE, paint, (-half, half), (0, depth), (0, high))]
  if dice.random() < 0.3:
    return solids + moved(_television(dice), y=0.15, z=high)
  return solids + _clutter(
    dice, (-half + 0.1, half - 0.1), (0.15, depth - 0.15), high, dice.randint(1, 3)
  )


def wardrobe(dice: Dice) -> Solids:
  """A wardrobe with doors from floor to top."""
  half, high = dice.uniform(0.45, 0.9), dice.uniform(1.8, 2.2)
  paint = _panels(dice, (dice.randint(2, 3), 1))
  return [_block(FURNITURE, paint, (-half, half), (0, 0.6), (0, high))]


def kitchen(dice: Dice) -> Solids:
  """Cupboards below and above a worktop."""
  half = dice.uniform(0.9, 1.5)
  columns = round(half / 0.25)
  paint = _panels(dice, (columns, 1))
  top = lacquer(dice)
  solids = [
    _block(FURNITURE, paint, (-half, half), (0, 0.58), (0, 0.88)),
    _block(FURNITURE, top, (-half, half), (0, 0.61), (0.88, 0.92)),
    _block(FURNITURE, paint, (-half, half), (0, 0.34), (1.45, 2.15)),
  ]
  return solids + _clutter(dice, (-half, half), (0.2, 0.4), 0.92, dice.randint(2, 5))


def bookshelf(dice: Dice) -> Solids:
  """Shelves with rows of books and a few other things."""
  half, depth = dice.uniform(0.35, 0.65), dice.uniform(0.28, 0.34)
  levels = dice.randint(3, 6)
  step = dice.uniform(0.32, 0.38)
  high = levels * step + 0.03
  paint = wooden(dice) if dice.random() < 0.7 else lacquer(dice)
  solids = [
    _block(FURNITURE, paint, (-half, half), (0, 0.015), (0, high)),
    _block(FURNITURE, paint, (-half - 0.03, -half), (0, depth), (0, high)),
    _block(FURNITURE, paint, (half, half + 0.03), (0, depth), (0, high)),
  ]
  for level in range(levels + 1):
    z = level * step
    board = (-half, half), (0.0, depth - 0.005), (z, z + 0.03)
    solids.append(_block(FURNITURE, paint, *board))
    if level == levels:
      break
    x = -half + 0.01
    while x < half - 0.15:
      width = min(dice.uniform(0.15, 0.6), half - 0.01 - x)
      draw = dice.random()
      if draw < 0.75:
        row = _book_row(dice, width, dice.uniform(0.19, step - 0.06))
        solids += moved(row, x=x + width / 2, y=0.02, z=z + 0.03)
      elif draw < 0.9:
        thing = dice.choice((_vase, _carton, _ball))(dice)
        solids += moved(thing, x=x + width / 2, y=depth / 2, z=z + 0.03)
      x += width + 0.02
  return solids


def sofa(dice: Dice) -> Solids:
  """A sofa of one to three seats, perhaps with cushions."""
  seats = dice.choice((1, 2, 2, 3, 3))
  half, depth = 0.32 * seats, dice.uniform(0.85, 0.98)
  seat, back = dice.uniform(0.4, 0.46), dice.uniform(0.75, 0.92)
  arm, rest = dice.uniform(0.14, 0.22), dice.uniform(0.56, 0.66)
  fabric = _fabric(dice)
  lighter = fabric._replace(first=darker(fabric.first, 1.08))
  solids = [
    _block(SOFA, fabric, (-half, half), (0.05, depth - 0.03), (0.05, seat - 0.12)),
    _block(SOFA, fabric, (-half, half), (0, 0.25), (0.05, back)),
    _block(SOFA, fabric, (-half - arm, -half), (0, depth), (0.05, rest)),
    _block(SOFA, fabric, (half, half + arm), (0, depth), (0.05, rest)),
  ]
  for place in range(seats):
    x = -half + 0.64 * place
    sides = x + 0.01, x + 0.63
    solids += [
      _block(SOFA, lighter, sides, (0.24, depth), (seat - 0.12, seat)),
      _block(SOFA, lighter, sides, (0.2, 0.36), (seat, back + 0.03)),
    ]
    if dice.random() < 0.35:
      solids.append(_cushion(dice, x + 0.32, 0.5, seat, 0.45))
  return solids


def sofa_group(dice: Dice) -> Solids:
  """A sofa, mostly with a low table before it."""
  solids = sofa(dice)
  if dice.random() < 0.7:
    table = _table(dice, dice.uniform(0.4, 0.6), dice.uniform(0.5, 0.65), (0.36, 0.46))
    solids += moved(table, y=1.25 + dice.uniform(0, 0.3))
  return solids


def _table(dice: Dice, half: float, depth: float, heights: Interval) -> Solids:
  high = dice.uniform(*heights)
  paint = wooden(dice) if dice.random() < 0.75 else lacquer(dice)
  solids = [_block(TABLE, paint, (-half, half), (0, depth), (high - 0.04, high))]
  solids += _legs(TABLE, paint, half, (0, depth), high - 0.04)
  return solids + _clutter(
    dice, (-half + 0.1, half - 0.1), (0.15, depth - 0.15), high, dice.randint(0, 3)
  )


def chair(dice: Dice) -> Solids:
  """A chair of wood or an office chair."""
  seat, back = dice.uniform(0.43, 0.48), dice.uniform(0.82, 1.0)
  half = dice.uniform(0.2, 0.25)
  if dice.random() < 0.35:  # an office chair
    fabric = plain(draw_colour(dice, (0, 1), (0.0, 0.5), (0.08, 0.3)), 0.7, 0.05)
    steel = plain((0.2, 0.2, 0.22))
    return [
      _block(CHAIR, fabric, (-half, half), (0.04, 0.5), (seat - 0.08, seat)),
      _block(CHAIR, fabric, (-half, half), (0, 0.07), (seat + 0.08, back + 0.05)),
      *moved([column(CHAIR, steel, 0.03, (0.06, seat - 0.08))], y=0.27),
      _block(CHAIR, steel, (-0.28, 0.28), (0.245, 0.295), (0.02, 0.07)),
      _block(CHAIR, steel, (-0.025, 0.025), (-0.01, 0.55), (0.02, 0.065)),
    ]
  paint = wooden(dice) if dice.random() < 0.7 else plain(_any_colour(dice))
  solids = [
    _block(CHAIR, paint, (-half, half), (0, 0.44), (seat - 0.04, seat)),
    *_legs(CHAIR, paint, half, (0, 0.44), seat - 0.04),
  ]
  if dice.random() < 0.5:
    return [*solids, _block(CHAIR, paint, (-half, half), (0, 0.03), (seat, back))]
  rail = (-half, half), (0.0, 0.035), (back - 0.12, back)
  solids.append(_block(CHAIR, paint, *rail))
  for x in (-half + 0.02, 0.0, half - 0.02):
    post = (x - 0.02, x + 0.02), (0.004, 0.031), (seat, back - 0.1)
    solids.append(_block(CHAIR, paint, *post))
  return solids


def desk(dice: Dice) -> Solids:
  """A desk with a screen and other things, mostly with a chair."""
  half, depth = dice.uniform(0.55, 0.85), dice.uniform(0.6, 0.75)
  high = dice.uniform(0.7, 0.76)
  paint = wooden(dice) if dice.random() < 0.7 else lacquer(dice)
  drawers = paint._replace(pattern=PANELS, cells=(1, 3))
  side = dice.choice((-1, 1))
  inner, outer = sorted((side * (half - 0.4), side * (half - 0.02)))
  solids = [
    _block(TABLE, paint, (-half, half), (0, depth), (high - 0.035, high)),
    _block(TABLE, drawers, (inner, outer), (0.03, depth - 0.04), (0, high - 0.035)),
    *_legs(TABLE, paint, half, (0, depth), high - 0.035)[:: 1 if side < 0 else -1][2:],
    *moved(_television(dice, (0.22, 0.32)), y=0.15, z=high),
  ]
  keys = plain(draw_colour(dice, (0, 1), (0, 0.05), (0.1, 0.9)), 0.6, 0.02)
  solids.append(_block(OBJECTS, keys, (-0.2, 0.2), (0.38, 0.52), (high, high + 0.02)))
  for x in (-half + 0.15, half - 0.15):
    if dice.random() < 0.75:
      solids += _clutter(dice, (x - 0.05, x + 0.05), (0.15, 0.3), high, 1)
  if dice.random() < 0.8:
    yaw = math.pi + dice.uniform(-0.6, 0.6)
    solids += moved(
      chair(dice), x=-side * 0.15, y=depth + dice.uniform(0.25, 0.5), yaw=yaw
    )
  return solids


def dining(dice: Dice) -> Solids:
  """A table with chairs on two sides."""
  half, depth = dice.uniform(0.55, 0.95), dice.uniform(0.75, 0.95)
  solids = _table(dice, half, depth, (0.7, 0.77))
  for side in (-1, 1):
    for x in (-half / 2, half / 2):
      if dice.random() < 0.75:
        yaw = dice.uniform(-0.3, 0.3) + (0 if side < 0 else math.pi)
        y = depth / 2 + side * (depth / 2 + dice.uniform(0.15, 0.4))
        solids += moved(chair(dice), x=x, y=y, yaw=yaw)
  return solids


def _television(dice: Dice, half_widths: Interval = (0.4, 0.65)) -> Solids:
  """A screen on its foot, in its own plane y = 0."""
  half = dice.uniform(*half_widths)
  high = half * dice.uniform(1.1, 1.3)
  tint = draw_colour(dice, (0.5, 0.7), (0.1, 0.6), (0.08, 0.2))
  glow = 0.0
  if dice.random() < 0.3:
    tint, glow = draw_colour(dice, (0.45, 0.7), (0.4, 0.8), (0.5, 0.8)), 0.6
  dark = draw_colour(dice, (0, 1), (0, 0.05), (0.04, 0.1))
  screen = Paint(SCREEN, dark, tint, glow=glow)
  return [
    _block(TV, screen, (-half, half), (0, 0.05), (0.07, 0.07 + high)),
    _block(TV, plain(dark), (-0.4 * half, 0.4 * half), (-0.06, 0.12), (0, 0.02)),
    _block(TV, plain(dark), (-0.03, 0.03), (0.0, 0.04), (0.02, 0.1)),
  ]


def television_stand(dice: Dice) -> Solids:
  """A television on a low cabinet."""
  half, high = dice.uniform(0.6, 0.95), dice.uniform(0.4, 0.6)
  paint = _panels(dice, (dice.randint(2, 4), dice.randint(1, 2)))
  solids = [_block(FURNITURE, paint, (-half, half), (0, 0.45), (0, high))]
  return solids + moved(_television(dice, (0.45, 0.65)), y=0.18, z=high)


def big_thing(dice: Dice) -> Solids:
  """A plant, bin, ball or box on the floor."""
  factor = dice.uniform(1.8, 2.6)
  thing = dice.choice((_plant, _carton, _vase, _ball))(dice)
  return [
    solid._replace(
      centre=(
        factor * solid.centre[0],
        factor * solid.centre[1],
        factor * solid.centre[2],
      ),
      half=(factor * solid.half[0], factor * solid.half[1], factor * solid.half[2]),
    )
    for solid in thing
  ]


# Things on walls.


def window(dice: Dice) -> Solids:
  """A window with its view, with blinds, curtains or nothing."""
  half, low = dice.uniform(0.45, 0.95), dice.uniform(0.75, 1.0)
  high = dice.uniform(1.95, 2.2)
  frame = draw_colour(dice, (0.05, 0.12), (0.0, 0.15), (0.75, 0.95))
  sky = draw_colour(dice, (0.53, 0.62), (0.05, 0.45), (0.85, 1.0))
  cells = dice.randint(1, 3), dice.randint(1, 2)
  pane = Paint(GLAZING, frame, sky, cells=cells, glow=dice.uniform(0.8, 1.5))
  draw = dice.random()
  if draw < 0.25:  # blinds
    pane = pane._replace(cells=(1, dice.randint(14, 24)), glow=0.5)
  solids = [_block(WINDOW, pane, (-half, half), (0, 0.03), (low, high))]
  if draw > 0.5:
    cloth = Paint(STRIPES, _any_colour(dice), (0.0, 0.0, 0.0), dice.uniform(0.05, 0.09))
    cloth = cloth._replace(second=darker(cloth.first, 0.75))
    bottom, width = dice.choice((0.05, low - 0.1)), dice.uniform(0.2, 0.4)
    for side in (-1, 1):
      x = sorted((side * (half - 0.1), side * (half - 0.1 + width)))
      solids.append(
        _block(WINDOW, cloth, (x[0], x[1]), (0.03, 0.1), (bottom, high + 0.08))
      )
  return solids


def picture(dice: Dice) -> Solids:
  """A framed picture."""
  a, b = dice.uniform(0.16, 0.5), dice.uniform(0.16, 0.42)
  z = dice.uniform(1.45, 1.7)
  frame = dice.choice(
    (
      draw_colour(dice, (0.08, 0.13), (0.4, 0.7), (0.3, 0.7)),
      draw_colour(dice, (0, 1), (0, 0.05), (0.05, 0.15)),
    )
  )
  paint = Paint(PAINTING, frame, _any_colour(dice), grain=(0.12, 0.12))
  return [_block(PICTURE, paint, (-a, a), (0, 0.025), (z - b, z + b))]


def door(dice: Dice) -> Solids:
  """A door, which belongs to the wall."""
  paint = wooden(dice) if dice.random() < 0.5 else lacquer(dice)
  if paint.first[0] < 0.3:
    paint = paint._replace(first=(0.9, 0.89, 0.86), second=(0.85, 0.84, 0.8))
  cells = dice.choice(((1, 1), (1, 2), (2, 3)))
  paint = paint._replace(pattern=PANELS, cells=cells, scale=0.0)
  x = dice.choice((-0.36, 0.36))
  handle = (x - 0.05, x + 0.05), (0.02, 0.05), (1.0, 1.025)
  return [
    _block(WALL, paint, (-0.43, 0.43), (0, 0.02), (0, 2.03)),
    _block(WALL, plain((0.6, 0.58, 0.5)), *handle),
  ]
