"""The Klein-Gordon equation with a cubic term, whose solution oscillates in time.

    u_tt - u_xx + u^3 = f    on [0, 1] x [0, 1],    u = x cos(3 pi t) + (x t)^3

Reference: Wang, Teng and Perdikaris, "Understanding and Mitigating Gradient Flow
Pathologies in Physics-Informed Neural Networks", SIAM Journal on Scientific Computing
43(5), 2021, section 4.2. There the frequency is 5 pi, which takes more steps to learn
than a run of the league has.
"""

import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.array_task import ArrayTask

from .base import Training
from .physics import Derivatives, Layers, Rows, differentiate, make_physics_task

FREQUENCY = 3 * np.pi
WIDTHS = (2, 32, 32, 32, 1)

TRAINING = Training(
  epochs=120,
  batch_size=64,
  learning_rates=(3e-3, 1e-2, 3e-2),
  judged_by="relative L2 error",
  trivial=(100.0, 0.54, 0.41),  # u = 0
  at_once=False,
)


def exact(points: np.ndarray) -> np.ndarray:
  """The solution.

  Args:
    points: float[N, 2], x and t.
  """
  x, t = points.T
  return x * np.cos(FREQUENCY * t) + (x * t) ** 3


def source(points: np.ndarray) -> np.ndarray:
  """The right-hand side f.

  Args:
    points: float[N, 2], x and t.
  """
  x, t = points.T
  u_tt = -(FREQUENCY**2) * x * np.cos(FREQUENCY * t) + 6 * x**3 * t
  u_xx = 6 * x * t**3
  return u_tt - u_xx + exact(points) ** 3


def residual(u: Derivatives, f: jax.Array) -> jax.Array:
  """What the equation says is 0.

  Args:
    u: the net at B points.
    f: f32[B], the right-hand side there.
  """
  return u.yy - u.xx + u.u**3 - f


def draw(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
  """Points inside, at x = 0 or 1, and at t = 0."""
  interior, boundary, initial = rng.uniform(0, 1, (3, count, 2))
  boundary[:, 0] = rng.choice([0, 1], count)
  initial[:, 1] = 0
  return {
    "interior": interior,
    "exact": exact(interior),
    "source": source(interior),
    "boundary": boundary,
    "on_boundary": exact(boundary),
    "initial": initial,
  }


def errors(layers: Layers, rows: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
  """What should be 0: the residual, and what u lacks at the boundary and the start."""
  u = differentiate(layers, rows["interior"], (2, 2))
  start = differentiate(layers, rows["initial"], (0, 1))
  return (
    residual(u, rows["source"]),
    differentiate(layers, rows["boundary"]).u - rows["on_boundary"],
    # at the start u is x, and at rest
    jnp.concatenate([start.u - rows["initial"][:, 0], start.y]),
  )


def make_task() -> ArrayTask:
  """The equation, its boundary and its start, both value and velocity."""
  names = ("residual", "boundary", "initial")
  return make_physics_task("klein_gordon", names, WIDTHS, draw, errors)
