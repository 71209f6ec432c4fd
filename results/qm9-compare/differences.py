"""Differences between balancers, seed by seed, and what their weights were.

python differences.py, in this folder.
"""

import json
from pathlib import Path

import numpy as np
from scipy import stats

PAIRS = [
  ("si", "ew"),
  ("igbv1", "si"),
  ("igbv2", "si"),
  ("igbv2", "rlwlog"),
  ("rlw", "ew"),
  ("rlwlog", "si"),
  ("igbv1:base_epoch=0", "igbv1"),
  ("igbv2:warmup_epochs=1:start_epoch=2", "igbv2"),
]
LATE = slice(10, None)  # the epochs from the eleventh on

results = json.loads(Path(__file__).with_name("results.json").read_text())
base = {
  name: value for run in results["baselines"] for name, value in run["test"].items()
}
scores: dict[str, list[float]] = {}  # delta_m against our own single-task networks
for run in results["runs"]:
  changes = [run["test"][name] / value - 1 for name, value in base.items()]
  scores.setdefault(run["balancer"], []).append(100 * float(np.mean(changes)))

print("delta_m, mean of three seeds and 95 % interval")
for first, second in PAIRS:
  difference = np.subtract(scores[first], scores[second])
  error = difference.std(ddof=1) / len(difference) ** 0.5
  half_width = stats.t.ppf(0.975, len(difference) - 1) * error
  print(f"  {first} - {second}: {difference.mean():+.1f} ± {half_width:.1f}")

print("mean weight of each task over the last ten epochs, least to largest")
for name in ("igbv1", "igbv2", "rlwlog", "uw", "imtlg"):
  curves = results["comparison"]["curves"][name]
  is_gradient = name == "imtlg"
  weights = np.array(curves["gradient_weights" if is_gradient else "weights"])[LATE]
  of_tasks = weights.mean(axis=0)
  print(f"  {name}: {of_tasks.min():.2f} to {of_tasks.max():.2f}")
