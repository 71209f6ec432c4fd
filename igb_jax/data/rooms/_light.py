"""The light in a room, and the photograph of it."""

import random

import numpy as np

from igb_jax.data.rooms._layout import Room
from igb_jax.data.rooms._rays import turned
from igb_jax.data.rooms._rows import FACES, Rows
from igb_jax.data.rooms._solids import BOX
from igb_jax.data.rooms._surfaces import Surface
from igb_jax.data.scene import CLASS_NAMES

_MOST_SHADOWS = 12


def illuminate(
  room: Room, rows: Rows, surface: Surface, dice: random.Random
) -> np.ndarray:
  """Light that falls on surfaces, of two lamps and from everywhere, f32[P, 3]."""
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
  casts = rows.shape == BOX
  casts[:FACES] = False
  flat = [CLASS_NAMES.index(name) for name in ("picture", "window")]
  casts &= ~np.isin(rows.label, flat)
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
    generator: the generator of the noise.
    dice: the random numbers of everything else.

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
