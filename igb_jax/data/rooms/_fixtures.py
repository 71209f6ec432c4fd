"""What is on the walls and the floor of a room, and how they are painted."""

from igb_jax.data.rooms._solids import (
  Dice,
  Interval,
  Paint,
  Solids,
  Triple,
  any_colour,
  block,
  draw_colour,
  lacquer,
  plain,
  scaled,
  wooden,
)


def window(dice: Dice) -> Solids:
  """A window with its view, with blinds, curtains or nothing."""
  half, low = dice.uniform(0.45, 0.95), dice.uniform(0.75, 1.0)
  high = dice.uniform(1.95, 2.2)
  frame = draw_colour(dice, (0.05, 0.12), (0.0, 0.15), (0.75, 0.95))
  sky = draw_colour(dice, (0.53, 0.62), (0.05, 0.45), (0.85, 1.0))
  cells = dice.randint(1, 3), dice.randint(1, 2)
  pane = Paint("glazing", frame, sky, cells=cells, glow=dice.uniform(0.8, 1.5))
  draw = dice.random()
  if draw < 0.25:  # blinds
    pane = pane._replace(cells=(1, dice.randint(14, 24)), glow=0.5)
  solids = [block("window", pane, (-half, half), (0, 0.03), (low, high))]
  if draw > 0.5:
    colour = any_colour(dice)
    cloth = Paint("stripes", colour, scaled(colour, 0.75), dice.uniform(0.05, 0.09))
    bottom, width = dice.choice((0.05, low - 0.1)), dice.uniform(0.2, 0.4)
    for side in (-1, 1):
      x = sorted((side * (half - 0.1), side * (half - 0.1 + width)))
      solids.append(
        block("window", cloth, (x[0], x[1]), (0.03, 0.1), (bottom, high + 0.08))
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
  paint = Paint("painting", frame, any_colour(dice), grain=(0.12, 0.12))
  return [block("picture", paint, (-a, a), (0, 0.025), (z - b, z + b))]


def door(dice: Dice) -> Solids:
  """A door, which belongs to the wall."""
  paint = wooden(dice) if dice.random() < 0.5 else lacquer(dice)
  if paint.first[0] < 0.3:
    paint = paint._replace(first=(0.9, 0.89, 0.86), second=(0.85, 0.84, 0.8))
  cells = dice.choice(((1, 1), (1, 2), (2, 3)))
  paint = paint._replace(pattern="panels", cells=cells, scale=0.0)
  x = dice.choice((-0.36, 0.36))
  handle = (x - 0.05, x + 0.05), (0.02, 0.05), (1.0, 1.025)
  return [
    block("wall", paint, (-0.43, 0.43), (0, 0.02), (0, 2.03)),
    block("wall", plain((0.6, 0.58, 0.5)), *handle),
  ]


def wall_paint(dice: Dice) -> Paint:
  colour = dice.choice(
    (
      draw_colour(dice, (0.08, 0.16), (0.02, 0.25), (0.75, 0.95)),
      draw_colour(dice, (0.0, 1.0), (0.05, 0.35), (0.6, 0.9)),
    )
  )
  if dice.random() < 0.2:
    return Paint("stripes", colour, scaled(colour, 0.88), dice.uniform(0.1, 0.3))
  return plain(colour, 0.95, 0.7)


def floor_paint(dice: Dice) -> Paint:
  draw = dice.random()
  if draw < 0.45:
    wood = wooden(dice)
    return wood._replace(pattern="planks", scale=dice.uniform(0.08, 0.16))
  if draw < 0.8:
    colour = draw_colour(dice, (0.04, 0.14), (0.1, 0.4), (0.4, 0.75))
    return plain(colour, 0.7, 0.06)
  colour = draw_colour(dice, (0.05, 0.15), (0.02, 0.25), (0.5, 0.85))
  return Paint("tiles", colour, scaled(colour, 0.8), dice.choice((0.3, 0.4, 0.5)))


def rug(dice: Dice, half: Triple) -> tuple[tuple[Interval, Interval], Paint]:
  """A rug, which may have no area."""
  if dice.random() < 0.5:
    return ((0.0, 0.0), (0.0, 0.0)), plain((0.5, 0.5, 0.5))
  x, y = (dice.uniform(-0.3, 0.3) * half[axis] for axis in range(2))
  a, b = dice.uniform(0.7, 1.3), dice.uniform(0.6, 1.1)
  first = draw_colour(dice, (0, 1), (0.2, 0.7), (0.3, 0.7))
  second = draw_colour(dice, (0.05, 0.15), (0.1, 0.4), (0.5, 0.8))
  pattern = dice.choice(("mottled", "stripes", "plaid"))
  paint = Paint(pattern, first, second, dice.uniform(0.15, 0.4), (0.1, 0.1))
  return ((x - a, x + a), (y - b, y + b)), paint
