"""Metrics by which multi-task methods are compared."""

import numpy as np


def delta_m(
  metrics: np.typing.ArrayLike,
  baselines: np.typing.ArrayLike,
  higher_is_better: np.typing.ArrayLike = False,
) -> float:
  """Mean relative change against the single-task baselines, in per cent.

      delta_m = 100/M sum_m (-1)^{higher is better} (M_m - B_m) / B_m

  Lower is better; 0 is as good as one network a task, 100 means errors twice as
  large on average. Reference: Maninis et al., "Attentive Single-Tasking of Multiple
  Tasks", CVPR 2019, with the sign of Nash-MTL and IGB.

  Args:
    metrics: float[M], the method's metrics.
    baselines: float[M], the single-task runs' metrics, not zero.
    higher_is_better: bool[M] or one bool for all.

  Returns:
    delta_m in per cent.

  Raises:
    ValueError: shapes differ, there are no metrics, or a baseline is zero or not
      finite.

  Example:
    >>> delta_m([2.0, 0.5], [1.0, 1.0], higher_is_better=[False, True])
    75.0
  """
  metrics = np.asarray(metrics, np.float64)
  baselines = np.asarray(baselines, np.float64)
  if metrics.ndim != 1 or metrics.size == 0 or metrics.shape != baselines.shape:
    raise ValueError(
      "metrics and baselines must be vectors of the same length, got shapes "
      f"{metrics.shape} and {baselines.shape}."
    )
  if not (np.isfinite(baselines) & (baselines != 0)).all():
    raise ValueError(
      "baselines must not be zero, and must be finite: the change is relative to them; "
      f"got {baselines.tolist()}."
    )
  higher = np.asarray(higher_is_better)
  if higher.shape not in ((), metrics.shape):
    raise ValueError(
      "higher_is_better must be one bool, or one a metric, got the shape "
      f"{higher.shape} for {len(metrics)} metrics."
    )
  sign = np.where(higher, -1.0, 1.0)
  return float(100 * np.mean(sign * (metrics - baselines) / baselines))
