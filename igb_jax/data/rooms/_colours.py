"""The colours of a room's surfaces."""

import numpy as np

from igb_jax.data.rooms._patterns import PATTERNS, Texels
from igb_jax.data.rooms._rows import Rows
from igb_jax.data.rooms._surfaces import Surface

_TABLE = 64  # sides of the table of random numbers


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
  for number, drawn in enumerate(PATTERNS.values()):
    at = np.flatnonzero(patterns == number)
    if not at.size:
      continue
    own = rows.paint[row[at]]
    texels = Texels(
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
    colours[at] = drawn(texels)
  colours *= colours  # from sRGB to light, nearly
  return colours, rows.paint[row, 11:12]
