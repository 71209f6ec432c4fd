"""A problem as a value: K tasks that one net learns, and M metrics that judge them.

    make_problem(config, devices) -> Problem      what a data set and a net are
    Experiment(make_problem, config)              what trains it

A problem knows nothing of balancers, checkpoints or seeds at once.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from igb_jax.data.loader import BatchSource
from igb_jax.training.step import CONSTANT, Batch, Params, Variables


class TaskMetric(NamedTuple):
  """A number by which one of the tasks is judged.

  Attributes:
    name: the name of the metric.
    unit: in which it is measured and reported.
    task: name of the task.
    higher_is_better: whether it is an accuracy rather than an error.
    base: what a net reaches that learns this task alone, to which delta_m is relative;
      positive, or None where it is not known.
  """

  name: str
  unit: str
  task: str
  higher_is_better: bool = False
  base: float | None = None


class BesideTheMean(NamedTuple):
  """How a test compares with predicting the mean of the training labels.

  Attributes:
    metrics: f64[M], the metrics of that prediction, in their units.
    explained: f64[M], the share of the labels' variance that the network explains: 1 is
      all of it, 0 or less no better than the mean.
  """

  metrics: np.ndarray
  explained: np.ndarray


@dataclasses.dataclass(frozen=True)
class Problem:
  """What is learnt, from what, and how it is judged.

  Where the net keeps variables that gradients do not reach, such as batch statistics,
  `init` returns `(params, variables)`, and `losses` and `trunk` are as
  `make_train_step` takes them with `stateful`.

  Attributes:
    name: the name of the data set, made of letters, digits, `_`, `.` and `-`.
    description: what the data are and where they come from, in a sentence.
    task_names: the names of the K tasks, made of the same characters.
    metrics: M of them, at least one per task, all with a base.
    base: whose numbers the bases of the metrics are, in a word or two.
    steps_per_epoch: number of training batches.
    batches: `seed -> ` all training batches of a run, one epoch after the other, a
      function of the seed alone.
    init: `key -> params`; a gradient balancer needs a dict of what the tasks share,
      `shared`, and what they do not, `heads`.
    losses: `(params, batch) -> f32[K]`; with a trunk `(params, features, batch)`.
    measure: `(params, variables, split) -> f64[M]`, the metrics of "validation" or
      "test", in their order and units.
    trunk: `(params, batch) -> features`, what is before the features at which a
      gradient balancer may work; None where it may not.
    present: `batch -> bool[K]`, which tasks the batch has labels for; None where all
      batches have all.
    stateful: whether the net keeps variables.
    plateau: what lowers the learning rate by the validation score, or None.
    schedule: number of steps -> current / initial learning rate, beside the plateau.
    beside_the_mean: `(params, variables) -> BesideTheMean`, how the test compares with
      predicting the training mean; None where that has no meaning.
    averaged_epochs: how many last epochs' validations are averaged to be the test; None
      where the epoch with the best validation is tested instead.
    notice: what a reader of the results must know, or None.
    facts: what else is worth a place in summary.json.
    epoch_facts: `(seed, epoch) -> ` what else is worth a place in the epoch's line of
      metrics.jsonl.
    plot: `(folder, params, variables) -> ` files, what is drawn beside the usual plots.
    workers: processes that make the training batches; 0 for a thread.

  Raises:
    TypeError, ValueError: names or metrics are wrong; the message says how.
  """

  name: str
  description: str
  task_names: Sequence[str]
  metrics: Sequence[TaskMetric]
  base: str
  steps_per_epoch: int
  batches: Callable[[int], BatchSource[Batch]]
  init: Callable[[jax.Array], Any]
  losses: Callable[..., Any]
  measure: Callable[[Params, Variables, str], np.ndarray]
  trunk: Callable[..., Any] | None = None
  present: Callable[[Batch], jax.Array] | None = None
  stateful: bool = False
  plateau: optax.GradientTransformationExtraArgs | None = None
  schedule: optax.Schedule = CONSTANT
  beside_the_mean: Callable[[Params, Variables], BesideTheMean] | None = None
  averaged_epochs: int | None = None
  notice: str | None = None
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  epoch_facts: Callable[[int, int], Mapping[str, float]] = lambda seed, epoch: {}
  plot: Callable[[Path, Params, Variables], list[Path]] = lambda folder, *net: []
  workers: int = 0

  def __post_init__(self):
    """Checks names and metrics."""
    check_names(self.name, self.task_names)
    check_metrics(self.metrics, self.task_names)
    if any(metric.base is None for metric in self.metrics):
      raise ValueError("every metric of a problem needs a base.")

  @property
  def bases(self) -> list[float]:
    """The bases of all metrics."""
    return [metric.base for metric in self.metrics if metric.base is not None]

  def losses_of(self, params: Params, *rest: Any) -> Any:
    """The task losses f32[K], through the trunk if there is one.

    Args:
      params: the parameters of the net.
      *rest: the variables, if the net keeps any, and the batch.
    """
    if self.trunk is None:
      return self.losses(params, *rest)
    return self.losses(params, self.trunk(params, *rest), *rest)


def metrics_of(metrics: Sequence[TaskMetric], task: str) -> list[int]:
  """Places of the metrics that judge a task.

  Args:
    metrics: M of them.
    task: its name.
  """
  return [place for place, metric in enumerate(metrics) if metric.task == task]


def check_names(name: str, task_names: Sequence[str]) -> None:
  """Checks the names of a data set and of its tasks, which name folders and options.

  Args:
    name: the name of the data set.
    task_names: the names of the K tasks.

  Raises:
    TypeError, ValueError: one is wrong.
  """
  _check_sequence("task_names", task_names, str)
  for each in (name, *task_names):
    if not isinstance(each, str) or not re.fullmatch(r"\w[\w.-]*", each):
      raise ValueError(
        "the names of the data set and of the tasks must be made of letters, digits, "
        f"_, . and -, got {each!r}."
      )
  _check_distinct("task_names", task_names)


def check_metrics(metrics: Sequence[TaskMetric], task_names: Sequence[str]) -> None:
  """Checks that every task is judged, and that all metrics have a base or none.

  Args:
    metrics: M of them.
    task_names: the names of the K tasks.

  Raises:
    TypeError, ValueError: one is wrong.
  """
  _check_sequence("metrics", metrics, TaskMetric)
  _check_distinct("metrics", [metric.name for metric in metrics])
  for metric in metrics:
    if metric.task not in task_names:
      raise ValueError(
        f"the metric {metric.name!r} is of the task {metric.task!r}; the tasks are "
        f"{', '.join(task_names)}."
      )
    base = metric.base
    if base is not None and not (isinstance(base, Real) and 0 < base < np.inf):
      raise ValueError(
        f"the metric {metric.name!r} must have a positive base, to which changes are "
        f"relative, or None, got {base!r}."
      )
  unjudged = set(task_names) - {metric.task for metric in metrics}
  if unjudged:
    raise ValueError(
      f"every task needs a metric; without one: {', '.join(sorted(unjudged))}."
    )
  without = [metric.name for metric in metrics if metric.base is None]
  if 0 < len(without) < len(metrics):
    raise ValueError(
      "give base= to all metrics or to none, since delta_m is a mean over all of "
      f"them; without one: {', '.join(without)}."
    )


def _check_sequence(name: str, values: Any, kind: type) -> None:
  is_sequence = isinstance(values, tuple | list) and not isinstance(values, kind)
  if not (is_sequence and values and all(isinstance(each, kind) for each in values)):
    raise TypeError(
      f"{name} must be a tuple of at least one {kind.__name__}, got {values!r}."
    )


def _check_distinct(name: str, values: Sequence[str]) -> None:
  twice = sorted({value for value in values if values.count(value) > 1})
  if twice:
    raise ValueError(f"{name} must differ, got {', '.join(twice)} more than once.")
