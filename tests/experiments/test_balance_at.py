"""--balance-at and --keep-task-grads: an experiment that is balanced elsewhere."""

import jax
import numpy as np
import pytest

from experiments import custom, nyuv2, qm9
from tests.experiments.custom_task import small as small_task
from tests.experiments.molecule_runs import small as small_molecules
from tests.experiments.running import make_experiment
from tests.experiments.test_nyuv2 import small as small_scenes

TASK = """
import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.array_task import ArrayTask, TaskMetric

X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
ROWS = {"x": X, "y": np.stack([X.sum(axis=1), X[:, 0]], axis=1)}


def init(key):
  shared = jax.random.normal(key, (4, 8)) / 2
  return {"shared": shared, "heads": jnp.ones((8, 2)) / 8}


def trunk(params, rows):
  return jnp.tanh(rows["x"] @ params["shared"])


def losses(params, features, rows):
  return jnp.mean((features @ params["heads"] - rows["y"]) ** 2, axis=0)


def make_task():
  return ArrayTask(
    name="lines", task_names=("a", "b"),
    metrics=(TaskMetric("a", "m", "a"), TaskMetric("b", "m", "b")),
    train=ROWS, validation=ROWS, test=ROWS, init=init, losses=losses, trunk=trunk,
    measures=lambda params, rows: losses(params, trunk(params, rows), rows),
  )
"""


@pytest.fixture
def make(qm9_dir, tmp_path):
  """An experiment by name, with more options."""
  task = tmp_path / "task.py"
  task.write_text(TASK)

  def make_one(name: str, *more: str):
    if name == "qm9":
      return make_experiment(
        qm9, qm9.parse_config(small_molecules(qm9_dir, tmp_path / "run", *more))
      )
    if name == "custom":
      return make_experiment(custom, custom.parse_config(small_task(task, None, *more)))
    config = nyuv2.parse_config(small_scenes(tmp_path / "run", *more))
    return make_experiment(nyuv2, config)

  return make_one


def after_steps(experiment, count: int = 2):
  """The state after some steps."""
  state = experiment.init_state()
  for batch, _ in zip(experiment.epoch_batches(0), range(count), strict=False):
    state = experiment.step(state, batch)
  assert state.failure.step == -1
  return jax.device_get(state)


def assert_same(found, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4),
    (found.params, found.variables),
    (expected.params, expected.variables),
  )


@pytest.mark.parametrize(
  "name",
  [
    "custom",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("qm9", "nyuv2")),
  ],
)
def test_a_loss_balancer_does_not_mind_the_place(name, make):
  at_features = after_steps(make(name, "--balancer=ew", "--balance-at=features"))
  assert_same(at_features, after_steps(make(name, "--balancer=ew")))


@pytest.mark.parametrize(
  "name",
  [
    "custom",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("qm9", "nyuv2")),
  ],
)
def test_a_gradient_balancer_works_at_the_features(name, make):
  options = ("--balancer=igbv1+mgda", "--balance-at=features")
  kept, lean = (
    after_steps(make(name, *options, *more), count=1).balancer.gradient
    for more in ((), ("--no-keep-task-grads",))
  )
  assert (kept.gramian.norms > 0).all()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4),
    (lean.gramian, lean.weights),
    (kept.gramian, kept.weights),
  )


@pytest.mark.parametrize(
  "name", ["custom", pytest.param("qm9", marks=pytest.mark.slow)]
)
def test_the_task_gradients_need_not_be_kept(name, make):
  kept = after_steps(make(name, "--balancer=mgda"))
  assert_same(after_steps(make(name, "--balancer=mgda", "--no-keep-task-grads")), kept)


def test_a_task_without_a_trunk_is_refused(make, tmp_path):
  without = TASK.replace("losses(params, features, rows):", "losses(params, rows):")
  without = without.replace("trunk=trunk,\n", "\n").replace("features @", "rows['x'] @")
  without = without.replace(
    "losses(params, trunk(params, rows), rows)", "losses(params, rows)"
  )
  without = without.replace("jnp.ones((8, 2))", "jnp.ones((4, 2))")
  make("custom")  # writes the file
  (tmp_path / "task.py").write_text(without)
  with pytest.raises(ValueError, match="needs a task with a trunk"):
    make("custom", "--balance-at=features")
