"""A small task, two lines to be fitted, and what a comparison on it is given."""

from pathlib import Path

import pytest

# with OFFSET the first loss is negative and has no logarithm
TASK = """
import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.array_task import ArrayTask, TaskMetric

x = np.random.default_rng(0).normal(size=(96, 3)).astype(np.float32)
rows = {"x": x, "y": np.stack([x.sum(1), 10 * x[:, 0] + 1], axis=1)}


def errors(params, rows):
  prediction = jnp.tanh(rows["x"] @ params["shared"]) @ params["heads"]
  return jnp.mean((prediction - rows["y"]) ** 2, axis=0)


def init(key):
  keys = jax.random.split(key)
  return {
    "shared": jax.random.normal(keys[0], (3, 4)),
    "heads": jax.random.normal(keys[1], (4, 2)),
  }


def make_task():
  return ArrayTask(
    name="lines",
    task_names=("sum", "first"),
    metrics=(
      TaskMetric("error of the sum", "m^2", "sum"),
      TaskMetric("error of the first", "m^2", "first"),
    ),
    train=jax.tree.map(lambda leaf: leaf[:64], rows),
    validation=jax.tree.map(lambda leaf: leaf[64:80], rows),
    test=jax.tree.map(lambda leaf: leaf[80:], rows),
    init=init,
    losses=lambda params, rows: errors(params, rows) - jnp.array([OFFSET, 0.0]),
    measures=errors,
  )
"""


@pytest.fixture
def task(tmp_path) -> Path:
  """The task file, with losses that have logarithms."""
  path = tmp_path / "lines.py"
  path.write_text(TASK.replace("OFFSET", "0.0"))
  return path


def arguments(task, out, *more: str) -> list[str]:
  """Arguments of a comparison that takes seconds."""
  return [
    f"--task={task}", f"--out={out}", "--balancers=ew,mgda", "--seeds=2",
    "--gradient-seeds=1", "--epochs=3", "--batch-size=16", *more,
  ]  # fmt: skip
