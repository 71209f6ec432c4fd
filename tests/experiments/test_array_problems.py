"""The problems of the league that are arrays and a small net."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.problems import diamonds, digits, teachers
from igb_jax.training.array_task import SPLITS
from igb_jax.training.task_file import load_task

PROBLEMS = Path(__file__).parents[2] / "experiments" / "problems"
MODULES = {"digits": digits, "diamonds": diamonds, "teachers": teachers}


@pytest.fixture(scope="module")
def tasks():
  return {name: module.make_task() for name, module in MODULES.items()}


@pytest.mark.parametrize(
  ("name", "num_tasks", "rows"),
  [
    ("digits", 2, (12_000, 2000, 4000)),
    ("diamonds", 4, (43_133, 5392, 5392)),
    ("teachers", 40, (8192, 2048, 4096)),
  ],
)
def test_shapes(name, num_tasks, rows, tasks):
  task = tasks[name]
  MODULES[name].TRAINING.check(task)
  assert task.name == name
  assert len(task.task_names) == len(task.metrics) == num_tasks
  assert tuple(task.num_rows(split) for split in SPLITS) == rows
  params = jax.eval_shape(task.init, jax.random.key(0))
  assert set(params) == {"shared", "heads"}
  features = jax.eval_shape(task.trunk, params, task.train)
  assert features.shape == (rows[0], features.shape[1])


@pytest.mark.parametrize("name", ["digits", "teachers"])
def test_splits_are_fixed_and_share_no_row(name, tasks):
  again = MODULES[name].make_task()
  jax.tree.map(np.testing.assert_array_equal, again.train, tasks[name].train)
  jax.tree.map(np.testing.assert_array_equal, again.test, tasks[name].test)
  inputs = next(key for key in ("image", "x") if key in again.train)
  seen = [{row.tobytes() for row in getattr(again, split)[inputs]} for split in SPLITS]
  assert not seen[0] & seen[1]
  assert not seen[0] & seen[2]
  assert not seen[1] & seen[2]


def test_no_digit_is_in_two_splits():
  parts = digits.split_originals()
  assert [len(part) for part in parts.values()] == [1200, 250, 347]
  assert sorted(np.concatenate([*parts.values()])) == [*range(1797)]


def test_each_digit_is_on_its_side(tasks):
  """By the two columns that are of one digit alone."""
  rows = tasks["digits"].train
  pixels, labels = digits.load_digits(return_X_y=True)
  images = (pixels.reshape(-1, 8, 8) / 16).astype(np.float32)
  alone = rows["image"][:50, :8, :2], rows["image"][:50, 2:, 8:]
  for side, columns in enumerate((images[:, :, :2], images[:, :, 6:])):
    for strip, label in zip(alone[side], rows["digit"][:50, side], strict=True):
      assert label in labels[(columns == strip).all(axis=(1, 2))]
  assert rows["image"].max() == 1


def test_the_cosines_of_the_teachers_are_those_that_are_set():
  u = teachers.directions()
  cosines = u @ u.T
  np.testing.assert_allclose(cosines, teachers.cosines(), atol=1e-12)
  of_first = np.round(cosines[0], 9)
  assert list(of_first[:5]) == [1, -0.8, 0.8, -0.8, 0.8]
  assert not of_first[5:].any()
  scales = np.sort(teachers.scales())
  np.testing.assert_allclose(np.diff(np.log10(scales)), 6 / 39)
  assert scales[[0, -1]] == pytest.approx([1e-3, 1e3])


def test_the_teacher_itself_reaches_the_known_best(tasks):
  rows = tasks["teachers"].test
  clean = np.sqrt(teachers.scales()) * teachers.teach(rows["x"].astype(float))
  np.testing.assert_allclose(clean, rows["clean"], rtol=1e-3, atol=1e-4)
  error = np.mean((clean - rows["y"]) ** 2, axis=0)
  excess = (error / teachers.scales() - teachers.NOISE**2) / (
    np.var(clean, axis=0) / teachers.scales()
  )
  assert np.abs(excess).max() < 0.02
  assert np.abs(excess.mean()) < 0.003


@pytest.mark.parametrize("name", MODULES)
def test_the_trivial_metrics_are_of_a_net_that_learnt_nothing(name, tasks):
  """It predicts the mean of the training labels, or their most frequent class."""
  task = tasks[name]
  params = jax.eval_shape(task.init, jax.random.key(0))
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
  bias = np.array(params["heads"]["bias"])
  if name == "digits":
    for side in range(2):
      bias[side, np.bincount(task.train["digit"][:, side]).argmax()] = 1
  elif name == "diamonds":  # the price has a mean of 0
    counts = [np.bincount(task.train[grade]) for grade in diamonds.CLASSES]
    bias[1:] = np.concatenate(counts) / 1e4
  else:
    bias = np.mean(task.train["y"], axis=0) / np.sqrt(teachers.scales())
  params["heads"]["bias"] = bias.astype(np.float32)
  found = task.measures(params, task.test)
  np.testing.assert_allclose(found, MODULES[name].TRAINING.trivial, atol=2.5)


@pytest.mark.parametrize("name", MODULES)
def test_losses_fall_in_twenty_steps(name, tasks):
  task = tasks[name]
  batch = {key: column[:512] for key, column in task.train.items()}
  optimizer = optax.adam(MODULES[name].TRAINING.learning_rates[1])

  def train(key):
    params = task.init(key)
    start = task.losses_of(params, batch)

    def step(carry, _):
      params, state = carry
      # in units of where they begin, since those of the teachers differ a millionfold
      grads = jax.grad(lambda p: jnp.sum(task.losses_of(p, batch) / start))(params)
      updates, state = optimizer.update(grads, state)
      return (optax.apply_updates(params, updates), state), None

    begin = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, begin, length=20)
    return task.losses_of(params, batch) / start

  shares = jax.jit(train)(jax.random.key(0))
  assert (shares < 1).all()
  assert shares.mean() < 0.97


@pytest.mark.parametrize("name", MODULES)
def test_loads_by_its_path(name, tasks):
  task = load_task(PROBLEMS / f"{name}.py")
  assert list(task.task_names) == list(tasks[name].task_names)


def test_toy_loads_by_its_path():
  assert load_task(PROBLEMS / "toy.py").name == "toy"


def test_a_file_in_a_package_imports_relatively(tmp_path):
  """Also where the package has another name, as in the wheel."""
  folder = tmp_path / "installed_igb" / "league"
  folder.mkdir(parents=True)
  for each in (folder, folder.parent):
    (each / "__init__.py").touch()
  for name in ("base.py", "toy.py"):
    (folder / name).write_text((PROBLEMS / name).read_text())
  assert load_task(folder / "toy.py").name == "toy"
  assert str(tmp_path) not in sys.path
