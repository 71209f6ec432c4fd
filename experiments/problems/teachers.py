"""Forty regressions that compete for a narrow trunk, with losses of very unequal scale.

Teacher k looks along the unit vector u_k, and the loss of task k has the scale s_k:

    f_k(x) = sin(2 u_k^T x + 1),    y_k = sqrt(s_k) (f_k(x) + noise),    x ~ N(0, I)

The tasks come in groups: cos(u_j, u_k) is 0.8 or -0.8 within a group and 0 otherwise
(the 1 keeps a head from undoing the sign), and the scales spread from 1e-3 to 1e3,
whatever the group. The best that any net can reach is known, since the teacher itself
reaches it: the variance of the noise, s_k NOISE^2. A metric is the excess of the loss
over it, as a share of what the mean of the labels leaves:

    100 E[(prediction - sqrt(s_k) f_k)^2] / Var[sqrt(s_k) f_k] %

measured against labels without noise, which is the same on average and varies less.
Zero is out of reach: the trunk is too narrow for all of them at once.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.array_task import ArrayTask
from igb_jax.training.problem import TaskMetric

from .base import Training

NUM_TASKS = 40
GROUP_SIZE = 5
COSINE = 0.8  # within a group, up to the sign
NOISE = 0.3  # standard deviation; that of a teacher is about 0.7
WIDTHS = (32, 16)  # of the trunk
ROWS = {"train": 8192, "validation": 2048, "test": 4096}

TRAINING = Training(
  epochs=75,
  batch_size=256,
  learning_rates=(1e-2, 3e-2, 1e-1),
  judged_by="mean",
  trivial=(100.0,) * NUM_TASKS,  # the mean of the labels
)


def cosines() -> np.ndarray:
  """f64[K, K]: those of the directions, set; every other task of a group is turned."""
  task = np.arange(NUM_TASKS)
  group, sign = task // GROUP_SIZE, (-1.0) ** (task % GROUP_SIZE)
  within = COSINE * (group[:, None] == group) + (1 - COSINE) * np.eye(NUM_TASKS)
  return sign[:, None] * sign * within


def directions() -> np.ndarray:
  """f64[K, K]: a unit vector of each teacher, with these cosines, turned at random."""
  turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(NUM_TASKS, NUM_TASKS)))
  return np.linalg.cholesky(cosines()) @ turn


def scales() -> np.ndarray:
  """f64[K]: of the losses, evenly spread over the logarithm, in a random order."""
  return np.random.default_rng(2).permutation(np.logspace(-3, 3, NUM_TASKS))


def teach(x: np.ndarray) -> np.ndarray:
  """What the teachers say, before scale and noise.

  Args:
    x: float[B, K], the inputs.

  Returns:
    float[B, K].
  """
  return np.sin(2 * x @ directions().T + 1)


def draw_rows(seed: int, count: int) -> dict[str, np.ndarray]:
  """Inputs, labels, and labels without noise."""
  rng = np.random.default_rng([3, seed])
  x = rng.normal(size=(count, NUM_TASKS))
  clean = teach(x)
  noisy = clean + NOISE * rng.normal(size=clean.shape)
  roots = np.sqrt(scales())
  rows = {"x": x, "y": roots * noisy, "clean": roots * clean}
  return {name: column.astype(np.float32) for name, column in rows.items()}


def make_task() -> ArrayTask:
  """Rows drawn from a fixed seed, and a small net with a linear head for each task."""
  layers = [part for width in WIDTHS for part in (nn.Dense(width), nn.tanh)]
  trunk_net, heads_net = nn.Sequential(layers), nn.Dense(NUM_TASKS)
  roots = jnp.asarray(np.sqrt(scales()), jnp.float32)

  def init(key: jax.Array) -> Any:
    keys = jax.random.split(key)
    return {
      "shared": trunk_net.init(keys[0], jnp.zeros((1, NUM_TASKS)))["params"],
      "heads": heads_net.init(keys[1], jnp.zeros((1, WIDTHS[-1])))["params"],
    }

  def trunk(params: Any, batch: Any) -> Any:
    return trunk_net.apply({"params": params["shared"]}, batch["x"])

  def predict(params: Any, features: Any) -> jax.Array:
    # in the unit of the labels, so that no head has to grow a thousandfold first
    return roots * jnp.asarray(heads_net.apply({"params": params["heads"]}, features))

  def losses(params: Any, features: Any, batch: Any) -> jax.Array:
    return jnp.mean((predict(params, features) - batch["y"]) ** 2, axis=0)

  def measures(params: Any, split: Any) -> jax.Array:
    error = predict(params, trunk(params, split)) - split["clean"]
    return 100 * jnp.mean(error**2, axis=0) / jnp.var(split["clean"], axis=0)

  names = [f"teacher{k:02}" for k in range(NUM_TASKS)]
  splits: dict[str, Any] = {
    split: draw_rows(seed, count) for seed, (split, count) in enumerate(ROWS.items())
  }
  return ArrayTask(
    name="teachers",
    task_names=names,
    metrics=[TaskMetric(f"excess of {name}", "%", name) for name in names],
    **splits,
    init=init,
    losses=losses,
    measures=measures,
    trunk=trunk,
  )
