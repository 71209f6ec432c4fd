"""A task file of a user's own, and runs of it that take seconds."""

from pathlib import Path

import pytest

from experiments import custom
from igb_jax.training.experiment import Experiment
from tests.experiments.running import make_experiment

# A regression, which two metrics judge, and a classification.
TASK = """
import jax
import jax.numpy as jnp
import numpy as np
import optax

from igb_jax.training.array_task import ArrayTask, TaskMetric

BASES = None, None, None


def rows(seed, count):
  x = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
  return {"x": x, "height": x.sum(axis=1), "side": (x[:, 0] > x[:, 1]).astype(np.int64)}


def init(key):
  first, second = jax.random.split(key)
  shared = jax.random.normal(first, (4, 8)) / 2
  return {"shared": shared, "heads": jax.random.normal(second, (8, 3)) / 3}


def predict(params, rows):
  outputs = jnp.tanh(rows["x"] @ params["shared"]) @ params["heads"]
  return outputs[:, 0], outputs[:, 1:]


def losses(params, rows):
  height, side = predict(params, rows)
  entropy = optax.softmax_cross_entropy_with_integer_labels(side, rows["side"])
  return jnp.stack([jnp.mean((height - rows["height"]) ** 2), entropy.mean()])


def measures(params, rows):
  height, side = predict(params, rows)
  error = height - rows["height"]
  right = side.argmax(axis=1) == rows["side"]
  return jnp.stack(
    [jnp.abs(error).mean(), jnp.abs(error).max(), 100 * right.mean()]
  )


def make_task():
  return ArrayTask(
    name="made-up",
    task_names=("height", "side"),
    metrics=(
      TaskMetric("mean error", "m", "height", base=BASES[0]),
      TaskMetric("largest error", "m", "height", base=BASES[1]),
      TaskMetric("accuracy", "%", "side", higher_is_better=True, base=BASES[2]),
    ),
    train=rows(0, 70),
    validation=rows(1, 30),
    test=rows(2, 20),
    init=init,
    losses=losses,
    measures=measures,
  )
"""


@pytest.fixture
def write_task(tmp_path):
  """Writes the task file, with something in it replaced."""

  def write_task(*changes: tuple[str, str]) -> Path:
    code = TASK
    for old, new in changes:
      assert old in code
      code = code.replace(old, new)
    path = tmp_path / f"task{len([*tmp_path.iterdir()])}.py"
    path.write_text(code)
    return path

  return write_task


def small(task: Path, out: Path | str | None, *more: str) -> list[str]:
  """Arguments of a run that takes seconds."""
  where = [f"--out={out}"] if out else []
  fixed = ["--batch-size=16", "--epochs=4", "--learning-rate=0.03"]
  return [f"--task={task}", *where, *fixed, *more]


def make(task: Path, *more: str) -> Experiment:
  """The experiment of a task file, ready to train."""
  return make_experiment(custom, custom.parse_config(small(task, None, *more)))
