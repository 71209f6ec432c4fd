"""Results of a comparison that never was, with the files of its runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("mu", "alpha", "acc")
METRICS = [
  {"name": "mu", "unit": "D", "task": "mu", "higher_is_better": False, "base": 0.5},
  {"name": "alpha", "unit": "bohr^3", "task": "alpha", "higher_is_better": False,
   "base": 2.0},
  {"name": "acc", "unit": "%", "task": "acc", "higher_is_better": True, "base": 80.0},
]  # fmt: skip
PROBE = "<script>alert('run over')</script>"
GRADIENT = ("nashmtl", "igbv1+nashmtl")
EPOCHS = 6


def made_up(
  folder: Path,
  *,
  balancers: Mapping[str, float] | None = None,
  seeds: Sequence[int] = (0, 1, 2),
  tasks: Sequence[str] = TASKS,
  metrics: Sequence[Mapping[str, Any]] = tuple(METRICS),
) -> dict[str, Any]:
  """Results of finished runs, with a metrics.jsonl each.

  Args:
    folder: where the runs go.
    balancers: name -> how many times larger than the base its errors are.
    seeds: of each.
    tasks: names of the tasks.
    metrics: of the tasks.
  """
  balancers = balancers or {"ew": 3.0, "si": 1.5, "igbv1": 1.4, "nashmtl": 1.2}
  random = np.random.default_rng(0)
  runs = []
  for balancer, factor in balancers.items():
    for seed in seeds:
      place = f"runs/{balancer}/seed{seed}"
      _write_metrics(folder / place, balancer, seed, tasks)
      noise = random.normal(scale=0.02, size=len(metrics))
      test = {
        metric["name"]: metric["base"]
        * (factor * (1 + chance)) ** (-1 if metric["higher_is_better"] else 1)
        for metric, chance in zip(metrics, noise, strict=True)
      }
      runs.append(
        {
          "balancer": balancer, "seed": seed, "status": "done", "test": test,
          "delta_m": None, "epochs": EPOCHS, "best_epoch": 5, "num_steps": 600,
          "train_seconds": 12.5, "skipped_steps": 0, "folder": place,
          "last_lines": None,
        }
      )  # fmt: skip
  baselines = [
    {
      "task": task, "seed": 0, "status": "done", "folder": f"baselines/{task}",
      "test": {each["name"]: 0.8 * each["base"] for each in metrics
               if each["task"] == task},
      "last_lines": None,
    }
    for task in tasks
  ]  # fmt: skip
  timing = {
    balancer: {
      "seconds": [0.1, 0.12],
      "of_ew": [8.0, 8.5, 8.2] if "nash" in balancer else [0.98, 1.02, 1.0 + i / 1000],
      "memory_bytes": 2**20 * (300 + i),
    }
    for i, balancer in enumerate(balancers)
  }
  return {
    "dataset": "made-up", "description": "numbers", "notice": "Nobody measured this.",
    "command": "python -m experiments.compare --dataset made-up",
    "machine": "two cores",
    "started": "2026-01-01T00:00:00", "versions": {"jax": "0.10.2"},
    "config": {"epochs": EPOCHS, "learning_rate": 0.001}, "tasks": list(tasks),
    "metrics": [dict(metric) for metric in metrics], "base": "paper",
    "published": {
      "protocol": "300 epochs", "source": "a paper",
      "rows": {
        "stl": {"mu": 0.5, "alpha": 2.0, "acc": 80.0},
        "igbv1": {"mu": 0.61, "alpha": 2.5, "acc": 77.0, "delta_m": 17.1,
                  "relative_train_time": 1.01},
        "si": {"delta_m": 77.8},
      },
    },
    "baselines": baselines, "runs": runs, "timing": timing, "notes": [],
  }  # fmt: skip


def fail(run: dict[str, Any], last_lines: str) -> None:
  """Makes a run one that failed."""
  run.update(status="failed", test=None, last_lines=last_lines)


def lose(run: dict[str, Any]) -> None:
  """Makes a run one that did not start."""
  run.update(status="missing", test=None)


def _write_metrics(
  folder: Path, balancer: str, seed: int, tasks: Sequence[str]
) -> None:
  random = np.random.default_rng([seed, len(balancer)])
  number = len(tasks)
  weights, lines = np.ones(number), []
  for epoch in range(EPOCHS):
    losses = np.exp(-0.3 * epoch * np.linspace(0.5, 1.5, number)) * 10.0 ** -np.arange(
      number
    )
    if balancer.startswith(("igb", "uw")) and epoch > 1:
      weights = number * random.dirichlet(np.full(number, 20))
    line = {
      "epoch": epoch,
      "losses": dict(zip(tasks, losses.tolist(), strict=True)),
      "weights": dict(zip(tasks, weights.tolist(), strict=True)),
    }
    if balancer in GRADIENT:
      cosines = np.clip(random.normal(scale=0.5, size=(number, number)), -1, 1)
      cosines = (cosines + cosines.T) / 2
      np.fill_diagonal(cosines, 1)
      line["gradient_weights"] = (number * random.dirichlet(np.ones(number))).tolist()
      line["gradient_cosines"] = cosines.tolist()
    lines.append(json.dumps(line) + "\n")
  folder.mkdir(parents=True)
  (folder / "metrics.jsonl").write_text("".join(lines))
