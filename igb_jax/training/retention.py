"""Which checkpoints stay."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp


class NewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
  """Keeps the newest checkpoints, two at least, and the best one of each seed."""

  def __init__(self, keep: int, scores: Mapping[int, np.ndarray]):
    """Makes the policy.

    Args:
      keep: how many of the newest are kept.
      scores: number of steps -> f[S], the scores of the seeds; may grow.
    """
    self._keep = max(keep, 2)
    self._scores = scores

  def should_preserve(
    self,
    checkpoints: Sequence[Any],
    *,
    context: ocp.checkpoint_managers.PreservationContext,
  ) -> Sequence[bool]:
    """Which of the checkpoints stay.

    Args:
      checkpoints: all of them, in order.
      context: the context of orbax.
    """
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    best = []
    if self._scores:
      saved = sorted(self._scores)
      of_seeds = np.argmin([self._scores[each] for each in saved], axis=0)
      best = [saved[place] for place in of_seeds]
    kept = {*steps[-self._keep :], *best}
    return [step in kept for step in steps]
