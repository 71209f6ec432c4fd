"""Small things, which stand about the origin on whatever they are put on."""

from igb_jax.data.rooms._solids import (
  ELLIPSOID,
  Dice,
  Interval,
  Paint,
  Solid,
  Solids,
  any_colour,
  block,
  column,
  draw_colour,
  moved,
  plain,
  scaled,
)


def book_row(dice: Dice, width: float, height: float) -> Solids:
  paint = Paint(
    "spines", (0.85, 0.8, 0.7), any_colour(dice), scale=dice.uniform(0.025, 0.05)
  )
  depth = dice.uniform(0.14, 0.2)
  return [block("books", paint, (-width / 2, width / 2), (0.02, depth), (0, height))]


def book_stack(dice: Dice) -> Solids:
  solids: Solids = []
  z = 0.0
  for _ in range(dice.randint(2, 5)):
    thick = dice.uniform(0.02, 0.05)
    a, b = dice.uniform(0.09, 0.13), dice.uniform(0.11, 0.16)
    paint = plain(any_colour(dice), 0.85)
    book = [block("books", paint, (-a, a), (-b, b), (z, z + thick))]
    solids += moved(book, yaw=dice.uniform(-0.25, 0.25))
    z += thick
  return solids


def lamp(dice: Dice) -> Solids:
  shade = draw_colour(dice, (0.08, 0.14), (0.1, 0.4), (0.9, 1.0))
  high, radius = dice.uniform(0.2, 0.32), dice.uniform(0.1, 0.17)
  glow = dice.choice((0.0, 0.9))
  return [
    column("objects", plain(any_colour(dice)), 0.03, (0, high)),
    column(
      "objects", plain(shade)._replace(glow=glow), radius, (high, high + radius * 1.3)
    ),
  ]


def carton(dice: Dice) -> Solids:
  colour = any_colour(dice)
  if dice.random() < 0.5:
    colour = draw_colour(dice, (0.07, 0.1), (0.35, 0.55), (0.5, 0.75))
  a, b, c = (dice.uniform(0.05, 0.13) for _ in range(3))
  box = [block("objects", plain(colour), (-a, a), (-b, b), (0, 2 * c))]
  return moved(box, yaw=dice.uniform(-0.7, 0.7))


def vase(dice: Dice) -> Solids:
  radius, high = dice.uniform(0.035, 0.09), dice.uniform(0.1, 0.3)
  return [column("objects", plain(any_colour(dice)), radius, (0, high))]


def ball(dice: Dice) -> Solids:
  r = dice.uniform(0.06, 0.13)
  paint = plain(any_colour(dice), 0.8)
  return [Solid(ELLIPSOID, (0.0, 0.0, r), (r, r, r), 0.0, "objects", paint)]


def plant(dice: Dice) -> Solids:
  pot = plain(draw_colour(dice, (0.02, 0.08), (0.2, 0.7), (0.4, 0.8)))
  green = draw_colour(dice, (0.25, 0.38), (0.5, 0.8), (0.25, 0.5))
  leaves = Paint("mottled", green, scaled(green, 0.35), grain=(0.04, 0.04))
  radius, high = dice.uniform(0.06, 0.1), dice.uniform(0.1, 0.18)
  solids = [column("objects", pot, radius, (0, high))]
  for _ in range(3):
    r = dice.uniform(1.0, 1.8) * radius
    place = dice.uniform(-0.08, 0.08), dice.uniform(-0.08, 0.08), high + r
    solids.append(Solid(ELLIPSOID, place, (r, r, 1.2 * r), 0.0, "objects", leaves))
  return solids


def clutter(dice: Dice, x: Interval, y: Interval, z: float, count: int) -> Solids:
  """Small things side by side on a board."""
  solids: Solids = []
  step = (x[1] - x[0]) / max(count, 1)
  kinds = (book_stack, book_stack, lamp, carton, carton, vase, ball, plant)
  for place in range(count):
    solids += moved(
      dice.choice(kinds)(dice),
      x=x[0] + (place + dice.uniform(0.35, 0.65)) * step,
      y=dice.uniform(*y),
      z=z,
    )
  return solids


def cushion(dice: Dice, x: float, y: float, z: float, width: float) -> Solid:
  pale = draw_colour(dice, (0, 1), (0.0, 0.15), (0.8, 0.97))
  paint = plain(pale if dice.random() < 0.5 else any_colour(dice), 0.9)
  half = width / 2, 0.19, 0.095
  return Solid(ELLIPSOID, (x, y, z + 0.07), half, 0.0, "objects", paint)


def television(dice: Dice, half_widths: Interval = (0.4, 0.65)) -> Solids:
  """A screen on its foot, in its own plane y = 0."""
  half = dice.uniform(*half_widths)
  high = half * dice.uniform(1.1, 1.3)
  tint = draw_colour(dice, (0.5, 0.7), (0.1, 0.6), (0.08, 0.2))
  glow = 0.0
  if dice.random() < 0.3:
    tint, glow = draw_colour(dice, (0.45, 0.7), (0.4, 0.8), (0.5, 0.8)), 0.6
  dark = draw_colour(dice, (0, 1), (0, 0.05), (0.04, 0.1))
  screen = Paint("screen", dark, tint, glow=glow)
  return [
    block("tv", screen, (-half, half), (0, 0.05), (0.07, 0.07 + high)),
    block("tv", plain(dark), (-0.4 * half, 0.4 * half), (-0.06, 0.12), (0, 0.02)),
    block("tv", plain(dark), (-0.03, 0.03), (0.0, 0.04), (0.02, 0.1)),
  ]


def big_thing(dice: Dice) -> Solids:
  """A plant, bin, ball or box on the floor."""
  factor = dice.uniform(1.8, 2.6)
  thing = dice.choice((plant, carton, vase, ball))(dice)
  return [
    solid._replace(centre=scaled(solid.centre, factor), half=scaled(solid.half, factor))
    for solid in thing
  ]
