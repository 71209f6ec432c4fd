"""What a user's task file may define, and what it hears where something is wrong."""

import dataclasses
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.data.part import Part
from igb_jax.training.array_task import ArrayTask, TaskMetric
from igb_jax.training.batches import ArrayBatches
from igb_jax.training.task_file import load_task


def rows(count: int) -> dict[str, np.ndarray]:
  x = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
  return {"x": x, "y": x[:, :2] + 1}


def errors(params, rows):
  return jnp.mean((rows["x"] @ params["heads"] - rows["y"]) ** 2, axis=0)


FIELDS = {
  "name": "lines",
  "task_names": ("a", "b"),
  "metrics": (TaskMetric("error of a", "m", "a"), TaskMetric("error of b", "m", "b")),
  "train": rows(9),
  "validation": rows(5),
  "test": rows(4),
  "init": lambda key: {"shared": {}, "heads": jax.random.normal(key, (3, 2))},
  "losses": errors,
  "measures": errors,
}


def metric(**changes) -> TaskMetric:
  return TaskMetric("error of a", "m", "a")._replace(**changes)


def test_a_right_task_is_taken_as_it_is():
  task = ArrayTask(**FIELDS)
  assert [task.num_rows(name) for name in ("train", "validation", "test")] == [9, 5, 4]
  assert task.losses is errors
  present = dataclasses.replace(
    task, present=lambda batch: (batch["y"] > 0).any(axis=0)
  )
  assert present.present is not None


def test_any_pytree_and_number_will_do():
  def split(count):
    numbers = np.arange(count, dtype=np.int64)
    half = numbers.astype(jnp.bfloat16)
    return (numbers, [half, numbers > 1], None)

  task = ArrayTask(
    **FIELDS
    | {name: split(count) for name, count in (("train", 4), ("validation", 1))}
    | {
      "test": split(2),
      "losses": lambda params, batch: params["heads"][0] * batch[1][0].sum(),
      "measures": lambda params, batch: params["heads"][0] * batch[0].mean(),
    }
  )
  assert task.num_rows("validation") == 1


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"name": "my data"}, "made of letters, digits.*got 'my data'"),
    ({"name": ""}, "made of letters, digits"),
    ({"name": "../up"}, "made of letters, digits"),
    ({"task_names": ("a", "b/c")}, "got 'b/c'"),
    ({"task_names": "ab"}, "task_names must be a tuple of at least one str, got 'ab'"),
    ({"task_names": ()}, "task_names must be a tuple of at least one str"),
    ({"task_names": ("a", 2)}, "task_names must be a tuple of at least one str"),
    ({"task_names": ("a", "b", "a")}, "task_names must differ, got a more than once"),
    ({"metrics": ()}, "metrics must be a tuple of at least one TaskMetric"),
    ({"metrics": metric()}, "metrics must be a tuple of at least one TaskMetric"),
    ({"metrics": ("error",)}, "metrics must be a tuple of at least one TaskMetric"),
    (
      {"metrics": (metric(), metric(task="b"))},
      "metrics must differ, got error of a more than once",
    ),
    (
      {"metrics": (metric(task="c"),)},
      "the metric 'error of a' is of the task 'c'; the tasks are a, b",
    ),
    ({"metrics": (metric(),)}, "every task needs a metric; without one: b"),
    ({"metrics": (metric(base=0.0),)}, "must have a positive base.*got 0.0"),
    ({"metrics": (metric(base=-0.3),)}, "must have a positive base.*got -0.3"),
    ({"metrics": (metric(base=np.nan),)}, "must have a positive base.*got nan"),
    ({"metrics": (metric(base="1"),)}, "must have a positive base.*got '1'"),
    (
      {"metrics": (metric(base=1.0), metric(name="error of b", task="b"))},
      "give base= to all metrics or to none.*without one: error of b",
    ),
    ({"train": {}}, "train holds no array"),
    ({"test": {"x": [1.0], "y": np.ones(1)}}, r"test\['x'\]\[0\] must be a NumPy"),
    ({"test": np.float32(1)}, "test must be a NumPy array with an axis of rows"),
    ({"test": jnp.ones(3)}, "test must be a NumPy array with an axis of rows"),
    (
      {"train": {"x": np.array(["a"]), "y": np.ones(1)}},
      r"train\['x'\] must hold numbers, got the dtype <U1",
    ),
    (
      {"validation": {"x": np.ones((5, 3)), "y": np.ones((4, 2))}},
      r"all arrays of validation need equal numbers of rows, got validation\['x'\] 5, "
      r"validation\['y'\] 4",
    ),
    ({"validation": rows(0)}, "validation has no rows"),
    (
      {"test": {"x": np.ones((5, 3))}},
      r"test must be the same pytree as train, got .*'x'.* and .*'x'.*'y'",
    ),
    (
      {"test": {"x": np.ones((5, 4), np.float32), "y": np.ones((5, 2), np.float32)}},
      r"test\['x'\] has rows of float32\[4\], train\['x'\] of float32\[3\]",
    ),
    (
      {"test": {"x": np.ones((5, 3)), "y": np.ones((5, 2), np.float32)}},
      r"test\['x'\] has rows of float64\[3\], train\['x'\] of float32\[3\]",
    ),
    ({"init": None}, "init must be a function, got None"),
    ({"losses": 3}, "losses must be a function, got 3"),
    ({"trunk": 3}, "trunk must be a function, got 3"),
    ({"init": lambda: {}}, "init fails: TypeError: .*takes 0 positional"),
    ({"init": lambda key: {"heads": np.arange(3)}}, r"\['heads'\] has the dtype int"),
    ({"losses": lambda params, batch: batch["z"]}, "losses fails: KeyError: 'z'"),
    (
      {"losses": lambda params, batch: errors(params, batch).sum()},
      r"losses must return one array, float\[2\], got .*shape=\(\)",
    ),
    (
      {"losses": lambda params, batch: list(errors(params, batch))},
      r"losses must return one array, float\[2\], got \[",
    ),
    (
      {"losses": lambda params, batch: jnp.arange(2)},
      r"losses must return one array, float\[2\], got .*int32",
    ),
    (
      {"measures": lambda params, split: jnp.append(errors(params, split), 1.0)},
      r"measures must return one array, float\[2\], got .*shape=\(3,\)",
    ),
    (
      {"present": lambda batch: batch["y"].sum(axis=0)},
      r"present must.*bool\[2\], got",
    ),
    ({"present": lambda batch: batch["y"] > 0}, r"present must .*bool\[2\], got"),
  ],
)
def test_whatever_is_wrong_is_named(changes, message):
  with pytest.raises((TypeError, ValueError), match=f"(?s){message}"):
    ArrayTask(**FIELDS | changes)


def test_an_error_in_a_function_keeps_its_cause():
  with pytest.raises(ValueError, match="losses fails") as caught:
    ArrayTask(**FIELDS | {"losses": lambda params, batch: batch["z"]})
  assert isinstance(caught.value.__cause__, KeyError)


def test_batches_are_whole_and_divided_into_parts():
  arrays = {"x": np.arange(10) * 10, "y": np.eye(10)}
  order = np.random.default_rng(0).permutation(10)
  batches = ArrayBatches(arrays, order, 4)
  assert len(batches) == 2
  for index in range(2):
    expected = order[4 * index : 4 * index + 4]
    assert batches[index]["x"].tolist() == (10 * expected).tolist()
    np.testing.assert_array_equal(batches[index]["y"], np.eye(10)[expected])
    halves = [ArrayBatches(arrays, order, 4, Part(n, 2))[index] for n in range(2)]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *halves)
    jax.tree.map(np.testing.assert_array_equal, joined, batches[index])
  with pytest.raises(ValueError, match="4 rows cannot be divided into 3 equal parts"):
    ArrayBatches(arrays, order, 4, Part(0, 3))


TASK = """
import dataclasses
import jax
import jax.numpy as jnp
import numpy as np
import numbers_beside
from igb_jax.training.array_task import ArrayTask, TaskMetric

@dataclasses.dataclass
class Scale:
  value: "float" = 2.0

def make_task():
  import more_beside

  rows = {"x": np.ones((numbers_beside.COUNT, 2), np.float32)}
  errors = lambda params, rows: Scale().value * (rows["x"] @ params).mean(axis=0)
  return ArrayTask(
    name="beside", task_names=("a",), metrics=(TaskMetric("error", "m", "a"),),
    train=rows, validation=rows, test=rows,
    init=lambda key: jax.random.normal(key, (2, 1)), losses=errors, measures=errors,
  )
"""


def test_a_file_is_loaded_with_what_is_beside_it(tmp_path):
  (tmp_path / "numbers_beside.py").write_text("COUNT = 7")
  (tmp_path / "more_beside.py").write_text("")
  path = tmp_path / "json.py"  # no clash with a module of this name
  path.write_text(TASK)
  before = [*sys.path]
  task = load_task(path)
  assert (task.name, task.num_rows("train")) == ("beside", 7)
  assert sys.path == before
  assert not hasattr(sys.modules.get("json"), "make_task")


@pytest.mark.parametrize(
  ("name", "code", "message"),
  [
    ("missing.py", None, "there is no file {path}"),
    ("task.txt", "", "{path} is not a Python file: its name must end in .py"),
    ("task.py", "make = 1", r"{path} defines no function make_task\(\)"),
    ("task.py", "make_task = 1", r"{path} defines no function make_task\(\)"),
    (
      "task.py",
      "def make_task(): return {}",
      r"{path}: make_task\(\) must return an ArrayTask, got dict",
    ),
  ],
)
def test_a_file_that_defines_no_task_is_refused(tmp_path, name, code, message):
  path = tmp_path / name
  if code is not None:
    path.write_text(code)
  with pytest.raises(
    (FileNotFoundError, TypeError, ValueError),
    match=message.format(path=re.escape(str(path))),
  ):
    load_task(path)


WRONG_MODEL = (
  TASK.replace("import numbers_beside", "COUNT = 3")
  .replace("numbers_beside.", "")
  .replace("  import more_beside\n", "")
  .replace("@ params)", "@ params[:1])")
)


@pytest.mark.parametrize(
  ("code", "cause", "message"),
  [
    ("a = 1\nb = a / 0\n", ZeroDivisionError, ", line 2: ZeroDivisionError: division"),
    ("def make_task(:", SyntaxError, r": SyntaxError: .*line 1"),
    (
      "def make_task():\n  import json\n  return json.loads('')\n",
      ValueError,
      ", line 3: JSONDecodeError: Expecting value",
    ),
    (
      "def make_task(path): return 1",
      TypeError,
      ": TypeError: .*missing 1 required positional argument: 'path'",
    ),
    (WRONG_MODEL, ValueError, ", line 16: ValueError: losses fails: TypeError: "),
  ],
)
def test_an_error_in_a_file_is_shown_with_its_line(tmp_path, code, cause, message):
  path = tmp_path / "task.py"
  path.write_text(code)
  before = [*sys.path]
  with pytest.raises(ValueError, match=re.escape(str(path)) + message) as caught:
    load_task(path)
  assert isinstance(caught.value.__cause__, cause)
  assert sys.path == before
