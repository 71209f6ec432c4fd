"""What a file of this folder defines: `make_task`, and how the league trains it.

    make_task() -> ArrayTask     what is learnt, and the metrics that judge it
    TRAINING = Training(...)     how long, at which learning rates, what decides

so that `python -m experiments.custom --task=experiments/problems/digits.py` trains it
too.
"""

import dataclasses
import math

from igb_jax.training.array_task import ArrayTask


@dataclasses.dataclass(frozen=True)
class Training:
  """How the league trains a problem.

  Attributes:
    epochs: the number of epochs of a run; one is a pass over the training rows.
    batch_size: rows of a batch; those left over at the end of an epoch are not seen.
    learning_rates: the learning rates of Adam, from which each method takes what
      validates best; each falls along a cosine to 0.
    judged_by: "delta_m", the mean relative change of all metrics against single-task
      nets; "mean", the mean of all metrics, which must be errors of one unit; or the
      name of the metric that decides alone, an error.
    trivial: float[M], the metrics of a solution that learnt nothing, such as the
      prediction of the mean: a run that is judged no better than it has failed.
    positive: whether all losses are positive, which some methods need.
    at_once: whether seeds are faster in one vmapped step than one after another.
  """

  epochs: int
  batch_size: int
  learning_rates: tuple[float, float, float]
  judged_by: str
  trivial: tuple[float, ...]
  positive: bool = True
  at_once: bool = True

  def steps_per_epoch(self, task: ArrayTask) -> int:
    """Number of batches of an epoch."""
    return task.num_rows("train") // self.batch_size

  def check(self, task: ArrayTask) -> None:
    """Checks that it fits what is learnt.

    Raises:
      ValueError: it does not; the message says why.
    """
    names = [metric.name for metric in task.metrics]
    if self.judged_by not in ("delta_m", "mean", *names):
      raise ValueError(
        f"judged_by must be delta_m, mean or one of the metrics of {task.name}, "
        f"{', '.join(names)}; got {self.judged_by!r}."
      )
    if self.judged_by != "delta_m" and any(
      metric.higher_is_better
      for metric in task.metrics
      if self.judged_by in ("mean", metric.name)
    ):
      raise ValueError(f"{task.name} is judged by an accuracy; an error was expected.")
    if len(self.trivial) != len(names) or not all(map(math.isfinite, self.trivial)):
      raise ValueError(
        f"trivial must have a number for each of the {len(names)} metrics of "
        f"{task.name}, got {self.trivial}."
      )
    if not 1 <= self.batch_size <= task.num_rows("train"):
      raise ValueError(
        f"batch_size must be between 1 and the {task.num_rows('train')} training rows "
        f"of {task.name}, got {self.batch_size}."
      )
