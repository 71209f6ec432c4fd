"""The curves of a comparison: means over the seeds, and what is drawn of them."""

import json

import numpy as np
import pytest

from experiments.comparison import figures
from experiments.comparison.curves import read_curves
from experiments.comparison.report import write_report
from tests.experiments.comparison.made_up import EPOCHS, GRADIENT, TASKS, made_up


def test_curves_are_means_over_the_seeds(tmp_path):
  results = made_up(tmp_path)
  curves, problems = read_curves(tmp_path, results)
  assert problems == []
  runs = [
    [
      json.loads(line)
      for line in (tmp_path / f"runs/nashmtl/seed{seed}/metrics.jsonl")
      .read_text()
      .splitlines()
    ]
    for seed in range(3)
  ]
  losses = np.array(
    [[list(line["losses"].values()) for line in lines] for lines in runs]
  )
  found = curves["nashmtl"]
  assert np.array(found["losses"]) == pytest.approx(losses.mean(axis=0), rel=1e-4)
  gaps = (losses / losses[:, 1:2]).mean(axis=0)
  assert np.array(found["gaps"]) == pytest.approx(gaps, rel=1e-4)
  cosines = np.mean([lines[-1]["gradient_cosines"] for lines in runs], axis=0)
  assert np.array(found["gradient_cosines"]) == pytest.approx(
    cosines, rel=1e-3, abs=1e-5
  )
  assert "gradient_cosines" not in curves["igbv1"]


def test_a_task_without_labels_has_no_curve(tmp_path):
  results = made_up(tmp_path, balancers={"ew": 2.0}, seeds=[0])
  path = tmp_path / "runs/ew/seed0/metrics.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines:
    line["losses"]["mu"] = None
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  curves, problems = read_curves(tmp_path, results)
  assert problems == []
  assert [row[0] for row in curves["ew"]["gaps"]] == [None] * EPOCHS
  write_report(tmp_path, results)
  assert (tmp_path / "report.html").exists()


def test_damaged_curves_are_left_out_and_named(tmp_path):
  results = made_up(tmp_path, balancers={"ew": 2.0, "si": 1.0})
  (tmp_path / "runs/ew/seed1/metrics.jsonl").write_text('{"epoch": 0, "lo')
  (tmp_path / "runs/si/seed0/metrics.jsonl").write_text("")
  curves, problems = read_curves(tmp_path, results)
  assert [problem.split(":")[0] for problem in problems] == ["ew, seed 1", "si, seed 0"]
  assert len(curves["ew"]["losses"]) == EPOCHS


def test_labels_do_not_touch():
  random = np.random.default_rng(0)
  for number in (1, 2, 5, 11):
    for _ in range(50):
      wanted = random.uniform(-0.2, 1.2, size=number)
      placed = figures.apart(wanted, gap=0.08, low=0.0, high=1.0)
      assert (np.diff(np.sort(placed)) >= 0.08 - 1e-9).all()
      assert placed.min() >= -1e-9
      assert placed.max() <= 1 + 1e-9
      assert (np.argsort(placed) == np.argsort(wanted)).all()
  crowded = figures.apart(np.zeros(30), gap=0.08, low=0.0, high=1.0)
  assert np.sort(crowded) == pytest.approx(np.linspace(0, 1, 30))
  assert figures.apart(np.zeros(0), gap=0.1, low=0.0, high=1.0).size == 0


def test_gradient_balancers_alone_have_cosines(tmp_path):
  curves, _ = read_curves(tmp_path, made_up(tmp_path))
  panels = figures.cosine_panels(curves, TASKS)
  assert [*panels] == [name for name in curves if name in GRADIENT]
  assert figures.cosine_panels(curves, TASKS[:1]) == {}
