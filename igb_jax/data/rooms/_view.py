"""Where the camera stands in a room, and how it looks at the furniture."""

import math
from typing import NamedTuple

import numpy as np

from igb_jax.data.rooms._layout import Room
from igb_jax.data.rooms._solids import Dice


class View(NamedTuple):
  """Where the camera is: position f64[3] in metres, axes f64[3, 3] in rows."""

  position: np.ndarray
  axes: np.ndarray


def look(room: Room, dice: Dice) -> View:
  """A place for the camera, looking at some piece of furniture past few others."""
  best, chosen = -math.inf, (0.0, 0.0, 0.0, 0.0, 1.5)
  standing = [piece for piece in room.pieces if piece[2][0] < 0.3]
  standing = standing or [((-0.5, 0.5), (-0.5, 0.5), (0.0, 1.0))]
  for _ in range(16):
    x, y = (dice.uniform(0.25 - half, half - 0.25) for half in room.half[:2])
    z = dice.uniform(1.1, 1.7)
    target = [(low + high) / 2 for low, high in dice.choice(standing)]
    away = math.hypot(target[0] - x, target[1] - y)
    yaw = math.atan2(target[1] - y, target[0] - x) + dice.uniform(-0.3, 0.3)
    pitch = math.atan2(target[2] - z, away) + dice.uniform(-0.1, 0.25)
    pitch = min(max(pitch, -0.45), 0.15)
    cos, sin = math.cos(yaw), math.sin(yaw)

    score = dice.uniform(0, 1)
    for bounds in room.pieces:
      (left, right), (near, far), (low, high) = bounds
      if (
        left - 0.25 < x < right + 0.25
        and near - 0.25 < y < far + 0.25
        and low - 0.25 < z < high + 0.25
      ):
        score -= 100
      a, b = (left + right) / 2 - x, (near + far) / 2 - y
      forward, aside = cos * a + sin * b, abs(cos * b - sin * a)
      if forward > 0 and aside < 0.5 * forward:
        size = max(right - left, far - near) * (high - low)
        score += min(math.sqrt(size) / forward, 1) if forward > 1.3 else -2
    wall = min(
      (room.half[0] - math.copysign(x, x * cos)) / max(abs(cos), 1e-6),
      (room.half[1] - math.copysign(y, y * sin)) / max(abs(sin), 1e-6),
    )
    score += min(wall, 4)  # rather across the room than into a corner
    if score > best:
      best, chosen = score, (yaw, pitch, x, y, z)
  yaw, pitch, x, y, z = chosen
  forward = math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch)
  back = -np.array([*forward, math.sin(pitch)])
  right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
  up = np.cross(back, right)
  roll = dice.gauss(0, 0.02)
  axes = [
    math.cos(roll) * right + math.sin(roll) * up,
    math.cos(roll) * up - math.sin(roll) * right,
    back,
  ]
  return View(np.array([x, y, z]), np.stack(axes))
