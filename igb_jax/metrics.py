"""Metrics by which multi-task methods are compared."""

import numpy as np


def delta_m(
  metrics: np.typing.ArrayLike,
  baselines: np.typing.ArrayLike,
  higher_is_better: np.typing.ArrayLike = False,
) -> float:
  """Mean relative change against the single-task baselines, in per cent.

      delta_m = 100/M sum_m (-1)^{higher is better} (M_m - B_m) / B_m

  Lower is better; 0 is as good as one network per task, 100 means errors twice as
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
  sign = _signs(higher_is_better, len(metrics))
  return float(100 * np.mean(sign * (metrics - baselines) / baselines))


def mean_ranks(
  metrics: np.typing.ArrayLike, higher_is_better: np.typing.ArrayLike = False
) -> np.ndarray:
  """Mean over the metrics of each method's rank among the methods.

  Lower is better; 1 is a method that is the best in everything. Equal values share
  the mean of their places. NaN ranks behind every number, as a run that failed.
  Reference: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
  section 6, MR.

  Args:
    metrics: float[N, M], M metrics of each of N methods.
    higher_is_better: bool[M] or one bool for all.

  Returns:
    float64[N], from 1 to N.

  Raises:
    ValueError: metrics are not a table with at least one row and column, or
      higher_is_better has another length.

  Example:
    >>> mean_ranks([[1.0, 5.0], [2.0, 5.0]], higher_is_better=[False, True]).tolist()
    [1.25, 1.75]
  """
  metrics = np.asarray(metrics, np.float64)
  if metrics.ndim != 2 or metrics.size == 0:
    raise ValueError(
      "metrics must be a table with a row per method and a column per metric, got the "
      f"shape {metrics.shape}."
    )
  errors = _signs(higher_is_better, metrics.shape[1]) * metrics
  errors = np.where(np.isnan(errors), np.inf, errors)
  others = errors[:, None]
  lower, equal = (others < errors).sum(axis=0), (others == errors).sum(axis=0)
  return (lower + (equal + 1) / 2).mean(axis=1)


def _signs(higher_is_better: np.typing.ArrayLike, num_metrics: int) -> np.ndarray:
  """-1 where higher is better, so that an accuracy becomes an error."""
  higher = np.asarray(higher_is_better)
  if higher.shape not in ((), (num_metrics,)):
    raise ValueError(
      "higher_is_better must be one bool, or one per metric, got the shape "
      f"{higher.shape} for {num_metrics} metrics."
    )
  return np.where(higher, -1.0, 1.0)
