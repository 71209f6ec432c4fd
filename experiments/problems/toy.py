"""Two losses of two parameters, the plane that this literature draws.

Reference: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
NeurIPS 2021, figure 1; the first loss is multiplied by 0.1 as in Navon et al.,
"Multi-Task Learning as a Bargaining Game", ICML 2022. A run starts near one of the five
points of these figures, which take turns with the seeds, and is judged by how far from
the Pareto set it ends; closer than 0.1 counts as there.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.array_task import ArrayTask
from igb_jax.training.problem import TaskMetric

from .base import Training

_THERE = 0.1
STARTS = np.array([(-8.5, 7.5), (0, 0), (9, 9), (-7.5, -0.5), (9, -1)], np.float32)
SCALE = 0.1  # of the first loss

TRAINING = Training(
  epochs=300,
  batch_size=1,
  learning_rates=(3e-3, 1e-2, 3e-2),
  judged_by="distance",
  trivial=(1.0, 0.0, 0.0),  # a path that stopped before it was near
  positive=False,
)


def losses_of(t: jax.Array, scale: float = SCALE) -> jax.Array:
  """The two losses at a point.

  Args:
    t: f32[2], the point.
    scale: what the first loss is multiplied by.
  """
  t1, t2 = t
  f1 = jnp.abs(0.5 * (-t1 - 7) - jnp.tanh(-t2))
  f2 = jnp.abs(0.5 * (-t1 + 3) - jnp.tanh(-t2) + 2)
  f1, f2 = (jnp.log(jnp.maximum(f, 5e-6)) + 6 for f in (f1, f2))
  valley = 0.1 * (-t2 - 8) ** 2
  g1, g2 = (((-t1 + side) ** 2 + valley) / 10 - 20 for side in (7, -7))
  c1, c2 = jnp.maximum(jnp.tanh(t2 / 2), 0), jnp.maximum(jnp.tanh(-t2 / 2), 0)
  return jnp.stack([scale * (c1 * f1 + c2 * g1), c1 * f2 + c2 * g2])


def front() -> np.ndarray:
  """f32[2001, 2]: points of the Pareto set, minima of weighted sums below t2 = 0."""
  share = np.linspace(0, 1, 2001)[:, None]
  t1, t2 = 7 * (2 * share - 1), np.linspace(-9, -7, 401)
  lowest = share * (7 - t1) ** 2 + (1 - share) * (7 + t1) ** 2
  values = np.tanh(-t2 / 2) * ((lowest + 0.1 * (t2 + 8) ** 2) / 10 - 20)
  return np.stack([t1[:, 0], t2[values.argmin(axis=1)]], axis=1).astype(np.float32)


def make_task() -> ArrayTask:
  """The plane; its rows are empty, since the losses depend on the point alone."""
  nearest = jnp.asarray(front())

  def init(key: jax.Array) -> dict[str, Any]:
    seed = jax.random.key_data(key)[-1]  # of the league, whose keys are key(seed)
    start = jnp.asarray(STARTS)[seed % len(STARTS)]
    return {"shared": start + 0.5 * jax.random.normal(key, (2,)), "heads": {}}

  def losses(params: dict[str, Any], batch: Any) -> jax.Array:
    del batch
    return losses_of(params["shared"])

  def measures(params: dict[str, Any], split: Any) -> jax.Array:
    del split
    point = params["shared"]
    distance = jnp.sqrt(jnp.min(jnp.sum((nearest - point) ** 2, axis=1)))
    return jnp.stack([jnp.maximum(distance, _THERE), *losses_of(point)])

  rows = np.zeros((100, 0), np.float32)
  return ArrayTask(
    name="toy",
    task_names=("first", "second"),
    metrics=(
      TaskMetric("distance", "", "first"),
      TaskMetric("first loss", "", "first"),
      TaskMetric("second loss", "", "second"),
    ),
    train=rows,
    validation=rows,
    test=rows,
    init=init,
    losses=losses,
    measures=measures,
  )
