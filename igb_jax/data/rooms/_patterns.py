"""The patterns of surfaces, each one array operation over the pixels that show it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Texels(NamedTuple):
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


def _mottled(x: Texels) -> np.ndarray:
  return x.mix(x.noise)


def _half_seen(pattern: np.ndarray, x: Texels) -> np.ndarray:
  return 0.5 + (pattern - 0.5) * x.sharp


def _stripes(x: Texels) -> np.ndarray:
  return x.mix(0.85 * _half_seen(x.u / x.scale % 1 < 0.5, x) + 0.15 * x.noise)


def _plaid(x: Texels) -> np.ndarray:
  bands = (x.u / x.scale % 1 < 0.4) * 0.5 + (x.v / x.scale % 1 < 0.4) * 0.5
  return x.mix(0.9 * _half_seen(bands, x) + 0.1 * x.noise)


def _tiles(x: Texels) -> np.ndarray:
  u, v = x.u / x.scale, x.v / x.scale
  tone = 0.7 * x.random(np.floor(u), np.floor(v)) + 0.3 * x.noise
  joint = np.minimum(u % 1, v % 1) < 0.04
  return x.mix(tone) * (1 - 0.4 * x.sharp * joint)[:, None]


def _planks(x: Texels) -> np.ndarray:
  board = np.floor(x.v / x.scale)
  along = x.u / 1.3 + x.random(board)
  tone = 0.5 * _half_seen(x.random(board, np.floor(along)), x) + 0.5 * x.noise
  seam = (x.v / x.scale % 1 < 0.06) | (along % 1 < 0.008)
  return x.mix(tone * 1.3) * (1 - 0.45 * x.sharp * seam)[:, None]


def _panels(x: Texels) -> np.ndarray:
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


def _spines(x: Texels) -> np.ndarray:
  book = np.floor(x.u / x.scale)
  colours = np.stack([x.random(book, part) for part in (1, 2, 3)], axis=1)
  # some books in a colour of the row, most in any, none too pale
  colours = np.where(x.random(book)[:, None] < 0.3, x.second, 0.1 + 0.75 * colours)
  gap = x.u / x.scale % 1 < 0.12
  title = (np.abs(x.t - 0.3) < 0.12) & (x.random(book, 4) < 0.6)
  colours = colours * (1 - 0.7 * x.sharp * gap)[:, None]
  colours = colours + 0.35 * (x.sharp * title * ~gap)[:, None]
  return np.where(x.flat[:, None], x.first, np.minimum(colours, 1))


def _glazing(x: Texels) -> np.ndarray:
  i, j = (x.s * 0.5 + 0.5) * x.columns, (x.t * 0.5 + 0.5) * x.lines
  wide = np.where(x.lines > 5, 0.3, 0.05)
  bar = (np.abs(i % 1 - 0.5) > 0.46) | (np.abs(j % 1 - 0.5) > 0.5 - wide)
  trees = x.t + 0.5 * x.noise < x.table[x.salt % len(x.table)] * 1.2 - 0.9
  green = np.array([0.25, 0.38, 0.2], np.float32) * (0.5 + x.noise[:, None])
  out = np.where(trees[:, None], green, x.second)
  return np.where(bar[:, None] | ~x.front[:, None], x.first, out)


def _painting(x: Texels) -> np.ndarray:
  edge = np.maximum(np.abs(x.s), np.abs(x.t))
  i, j = np.floor(x.u / 0.13), np.floor(x.v / 0.1)
  blotch = x.random(i, j)[:, None]
  other = np.stack([x.random(np.zeros_like(i), part) for part in (1, 2, 3)], axis=1)
  inside = x.second + (other - x.second) * (0.3 * blotch + 0.7 * x.noise[:, None])
  mount = np.where((edge > 0.66)[:, None], np.float32(0.92), inside)
  return np.where(((edge > 0.86) | ~x.front)[:, None], x.first, mount)


def _screen(x: Texels) -> np.ndarray:
  edge = np.maximum(np.abs(x.s), np.abs(x.t))
  sheen = 0.8 + 0.5 * np.clip(x.s + x.t, -1, 1)
  inside = x.second * (sheen + 0.3 * x.noise)[:, None]
  return np.where(((edge > 0.93) | ~x.front)[:, None], x.first, inside)


PATTERNS: dict[str, Callable[[Texels], np.ndarray]] = {
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
