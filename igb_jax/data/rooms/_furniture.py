"""The furniture of a room, each piece with the things on it."""

import math

from igb_jax.data.rooms._solids import (
  Dice,
  Interval,
  Paint,
  Solids,
  any_colour,
  block,
  column,
  draw_colour,
  lacquer,
  moved,
  plain,
  scaled,
  wooden,
)
from igb_jax.data.rooms._things import (
  ball,
  book_row,
  carton,
  clutter,
  cushion,
  television,
  vase,
)


def bed(dice: Dice) -> Solids:
  """A bed with quilt and pillows, and perhaps nightstands."""
  half = dice.choice((0.5, 0.7, 0.8, 0.9))
  long, top = dice.uniform(1.95, 2.1), dice.uniform(0.42, 0.6)
  wood = wooden(dice)
  sheet = plain(draw_colour(dice, (0, 1), (0.0, 0.12), (0.85, 0.97)), 0.94)
  first, second = any_colour(dice), any_colour(dice)
  pattern = dice.choice(("mottled", "stripes", "plaid"))
  quilt = Paint(pattern, first, second, dice.uniform(0.12, 0.3))
  if pattern == "mottled":
    quilt = plain(first, 0.75, 0.15)
  edge = dice.uniform(0.45, 0.8)
  drop = dice.uniform(0.1, 0.3)
  solids = [
    block(
      "bed",
      wood,
      (-half - 0.02, half + 0.02),
      (0, 0.06),
      (0, top + dice.uniform(0.2, 0.5)),
    ),
    block("bed", wood, (-half, half), (0.06, long), (0.04, 0.26)),
    block("bed", sheet, (-half + 0.01, half - 0.01), (0.06, long - 0.02), (0.26, top)),
    block(
      "bed", quilt, (-half - 0.02, half + 0.02), (edge, long + 0.02), (drop, top + 0.03)
    ),
  ]
  count = 1 if half < 0.6 else 2
  for place in range(count):
    x = (2 * place + 1 - count) * half / 2
    solids.append(cushion(dice, x, 0.28, top, min(0.7, 1.7 * half / count)))
  for side in (-1, 1):
    if dice.random() < 0.65:
      solids += moved(nightstand(dice), x=side * (half + 0.32))
  return solids


def nightstand(dice: Dice) -> Solids:
  """A small chest with something on it."""
  half, high = dice.uniform(0.2, 0.25), dice.uniform(0.42, 0.6)
  paint = _panels(dice, (1, dice.randint(1, 3)))
  solids = [block("furniture", paint, (-half, half), (0, 0.4), (0, high))]
  return solids + clutter(dice, (-half, half), (0.15, 0.25), high, 1)


def _panels(dice: Dice, cells: tuple[int, int]) -> Paint:
  paint = wooden(dice) if dice.random() < 0.7 else lacquer(dice)
  return paint._replace(pattern="panels", cells=cells)


def cabinet(dice: Dice) -> Solids:
  """A chest of drawers or a sideboard, with things on it."""
  half, depth = dice.uniform(0.4, 0.8), dice.uniform(0.4, 0.55)
  high = dice.uniform(0.7, 1.1)
  paint = _panels(dice, (dice.randint(1, 3), dice.randint(2, 4)))
  solids = [block("furniture", paint, (-half, half), (0, depth), (0, high))]
  if dice.random() < 0.3:
    return solids + moved(television(dice), y=0.15, z=high)
  return solids + clutter(
    dice, (-half + 0.1, half - 0.1), (0.15, depth - 0.15), high, dice.randint(1, 3)
  )


def wardrobe(dice: Dice) -> Solids:
  """A wardrobe with doors from floor to top."""
  half, high = dice.uniform(0.45, 0.9), dice.uniform(1.8, 2.2)
  paint = _panels(dice, (dice.randint(2, 3), 1))
  return [block("furniture", paint, (-half, half), (0, 0.6), (0, high))]


def kitchen(dice: Dice) -> Solids:
  """Cupboards below and above a worktop."""
  half = dice.uniform(0.9, 1.5)
  columns = round(half / 0.25)
  paint = _panels(dice, (columns, 1))
  top = lacquer(dice)
  solids = [
    block("furniture", paint, (-half, half), (0, 0.58), (0, 0.88)),
    block("furniture", top, (-half, half), (0, 0.61), (0.88, 0.92)),
    block("furniture", paint, (-half, half), (0, 0.34), (1.45, 2.15)),
  ]
  return solids + clutter(dice, (-half, half), (0.2, 0.4), 0.92, dice.randint(2, 5))


def bookshelf(dice: Dice) -> Solids:
  """Shelves with rows of books and a few other things."""
  half, depth = dice.uniform(0.35, 0.65), dice.uniform(0.28, 0.34)
  levels = dice.randint(3, 6)
  step = dice.uniform(0.32, 0.38)
  high = levels * step + 0.03
  paint = wooden(dice) if dice.random() < 0.7 else lacquer(dice)
  solids = [
    block("furniture", paint, (-half, half), (0, 0.015), (0, high)),
    block("furniture", paint, (-half - 0.03, -half), (0, depth), (0, high)),
    block("furniture", paint, (half, half + 0.03), (0, depth), (0, high)),
  ]
  for level in range(levels + 1):
    z = level * step
    board = (-half, half), (0.0, depth - 0.005), (z, z + 0.03)
    solids.append(block("furniture", paint, *board))
    if level == levels:
      break
    x = -half + 0.01
    while x < half - 0.15:
      width = min(dice.uniform(0.15, 0.6), half - 0.01 - x)
      draw = dice.random()
      if draw < 0.75:
        row = book_row(dice, width, dice.uniform(0.19, step - 0.06))
        solids += moved(row, x=x + width / 2, y=0.02, z=z + 0.03)
      elif draw < 0.9:
        thing = dice.choice((vase, carton, ball))(dice)
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
  lighter = fabric._replace(first=scaled(fabric.first, 1.08))
  solids = [
    block("sofa", fabric, (-half, half), (0.05, depth - 0.03), (0.05, seat - 0.12)),
    block("sofa", fabric, (-half, half), (0, 0.25), (0.05, back)),
    block("sofa", fabric, (-half - arm, -half), (0, depth), (0.05, rest)),
    block("sofa", fabric, (half, half + arm), (0, depth), (0.05, rest)),
  ]
  for place in range(seats):
    x = -half + 0.64 * place
    sides = x + 0.01, x + 0.63
    solids += [
      block("sofa", lighter, sides, (0.24, depth), (seat - 0.12, seat)),
      block("sofa", lighter, sides, (0.2, 0.36), (seat, back + 0.03)),
    ]
    if dice.random() < 0.35:
      solids.append(cushion(dice, x + 0.32, 0.5, seat, 0.45))
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
  solids = [block("table", paint, (-half, half), (0, depth), (high - 0.04, high))]
  solids += _legs("table", paint, half, depth, high - 0.04)
  return solids + clutter(
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
      block("chair", fabric, (-half, half), (0.04, 0.5), (seat - 0.08, seat)),
      block("chair", fabric, (-half, half), (0, 0.07), (seat + 0.08, back + 0.05)),
      *moved([column("chair", steel, 0.03, (0.06, seat - 0.08))], y=0.27),
      block("chair", steel, (-0.28, 0.28), (0.245, 0.295), (0.02, 0.07)),
      block("chair", steel, (-0.025, 0.025), (-0.01, 0.55), (0.02, 0.065)),
    ]
  paint = wooden(dice) if dice.random() < 0.7 else plain(any_colour(dice))
  solids = [
    block("chair", paint, (-half, half), (0, 0.44), (seat - 0.04, seat)),
    *_legs("chair", paint, half, 0.44, seat - 0.04),
  ]
  if dice.random() < 0.5:
    return [*solids, block("chair", paint, (-half, half), (0, 0.03), (seat, back))]
  rail = (-half, half), (0.0, 0.035), (back - 0.12, back)
  solids.append(block("chair", paint, *rail))
  for x in (-half + 0.02, 0.0, half - 0.02):
    post = (x - 0.02, x + 0.02), (0.004, 0.031), (seat, back - 0.1)
    solids.append(block("chair", paint, *post))
  return solids


def desk(dice: Dice) -> Solids:
  """A desk with a screen and other things, mostly with a chair."""
  half, depth = dice.uniform(0.55, 0.85), dice.uniform(0.6, 0.75)
  high = dice.uniform(0.7, 0.76)
  paint = wooden(dice) if dice.random() < 0.7 else lacquer(dice)
  drawers = paint._replace(pattern="panels", cells=(1, 3))
  side = dice.choice((-1, 1))
  inner, outer = sorted((side * (half - 0.4), side * (half - 0.02)))
  two = slice(2, None) if side < 0 else slice(1, None, -1)  # legs, opposite the drawers
  solids = [
    block("table", paint, (-half, half), (0, depth), (high - 0.035, high)),
    block("table", drawers, (inner, outer), (0.03, depth - 0.04), (0, high - 0.035)),
    *_legs("table", paint, half, depth, high - 0.035)[two],
    *moved(television(dice, (0.22, 0.32)), y=0.15, z=high),
  ]
  keys = plain(draw_colour(dice, (0, 1), (0, 0.05), (0.1, 0.9)), 0.6, 0.02)
  solids.append(block("objects", keys, (-0.2, 0.2), (0.38, 0.52), (high, high + 0.02)))
  for x in (-half + 0.15, half - 0.15):
    if dice.random() < 0.75:
      solids += clutter(dice, (x - 0.05, x + 0.05), (0.15, 0.3), high, 1)
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


def television_stand(dice: Dice) -> Solids:
  """A television on a low cabinet."""
  half, high = dice.uniform(0.6, 0.95), dice.uniform(0.4, 0.6)
  paint = _panels(dice, (dice.randint(2, 4), dice.randint(1, 2)))
  solids = [block("furniture", paint, (-half, half), (0, 0.45), (0, high))]
  return solids + moved(television(dice, (0.45, 0.65)), y=0.18, z=high)


def _fabric(dice: Dice) -> Paint:
  colour = draw_colour(dice, (0, 1), (0.1, 0.75), (0.2, 0.75))
  return plain(colour, 0.72, 0.05)


def _legs(label: str, paint: Paint, half: float, depth: float, top: float) -> Solids:
  """Four legs below a board of some depth, from -half to half."""
  width = 0.022
  return [
    block(label, paint, (a - width, a + width), (b - width, b + width), (0, top))
    for a in (-half + 0.04, half - 0.04)
    for b in (0.04, depth - 0.04)
  ]
