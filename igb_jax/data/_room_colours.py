"""Colours, light and the photograph of a room of `igb_jax.data.rooms`.

Everything here is one array operation over the pixels that show a pattern.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from igb_jax.data import _room_furniture as furniture
from igb_jax.data._room_layout import Room
from igb_jax.data._room_rays import FACES, Rows, Surface, turned

_TABLE = 64  # sides of the table of random numbers


class _Texels(NamedTuple):
  """The pixels that show one pattern; see `Surface` and `Paint`.

  Attributes:
    u: f32[P], metres along the face.
    v: f32[P], metres along the face, upwards if it is upright.
    width: f32[P], of the face, metres.
    height: f32[P], of the face, metres.
    flat: bool[P], whether the face is level.
    front: bool[P], whether it is a front or back.
    first: f32[P, 3].
    second: f32[P, 3].
    scale: f32[P].
    columns: f32[P].
    lines: f32[P].
    salt: i64[P].
    noise: f32[P], blotches, 0 to 1.
    sharp: f32[P], 1 where a pattern can be seen, 0 where it is finer than pixels.
    table: f32[4096], random numbers.
  """

  u: np.ndarray
  v: np.ndarray
  width: np.ndarray
  height: np.ndarray
  flat: np.ndarray
  front: np.ndarray
  first: np.ndarray
  second: np.ndarray
  scale: np.ndarray
  columns: np.ndarray
  lines: np.ndarray
  salt: np.ndarray
  noise: np.ndarray
  sharp: np.ndarray
  table: np.ndarray

  @property
  def s(self) -> np.ndarray:
    """f32[P], u from -1 to 1 over the face."""
    return self.u / self.width * 2

  @property
  def t(self) -> np.ndarray:
    """f32[P], v from -1 to 1 over the face."""
    return self.v / self.height * 2

  def random(self, i: np.ndarray, j: np.ndarray | int = 0) -> np.ndarray:
    """f32[P], a number in [0, 1) for each cell (i, j)."""
    cell = i.astype(np.intp) * 37 + self.salt * 131
    return self.table[(cell + np.asarray(j).astype(np.intp) * 1033) % len(self.table)]

  def mix(self, share: np.ndarray) -> np.ndarray:
    """f32[P, 3], from the first colour at 0 to the second at 1."""
    return self.first + (self.second - self.first) * share[:, None]


def _mottled(x: _Texels) -> np.ndarray:
  return x.mix(x.noise)


def _half_seen(pattern: np.ndarray, x: _Texels) -> np.ndarray:
  return 0.5 + (pattern - 0.5) * x.sharp


def _stripes(x: _Texels) -> np.ndarray:
  return x.mix(0.85 * _half_seen(x.u / x.scale % 1 < 0.5, x) + 0.15 * x.noise)


def _plaid(x: _Texels) -> np.ndarray:
  bands = (x.u / x.scale % 1 < 0.4) * 0.5 + (x.v / x.scale % 1 < 0.4) * 0.5
  return x.mix(0.9 * _half_seen(bands, x) + 0.1 * x.noise)


def _tiles(x: _Texels) -> np.ndarray:
  u, v = x.u / x.scale, x.v / x.scale
  tone = 0.7 * x.random(np.floor(u), np.floor(v)) + 0.3 * x.noise
  joint = np.minimum(u % 1, v % 1) < 0.04
  return x.mix(tone) * (1 - 0.4 * x.sharp * joint)[:, None]


def _planks(x: _Texels) -> np.ndarray:
  board = np.floor(x.v / x.scale)
  along = x.u / 1.3 + x.random(board)
  tone = 0.5 * _half_seen(x.random(board, np.floor(along)), x) + 0.5 * x.noise
  seam = (x.v / x.scale % 1 < 0.06) | (along % 1 < 0.008)
  return x.mix(tone * 1.3) * (1 - 0.45 * x.sharp * seam)[:, None]


def _panels(x: _Texels) -> np.ndarray:
  i, j = (x.s * 0.5 + 0.5) * x.columns, (x.t * 0.5 + 0.5) * x.lines
  wide, high = x.width / x.columns, x.height / x.lines  # of a panel
  # metres to the edges of the panel
  a, b = (0.5 - np.abs(i % 1 - 0.5)) * wide, (0.5 - np.abs(j % 1 - 0.5)) * high
  edge = np.minimum(a, b)
  seam = (edge < 0.012) * 0.55 + ((edge > 0.05) & (edge < 0.062)) * 0.2
  door = high > wide
  # doors have handles at the side, drawers in the middle
  aside, above = np.abs(i % 1 - 0.5) * wide, np.abs(j % 1 - 0.5) * high
  long, thick = 0.6 * x.scale, 0.13 * x.scale
  handle = np.where(
    door,
    (np.abs(a - 0.08) < thick) & (above < long),
    (aside < long) & (above < thick),
  )
  shade = np.where(x.front, 1 - seam - 0.6 * handle, 1)
  return x.mix(x.noise) * np.maximum(shade, 0.25)[:, None]


def _spines(x: _Texels) -> np.ndarray:
  book = np.floor(x.u / x.scale)
  colours = np.stack([x.random(book, part) for part in (1, 2, 3)], axis=1)
  # some books in a colour of the row, most in any, none too pale
  colours = np.where(x.random(book)[:, None] < 0.3, x.second, 0.1 + 0.75 * colours)
  gap = x.u / x.scale % 1 < 0.12
  title = (np.abs(x.t - 0.3) < 0.12) & (x.random(book, 4) < 0.6)
  colours = colours * (1 - 0.7 * x.sharp * gap)[:, None]
  colours = colours + 0.35 * (x.sharp * title * ~gap)[:, None]
  return np.where(x.flat[:, None], x.first, np.minimum(colours, 1))


def _glazing(x: _Texels) -> np.ndarray:
  i, j = (x.s * 0.5 + 0.5) * x.columns, (x.t * 0.5 + 0.5) * x.lines
  wide = np.where(x.lines > 5, 0.3, 0.05)
  bar = (np.abs(i % 1 - 0.5) > 0.46) | (np.abs(j % 1 - 0.5) > 0.5 - wide)
  trees = x.t + 0.5 * x.noise < x.table[x.salt % len(x.table)] * 1.2 - 0.9
  green = np.array([0.25, 0.38, 0.2], np.float32) * (0.5 + x.noise[:, None])
  out = np.where(trees[:, None], green, x.second)
  return np.where(bar[:, None] | ~x.front[:, None], x.first, out)


def _painting(x: _Texels) -> np.ndarray:
  edge = np.maximum(np.abs(x.s), np.abs(x.t))
  i, j = np.floor(x.u / 0.13), np.floor(x.v / 0.1)
  blotch = x.random(i, j)[:, None]
  other = np.stack([x.random(np.zeros_like(i), part) for part in (1, 2, 3)], axis=1)
  inside = x.second + (other - x.second) * (0.3 * blotch + 0.7 * x.noise[:, None])
  mount = np.where((edge > 0.66)[:, None], np.float32(0.92), inside)
  return np.where(((edge > 0.86) | ~x.front)[:, None], x.first, mount)


def _screen(x: _Texels) -> np.ndarray:
  edge = np.maximum(np.abs(x.s), np.abs(x.t))
  sheen = 0.8 + 0.5 * np.clip(x.s + x.t, -1, 1)
  inside = x.second * (sheen + 0.3 * x.noise)[:, None]
  return np.where(((edge > 0.93) | ~x.front)[:, None], x.first, inside)


_PATTERNS: dict[str, Callable[[_Texels], np.ndarray]] = {
  "mottled": _mottled,
  "stripes": _stripes,
  "plaid": _plaid,
  "tiles": _tiles,
  "planks": _planks,
  "panels": _panels,
  "spines": _spines,
  "glazing": _glazing,
  "painting": _painting,
  "screen": _screen,
}


def _noise(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Smooth random blotches of size 1, f32[P] in [0, 1]."""
  left, low = np.floor(x), np.floor(y)
  a, b = x - left, y - low
  a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
  i, j = left.astype(np.int32) % _TABLE, low.astype(np.int32) % _TABLE
  i_next, j_next = (i + 1) % _TABLE, (j + 1) % _TABLE
  i, i_next = i * _TABLE, i_next * _TABLE
  first, second = table[i + j], table[i_next + j]
  third, fourth = table[i + j_next], table[i_next + j_next]
  lower = first + a * (second - first)
  return lower + b * (third + a * (fourth - third) - lower)


def random_table(generator: np.random.Generator) -> np.ndarray:
  """f32[4096], the random numbers that patterns are made from."""
  return generator.random(_TABLE**2, np.float32)


def paint(
  rows: Rows, surface: Surface, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Looks up the colours of surfaces.

  Args:
    rows: the surfaces.
    surface: what P pixels show of them.
    table: f32[4096], random numbers.

  Returns:
    The share of light that each pixel's surface sends back, f32[P, 3], and the light
    that it gives off by itself, f32[P, 1].
  """
  row = surface.row
  u, v = surface.place
  *grain, salt = rows.paint.T[[7, 8, 12]].take(row, axis=1)
  noise = _noise(table, u / grain[0] + 7.3 * salt, v / grain[1] + 3.1 * salt)
  seen = np.clip(np.minimum(*grain) / surface.size / 2 - 0.25, 0.2, 1)
  noise = 0.5 + (noise - 0.5) * seen

  front = surface.axis == rows.front[row]
  patterns = rows.pattern[row]
  colours = np.empty((len(patterns), 3), np.float32)
  for number, name in enumerate(furniture.PATTERNS):
    at = np.flatnonzero(patterns == number)
    if not at.size:
      continue
    own = rows.paint[row[at]]
    texels = _Texels(
      u=u[at],
      v=v[at],
      width=2 * surface.extent[0, at],
      height=2 * surface.extent[1, at],
      flat=surface.axis[at] == 2,
      front=front[at],
      first=own[:, 0:3],
      second=own[:, 3:6],
      scale=own[:, 6],
      columns=own[:, 9],
      lines=own[:, 10],
      salt=own[:, 12].astype(np.intp),
      noise=noise[at],
      sharp=np.clip(own[:, 6] / surface.size[at] / 2 - 0.5, 0, 1),
      table=table,
    )
    colours[at] = _PATTERNS[name](texels)
  colours *= colours  # from sRGB to light, nearly
  return colours, rows.paint[row, 11:12]


_MOST_SHADOWS = 12


def illuminate(
  room: Room, rows: Rows, surface: Surface, dice: random.Random
) -> np.ndarray:
  """Light that falls on surfaces, of two lamps and from everywhere.

  Args:
    room: the furnished room.
    rows: its surfaces.
    surface: what P pixels show of them.
    dice: where all random numbers come from.

  Returns:
    f32[P, 3].
  """
  point, normal = surface.point, surface.normal
  # less light comes into corners
  middle = np.float32(room.half[2] / 2)
  extent = np.array([room.half[0], room.half[1], middle], np.float32)[:, None]
  centre = np.array([0, 0, middle], np.float32)[:, None]
  corner = np.exp((np.abs(point - centre) - extent) / np.float32(0.25))
  ambient = np.prod(1 - 0.35 * corner * (1 - np.abs(normal)), axis=0)
  ambient *= 0.9 + 0.15 * normal[2]
  light = ambient[:, None] * _tint(dice, 0.35, 0.55)

  lamps = [room.lamp, room.daylight]
  if dice.random() < 0.5:
    lamps.reverse()
  for number, lamp in enumerate(lamps):
    way = np.array(lamp, np.float32)[:, None] - point
    square = np.square(way).sum(axis=0) + np.float32(0.05)
    cosine = np.maximum((normal * way).sum(axis=0) / np.sqrt(square), 0)
    strength = cosine / (1 + square / 4)
    if number == 0:
      lit = np.flatnonzero(cosine)
      # unlike an index, `take` keeps each axis together in memory
      lit_point, lit_way = point.take(lit, axis=1), way.take(lit, axis=1)
      strength[lit] *= _shadow(rows, lit_point, lit_way)
      light += strength[:, None] * _tint(dice, 0.9, 1.4)
    else:
      light += strength[:, None] * _tint(dice, 0.2, 0.5)
  return light


def _tint(dice: random.Random, least: float, largest: float) -> np.ndarray:
  """Light of some strength, white, bluish or yellowish."""
  warm, strength = dice.uniform(-0.12, 0.18), dice.uniform(least, largest)
  return np.array([1 + warm, 1, 1 - warm], np.float32) * np.float32(strength)


def _shadow(rows: Rows, point: np.ndarray, way: np.ndarray) -> np.ndarray:
  """Share of a lamp's light that is not held up by the larger boxes, f32[P]."""
  casts = rows.shape == furniture.BOX
  casts[:FACES] = False
  casts &= ~np.isin(rows.label, (furniture.WINDOW, furniture.PICTURE))
  areas = np.where(casts, np.sort(rows.half, axis=0)[1:].prod(axis=0), 0)
  largest = np.argsort(-areas, kind="stable")[:_MOST_SHADOWS]
  straight = 1 / (way + np.float32(1e-12))
  dark = np.zeros(point.shape[1], np.float32)
  first, second = np.empty_like(point), np.empty_like(point)
  for number in largest[areas[largest] > 0.02]:
    start, inverse = point, straight
    if rows.turn[1, number] != 0:
      cos, sin = rows.turn[:, number]
      start = np.stack(
        [cos * point[0] + sin * point[1], cos * point[1] - sin * point[0], point[2]]
      )
      _, inverse = turned(way, cos, sin)
    centre, half = rows.centre[:, number, None], rows.half[:, number, None]
    np.subtract(centre - half, start, out=first)
    np.subtract(centre + half, start, out=second)
    np.multiply(first, inverse, out=first)
    np.multiply(second, inverse, out=second)
    near = np.minimum(first, second).max(axis=0)
    far = np.minimum(np.maximum(first, second, out=second).min(axis=0), 1)
    # the longer the way through the box, the darker: soft edges
    np.maximum(dark, (far - np.maximum(near, 1e-3)) * 12, out=dark)
  return 1 - 0.85 * np.minimum(dark, 1)


def develop(
  light: np.ndarray,
  shape: tuple[int, ...],
  generator: np.random.Generator,
  dice: random.Random,
) -> np.ndarray:
  """A photograph: exposure, a lens that is not quite sharp, noise.

  Args:
    light: f32[P, 3], what comes from each pixel's surface.
    shape: H and W.
    generator: of the noise.
    dice: of everything else.

  Returns:
    f32[H, W, 3], sRGB in [0, 1].
  """
  exposure = dice.uniform(0.3, 0.45) / float(np.minimum(light, 1.5).mean())
  picture = 1 - np.exp(light * np.float32(-exposure))
  picture = np.sqrt(picture).reshape(*shape, 3)  # from light to sRGB, nearly
  side, middle = np.float32(0.12), np.float32(0.76)
  wide = np.concatenate([picture[:1], picture, picture[-1:]])
  picture = middle * picture + side * (wide[:-2] + wide[2:])
  wide = np.concatenate([picture[:, :1], picture, picture[:, -1:]], axis=1)
  picture = middle * picture + side * (wide[:, :-2] + wide[:, 2:])
  strength = np.float32(dice.uniform(0.008, 0.025))
  picture += strength * generator.standard_normal(picture.shape, np.float32)
  return np.clip(picture, 0, 1, out=picture)
