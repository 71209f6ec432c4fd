"""Numbers that are not finite: how they are found, and what is said of them."""

from collections.abc import Sequence

import numpy as np

from igb_jax.training.records import Evaluation
from igb_jax.training.sums import EpochSums, Failure


class NonFiniteError(RuntimeError):
  """A loss, a gradient or a metric was not finite; what was saved before stays.

  Attributes:
    step: number of the step, from 0.
    tasks: names of the tasks whose weighted loss was not finite; empty if only the
      gradient or a metric was not.
  """

  def __init__(self, step: int, tasks: list[str], message: str):
    super().__init__(message)
    self.step = step
    self.tasks = tasks


def check_sums(sums: EpochSums, step: int, epoch: int, saved: int | None) -> None:
  """Raises NonFiniteError where all steps of an epoch were skipped.

  `step` counts the steps since the start of training, and `saved` those before the
  newest checkpoint, if there is one.
  """
  if sums.steps == 0:
    raise NonFiniteError(
      step,
      [],
      f"all {sums.skipped} steps of epoch {epoch + 1} were skipped, since their "
      f"numbers were not finite. {_last_checkpoint(saved)} Try a lower learning rate.",
    )


def check_evaluation(evaluation: Evaluation, step: int, epoch: int) -> None:
  """Raises NonFiniteError where a metric or the score of a validation is not finite."""
  values = {**evaluation.metrics, "the score": evaluation.score}
  bad = [
    f"{name} = {value}" for name, value in values.items() if not np.isfinite(value)
  ]
  if bad:
    raise NonFiniteError(
      step,
      [],
      f"the validation after epoch {epoch + 1} (step {step}) is not finite: "
      f"{', '.join(bad)}. The epoch was not saved. Try a lower learning rate.",
    )


def describe_failure(
  failure: Failure, skipped: int, task_names: Sequence[str], saved: int | None
) -> NonFiniteError:
  """The error that says at which step and in which tasks the numbers were not finite.

  The failure has NumPy leaves; `skipped` steps in a row were skipped before it. The
  newest checkpoint, if there is one, is that after `saved` steps.
  """
  step, losses, weighted = failure
  tasks = [k for k in range(len(task_names)) if not np.isfinite(weighted[k])]
  if tasks:
    what = "the weighted loss is not finite for " + ", ".join(
      f"{task_names[k]} (loss {losses[k]:g})" for k in tasks
    )
  else:
    what = "the gradient (or a batch statistic) is not finite, though every loss is"
  if skipped:
    what += f" (and {skipped} in a row were skipped before)"
  return NonFiniteError(
    int(step),
    [task_names[k] for k in tasks],
    f"training stopped at step {step}: {what}. The step was not applied. "
    f"{_last_checkpoint(saved)} {_remedy(np.asarray(losses)[tasks])}",
  )


def _remedy(losses: np.ndarray) -> str:
  """What to try, given the losses whose weighted losses were not finite."""
  tiny = np.finfo(np.float32).tiny  # a subnormal number counts as zero
  if (np.abs(losses) < tiny).any():
    return (
      "A loss of 0 has no logarithm: add a constant to the losses of a log method "
      "(--balancer-options epsilon=1e-3), leave the task out of such a step (in code "
      "of your own, present=losses != 0), or take a balancer without logarithms."
    )
  if (np.isfinite(losses) & (losses < 0)).any():
    return "A negative loss has no logarithm: take a balancer without logarithms."
  return (
    "Try a lower learning rate, or, where a log method meets tiny losses, "
    "--balancer-options epsilon=1e-3."
  )


def _last_checkpoint(steps: int | None) -> str:
  if steps is None:
    return "There is no checkpoint yet."
  return f"The last checkpoint is that after {steps} steps."
