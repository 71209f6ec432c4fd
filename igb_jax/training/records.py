"""What is known of a run: of its evaluations, its epochs, and how far it is."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from igb_jax.training.sums import EpochSums, GradientSums


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What a pass over a split gave.

  Attributes:
    metrics: name -> number, in the units in which they are reported.
    score: what the learning rate and the choice of the best epoch go by; lower is
      better (delta_m).
    of_tasks: the same of each task alone, f[K].
  """

  metrics: dict[str, float]
  score: float
  of_tasks: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class GradientRecord:
  """What a gradient balancer saw and did in an epoch, means over its steps.

  Attributes:
    weights: the balancer's weights, f[K].
    cosines: between the task gradients of the shared parameters, f[K, K]; over the
      steps whose Gramian has both tasks, 0 if there was none.
    conflict_share: share of pairs of tasks with a negative cosine.
    condition_number: geometric mean of the Gramian's, at most 1 / eps of float32.
    residual: the residual of the solver.
    worst_residual: the largest in the epoch.
  """

  weights: np.ndarray
  cosines: np.ndarray
  conflict_share: float
  condition_number: float
  residual: float
  worst_residual: float

  @classmethod
  def of(cls, sums: GradientSums) -> "GradientRecord":
    """From the sums of an epoch, with NumPy leaves."""
    steps = np.maximum(sums.steps, 1)
    return cls(
      weights=np.asarray(sums.weights / steps),
      cosines=np.asarray(sums.cosines / np.maximum(sums.pairs, 1)),
      conflict_share=float(sums.conflicts / steps),
      condition_number=float(np.exp(sums.log_condition / steps)),
      residual=float(sums.residual / steps),
      worst_residual=float(sums.worst_residual),
    )


@dataclasses.dataclass
class Timing:
  """Seconds of an epoch.

  Attributes:
    total: the number in all.
    data: of it, waiting for data.
    per_step: the time of a step, in each chunk of steps.
  """

  total: float = 0.0
  data: float = 0.0
  per_step: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class EpochRecord:
  """What is known of an epoch at its end.

  Attributes:
    epoch: its number, from 0.
    num_steps: steps taken since the start of training, with those that were skipped.
    skipped_steps: steps of the epoch that were skipped since their numbers were not
      finite; they enter no mean.
    losses: mean task losses over the steps in which the task was present, f[K]; NaN if
      there was none.
    weights: mean weights of the loss balancer over the epoch, f[K].
    gradient: the sums of the gradient balancer, or None without one.
    learning_rate_scale: current / initial learning rate, during the epoch.
    validation: on the validation split at the end of the epoch.
    train_seconds: time of the epoch's steps, in seconds; of those after it, where the
      run was resumed within the epoch.
    data_seconds: part of it that was spent waiting for batches, in seconds.
    seconds_per_step: the seconds of each chunk of steps, the one that compiled left
      out.
  """

  epoch: int
  num_steps: int
  skipped_steps: int
  losses: np.ndarray
  weights: np.ndarray
  gradient: GradientRecord | None
  learning_rate_scale: float
  validation: Evaluation
  train_seconds: float
  data_seconds: float
  seconds_per_step: list[float]


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far a run is; with a `TrainState` all that decides how it goes on.

  Attributes:
    records: the records of the epochs that have ended.
    steps: taken in the epoch after them.
    seconds: that training has taken, those of earlier processes included.
    failure: why the run failed, where it is one of several seeds; else None.
  """

  records: Sequence[EpochRecord] = ()
  steps: int = 0
  seconds: float = 0.0
  failure: str | None = None


def mean_losses(sums: EpochSums) -> np.ndarray:
  """f[K], over the steps in which a task was present; NaN if there was none."""
  means = sums.losses / np.maximum(sums.present, 1)
  return np.where(sums.present > 0, means, np.nan)


def progress_to_json(seeds: Sequence[Progress]) -> dict[str, Any]:
  """What a checkpoint keeps of how far each seed is, in what JSON can hold."""
  contents = [dataclasses.asdict(each) for each in seeds]
  content = contents[0] if len(seeds) == 1 else {"of_seeds": contents}
  return json.loads(json.dumps(content, default=lambda array: array.tolist()))


def progress_from_json(content: dict[str, Any]) -> list[Progress]:
  """The inverse of `progress_to_json`, with every number as it was.

  Example:
    >>> progress_from_json(progress_to_json([Progress(steps=3)] * 2))[1].steps
    3
  """
  return [
    Progress(**{**each, "records": [_record(record) for record in each["records"]]})
    for each in content.get("of_seeds", [content])
  ]


def _record(content: dict[str, Any]) -> EpochRecord:
  gradient = content["gradient"]
  if gradient is not None:
    arrays = {name: np.asarray(gradient[name]) for name in ("weights", "cosines")}
    gradient = GradientRecord(**{**gradient, **arrays})
  arrays = {name: np.asarray(content[name]) for name in ("losses", "weights")}
  judged = content["validation"]
  of_tasks = tuple(judged.get("of_tasks", ()))  # records of older versions have none
  validation = Evaluation(**{**judged, "of_tasks": of_tasks})
  rest = {"gradient": gradient, "validation": validation}
  return EpochRecord(**{**content, **arrays, **rest})
