"""A data set and a net of the user's own, as one Python file defines them.

    def make_task() -> ArrayTask: ...

`python -m experiments.custom --task=my_task.py` trains what the function returns, and
`python -m experiments.compare` compares balancers on it; docs/custom_task.md has an
example. Arrays that fit into memory, a net that is a pure function, and nothing of how
it is trained.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.problem import TaskMetric as TaskMetric
from igb_jax.training.problem import check_metrics, check_names
from igb_jax.training.step import Batch, LossesFn, Params

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class ArrayTask:
  """K tasks that one net learns from arrays in memory, M metrics that judge them.

  Everything is checked when it is made; the functions are traced, not run.

  Attributes:
    name: the name of the data set, made of letters, digits, `_`, `.` and `-`.
    task_names: the names of the K tasks, made of the same.
    metrics: M of them, at least one per task; all with a base, or none.
    train: what the net learns from: a pytree of NumPy arrays whose first axis is the
      rows of the data set.
    validation: other rows in the same pytree, for the learning rate and the best epoch.
    test: others again, for the results.
    init: `key -> params`, a pytree of floats; a gradient balancer needs a dict of what
      the tasks share, `shared`, and what they do not, `heads`.
    losses: `(params, batch) -> float[K]`, the task losses of some rows of `train`; with
      a trunk `(params, features, batch)`.
    measures: `(params, split) -> float[M]`, the metrics of a whole split, in their
      order and units.
    present: `batch -> bool[K]`, which tasks the batch has labels for; None where all
      batches have all. The losses must be finite without them too.
    trunk: `(params, batch) -> features`, what is before the features at which a
      gradient balancer may work (`--balance-at features`); None where it may not.

  Raises:
    TypeError, ValueError: something is wrong with one of them; the message says what.

  Example:
    >>> x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    >>> rows = {"x": x, "y": x + 1}
    >>> def errors(params, rows):
    ...   return jnp.mean((rows["x"] * params["heads"] - rows["y"]) ** 2, axis=0)
    >>> task = ArrayTask(
    ...   name="lines",
    ...   task_names=("a", "b"),
    ...   metrics=(TaskMetric("error of a", "m^2", "a"), TaskMetric("b's", "m^2", "b")),
    ...   train=rows,
    ...   validation=rows,
    ...   test=rows,
    ...   init=lambda key: {"shared": {}, "heads": jax.random.normal(key, (2,))},
    ...   losses=errors,
    ...   measures=errors,
    ... )
    >>> task.num_rows("train")
    8
  """

  name: str
  task_names: Sequence[str]
  metrics: Sequence[TaskMetric]
  train: Any
  validation: Any
  test: Any
  init: Callable[[jax.Array], Params]
  losses: LossesFn
  measures: Callable[[Params, Any], jax.Array]
  present: Callable[[Batch], jax.Array] | None = None
  trunk: Callable[[Params, Batch], Any] | None = None

  def losses_of(self, params: Params, batch: Batch) -> jax.Array:
    """float[K]: the task losses, through the trunk if there is one.

    Args:
      params: the parameters of the net.
      batch: some rows of `train`.
    """
    if self.trunk is None:
      return self.losses(params, batch)
    return self.losses(params, self.trunk(params, batch), batch)

  def __post_init__(self):
    """Checks everything."""
    check_names(self.name, self.task_names)
    check_metrics(self.metrics, self.task_names)
    for split in SPLITS:
      self._check_split(split)
    self._check_functions()

  def num_rows(self, split: str) -> int:
    """How many rows a split has.

    Args:
      split: its name.
    """
    return len(jax.tree.leaves(getattr(self, split))[0])

  def _check_split(self, split: str) -> None:
    rows = jax.tree_util.tree_leaves_with_path(getattr(self, split))
    if not rows:
      raise ValueError(f"{split} holds no array.")
    for path, leaf in rows:
      where = split + jax.tree_util.keystr(path)
      if not isinstance(leaf, np.ndarray) or leaf.ndim == 0:
        raise TypeError(
          f"{where} must be a NumPy array with an axis of rows, got {leaf!r:.60}."
        )
      if not (jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == bool):
        raise TypeError(f"{where} must hold numbers, got the dtype {leaf.dtype}.")
    numbers = {jax.tree_util.keystr(path): len(leaf) for path, leaf in rows}
    if len(set(numbers.values())) > 1:
      listed = ", ".join(f"{split}{place} {count}" for place, count in numbers.items())
      raise ValueError(
        f"all arrays of {split} need equal numbers of rows, got {listed}."
      )
    if self.num_rows(split) == 0:
      raise ValueError(f"{split} has no rows.")
    structure, of_train = map(jax.tree.structure, (getattr(self, split), self.train))
    if structure != of_train:
      raise ValueError(
        f"{split} must be the same pytree as train, got {structure} and {of_train}."
      )
    for (path, leaf), expected in zip(rows, jax.tree.leaves(self.train), strict=True):
      if (leaf.dtype, leaf.shape[1:]) != (expected.dtype, expected.shape[1:]):
        place = jax.tree_util.keystr(path)
        raise ValueError(
          f"{split}{place} has rows of {_of_row(leaf)}, train{place} of "
          f"{_of_row(expected)}."
        )

  def _check_functions(self) -> None:
    for name in ("init", "losses", "measures", "present", "trunk"):
      function = getattr(self, name)
      is_left_out = function is None and name in ("present", "trunk")
      if not (callable(function) or is_left_out):
        raise TypeError(f"{name} must be a function, got {function!r}.")
    params = _trace("init", self.init, jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
      if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise TypeError(
          f"init must return floats, which gradients can change; "
          f"{jax.tree_util.keystr(path)} has the dtype {leaf.dtype}."
        )
    num_tasks = len(self.task_names)
    _check_vector("losses", self.losses_of, "float", num_tasks, params, self.train)
    for split in SPLITS[1:]:
      rows = getattr(self, split)
      count = len(self.metrics)
      _check_vector("measures", self.measures, "float", count, params, rows)
    if self.present is not None:
      _check_vector("present", self.present, "bool", num_tasks, self.train)


def _check_vector(
  name: str,
  function: Callable[..., Any],
  kind: Literal["float", "bool"],
  size: int,
  *arguments: Any,
) -> None:
  result = _trace(name, function, *arguments)
  kinds = {"float": jnp.floating, "bool": jnp.bool}
  is_vector = getattr(result, "shape", None) == (size,)
  if not (is_vector and jnp.issubdtype(result.dtype, kinds[kind])):
    raise ValueError(f"{name} must return one array, {kind}[{size}], got {result}.")


def _trace(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
  """The shapes that a function returns; `name` is the field that a user knows."""
  try:
    return jax.eval_shape(function, *arguments)
  except Exception as error:  # whatever the user's code raises
    message = f"{name} fails: {type(error).__name__}: {error}"
    raise ValueError(message) from error


def _of_row(leaf: np.ndarray) -> str:
  return f"{leaf.dtype}{list(leaf.shape[1:])}"
