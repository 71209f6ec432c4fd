"""Burgers' equation, whose smooth start steepens to a shock.

    u_t + u u_x = (0.01 / pi) u_xx    on [-1, 1] x [0, 1]
    u(x, 0) = -sin(pi x),    u(-1, t) = u(1, t) = 0

References: Raissi, Perdikaris and Karniadakis, "Physics-Informed Neural Networks",
Journal of Computational Physics 378, 2019, section 3.1; the solution is of Basdevant et
al., "Spectral and Finite Difference Solutions of the Burgers Equation", Computers and
Fluids 14(1), 1986.
"""

import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.array_task import ArrayTask

from .base import Training
from .physics import Derivatives, Layers, Rows, differentiate, make_physics_task

VISCOSITY = 0.01 / np.pi
WIDTHS = (2, 32, 32, 32, 32, 1)

TRAINING = Training(
  epochs=120,
  batch_size=64,
  learning_rates=(1e-3, 3e-3, 1e-2),
  judged_by="relative L2 error",
  trivial=(100.0, 0.0, 0.5**0.5),  # u = 0
  at_once=False,
)


def exact(points: np.ndarray, nodes: int = 150) -> np.ndarray:
  """The solution, by the transform of Cole and Hopf.

  u is the mean of -sin(pi z) over z = x - sqrt(4 v t) eta with v the viscosity and
  weights exp(-eta^2 - cos(pi z) / (2 pi v)), which Gauss-Hermite quadrature integrates.

  Args:
    points: float[N, 2], x and t.
    nodes: how many the quadrature has.
  """
  x, t = points.astype(np.float64).T[..., None]
  eta, weights = np.polynomial.hermite.hermgauss(nodes)
  z = x - np.sqrt(4 * VISCOSITY * t) * eta
  # 1 / (2 pi v) is 50: the shift keeps the exponential between exp(-100) and 1
  weights = weights * np.exp(-(1 + np.cos(np.pi * z)) / (2 * np.pi * VISCOSITY))
  return -(weights * np.sin(np.pi * z)).sum(axis=1) / weights.sum(axis=1)


def residual(u: Derivatives) -> jax.Array:
  """What the equation says is 0."""
  return u.y + u.u * u.x - VISCOSITY * u.xx


def draw(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
  """Points inside, at x = -1 or 1, and at t = 0."""
  low, high = np.array([-1, 0]), np.array([1, 1])
  interior, boundary, initial = rng.uniform(low, high, (3, count, 2))
  boundary[:, 0] = rng.choice([-1, 1], count)
  initial[:, 1] = 0
  return {
    "interior": interior,
    "exact": exact(interior),
    "boundary": boundary,
    "initial": initial,
  }


def errors(layers: Layers, rows: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
  """What should be 0: the residual, and what u lacks at the boundary and the start."""
  u = differentiate(layers, rows["interior"], (2, 1))
  start = differentiate(layers, rows["initial"]).u
  return (
    residual(u),
    differentiate(layers, rows["boundary"]).u,
    start + jnp.sin(np.pi * rows["initial"][:, 0]),
  )


def make_task() -> ArrayTask:
  """The equation, its boundary and its start."""
  names = ("residual", "boundary", "initial")
  return make_physics_task("burgers", names, WIDTHS, draw, errors)
