"""The Helmholtz equation on a square, with an oscillating solution.

    u_xx + u_yy + k^2 u = q    on [-1, 1]^2,    u = sin(a1 pi x) sin(a2 pi y)

with a1 = 1, a2 = 3, k = 1. It has no initial condition; the sides x = -1 and 1 and the
sides y = -1 and 1 are two tasks. Reference: Wang, Teng and Perdikaris, "Understanding
and Mitigating Gradient Flow Pathologies in Physics-Informed Neural Networks", SIAM
Journal on Scientific Computing 43(5), 2021, section 4.1. There a2 is 4, which takes
more steps to learn than a run of the league has.
"""

import jax
import numpy as np

from igb_jax.training.array_task import ArrayTask

from .base import Training
from .physics import Derivatives, Layers, Rows, differentiate, make_physics_task

A1, A2, K = 1, 3, 1
WIDTHS = (2, 32, 32, 32, 1)

TRAINING = Training(
  epochs=120,
  batch_size=64,
  learning_rates=(3e-3, 1e-2, 3e-2),
  judged_by="relative L2 error",
  trivial=(100.0, 0.0, 0.0),  # u = 0, which fulfils both conditions
  at_once=False,
)


def exact(points: np.ndarray) -> np.ndarray:
  """The solution.

  Args:
    points: float[N, 2], x and y.
  """
  return np.sin(A1 * np.pi * points[:, 0]) * np.sin(A2 * np.pi * points[:, 1])


def source(points: np.ndarray) -> np.ndarray:
  """The right-hand side q.

  Args:
    points: float[N, 2], x and y.
  """
  return (K**2 - (A1**2 + A2**2) * np.pi**2) * exact(points)


def residual(u: Derivatives, q: jax.Array) -> jax.Array:
  """What the equation says is 0.

  Args:
    u: the net at B points.
    q: f32[B], the right-hand side there.
  """
  return u.xx + u.yy + K**2 * u.u - q


def draw(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
  """Points inside and on the sides; u is 0 on all of them."""
  interior, on_x, on_y = rng.uniform(-1, 1, (3, count, 2))
  on_x[:, 0], on_y[:, 1] = rng.choice([-1, 1], (2, count))
  return {
    "interior": interior,
    "exact": exact(interior),
    "source": source(interior),
    "x_sides": on_x,
    "y_sides": on_y,
  }


def errors(layers: Layers, rows: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
  """What should be 0: the residual, and u on the sides."""
  u = differentiate(layers, rows["interior"], (2, 2))
  return (
    residual(u, rows["source"]),
    differentiate(layers, rows["x_sides"]).u,
    differentiate(layers, rows["y_sides"]).u,
  )


def make_task() -> ArrayTask:
  """The equation and both pairs of sides."""
  names = ("residual", "x_boundary", "y_boundary")
  return make_physics_task("helmholtz", names, WIDTHS, draw, errors)
