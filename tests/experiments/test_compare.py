"""A comparison from its command line to its report, on a small task of its own."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from experiments import compare
from tests.experiments.lines_task import TASK, arguments
from tests.experiments.lines_task import task as task
from tests.experiments.running import exit_code

ROOT = Path(__file__).parents[2]


def command(given: list[str]) -> list[str]:
  return [sys.executable, "-m", "experiments.compare", *given]


def read_results(out: Path) -> dict:
  return json.loads((out / "results.json").read_text())


def statuses(results: dict) -> dict[tuple[str, int], str]:
  return {(run["balancer"], run["seed"]): run["status"] for run in results["runs"]}


class Everything(NamedTuple):
  """A whole comparison."""

  task: Path
  out: Path
  shown: str


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Everything:
  folder = tmp_path_factory.mktemp("everything")
  task, out = folder / "lines.py", folder / "cmp"
  task.write_text(TASK.replace("OFFSET", "0.0"))
  shown = io.StringIO()
  with contextlib.redirect_stdout(shown):
    assert exit_code(compare.main, arguments(task, out, "--together=always")) == 0
  return Everything(task, out, shown.getvalue().replace("\n", " "))


def test_runs_everything_and_writes_the_report(everything):
  task, out, shown = everything
  assert "5 of 5 runs are done" in shown
  assert "running mgda, seed 0, about" in shown

  results = read_results(out)
  assert results["dataset"] == "lines"
  assert results["tasks"] == ["sum", "first"]
  assert [each["task"] for each in results["baselines"]] == ["sum", "first"]
  assert all(len(each["test"]) == 1 for each in results["baselines"])
  assert statuses(results) == {
    ("ew", 0): "done",
    ("ew", 1): "done",
    ("mgda", 0): "done",
  }
  assert results["notes"] == ["2 seeds are trained at once"]
  for run in results["runs"]:
    summary = json.loads((out / run["folder"] / "summary.json").read_text())
    assert summary["balancer"] == run["balancer"]
    assert summary["seed"] == run["seed"]
    assert summary["test"] == run["test"]
    assert ("seeds_at_once" in summary) == (run["balancer"] != "mgda")
  for name in ("ew", "mgda"):
    timing = results["timing"][name]
    assert all(ratio > 0 for ratio in timing["of_ew"])
    assert timing["memory_bytes"] > 0
  with (out / "results.csv").open() as file:
    assert len([*csv.DictReader(file)]) == 5
  for name in ("report.md", "report.html"):
    text = (out / name).read_text()
    assert all(balancer in text for balancer in ("ew", "mgda"))

  # all is done: nothing is run again
  before = {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}
  assert len(before) == 5
  assert exit_code(compare.main, arguments(task, out, "--together=always")) == 0
  assert before == {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}


@pytest.mark.slow
def test_runs_side_by_side_are_those_at_once(everything, tmp_path, capfd):
  options = "--no-baselines", "--together=never", "--balancers=ew", "--parallel=2"
  given = arguments(everything.task, tmp_path, *options)
  assert exit_code(compare.main, given) == 0
  assert "ew, seed 0, ew, seed 1, " in capfd.readouterr().out.replace("\n", " ")
  tests = [
    [run["test"] for run in read_results(out)["runs"] if run["balancer"] == "ew"]
    for out in (tmp_path, everything.out)
  ]
  assert len(tests[0]) == 2
  for beside, at_once in zip(*tests, strict=True):
    assert beside == pytest.approx(at_once, rel=1e-4)


@pytest.mark.parametrize("anew", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_dry_run_tells_the_runs_and_writes_nothing(
  anew, everything, tmp_path, monkeypatch, capfd
):
  """Measured anew, or as the whole comparison has measured the same."""
  task, out = everything.task, tmp_path / "cmp"
  measure_in = compare.measured_steps

  def measured(comparison, folder, console):
    assert not out.exists()
    assert folder.is_dir()
    shutil.copy(everything.out / "measured.json", folder)
    return measure_in(comparison, folder, console)

  if not anew:
    monkeypatch.setattr(compare, "measured_steps", measured)
  assert exit_code(compare.main, arguments(task, out, "--dry-run")) == 0
  shown = capfd.readouterr().out
  for name in ("stl sum", "stl first", "mgda, seed 0"):
    assert f"{name}: about" in shown
  assert "5 runs, about" in shown
  assert not out.exists()


@pytest.mark.slow
def test_a_killed_comparison_goes_on_with_what_is_missing(task, tmp_path, capfd):
  out = tmp_path / "cmp"
  given = arguments(
    task, out, "--together=never", "--no-baselines", "--balancers=ew,si"
  )
  process = subprocess.Popen(command(given), cwd=ROOT)
  deadline = time.monotonic() + 120
  # not by rglob, since folders of unfinished checkpoints come and go
  while not [*out.glob("runs/*/seed*/summary.json")]:
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.kill()
  process.wait()
  done = {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}
  assert len(done) < 4
  assert not (out / "results.json").exists()

  assert exit_code(compare.main, given) == 0
  assert set(statuses(read_results(out)).values()) == {"done"}
  assert len([*out.rglob("summary.json")]) == 4
  for path, time_ns in done.items():
    assert path.stat().st_mtime_ns == time_ns
  for path in out.rglob("metrics.jsonl"):
    epochs = [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
    assert epochs == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_stops_the_run_too_and_writes_a_report(number, code, task, tmp_path):
  out = tmp_path / "cmp"
  given = arguments(task, out, "--no-baselines", "--balancers=ew", "--epochs=100000")
  process = subprocess.Popen(command(given), cwd=ROOT)
  deadline = time.monotonic() + 120
  while not [*out.rglob("metrics.jsonl")]:
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.send_signal(number)
  assert process.wait(60) == code
  results = read_results(out)
  assert set(statuses(results).values()) == {"missing"}
  # the run ended with it: nobody writes any more
  sizes = {path: path.stat().st_size for path in out.rglob("metrics.jsonl")}
  time.sleep(1)
  assert sizes == {path: path.stat().st_size for path in out.rglob("metrics.jsonl")}


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others(task, tmp_path, capfd):
  out = tmp_path / "cmp"
  task.write_text(TASK.replace("OFFSET", "1e6"))
  options = ["--no-baselines", "--balancers=ew,si", "--seeds=1"]
  assert exit_code(compare.main, arguments(task, out, *options)) == 0
  results = read_results(out)
  assert statuses(results) == {("ew", 0): "done", ("si", 0): "failed"}
  (failed,) = (run for run in results["runs"] if run["status"] == "failed")
  assert "training stopped at step 0" in failed["last_lines"]
  assert "failed: si, seed 0" in capfd.readouterr().out
  assert "training stopped at step 0" in (out / "report.html").read_text()
  assert "training stopped at step 0" in (out / "report.md").read_text()

  out = tmp_path / "nothing"
  options = ["--no-baselines", "--balancers=si", "--together=always"]
  assert exit_code(compare.main, arguments(task, out, *options)) == 1
  shown = capfd.readouterr().out.replace("\n", " ")
  (log,) = set(re.findall(r"failed: si, seed \d, see (\S+)", shown))
  assert "seed 0: training stopped at step 0" in Path(log).read_text()
  assert (out / "report.html").exists()


@pytest.mark.slow
def test_nothing_of_the_environment_changes_the_platform_of_the_runs():
  code = (
    "import os\nfrom experiments import compare\n"
    "try:\n  compare.main(['--seeds=0', '--dataset=qm9'])\n"
    "except SystemExit: pass\nprint(os.environ.get('JAX_PLATFORMS'))"
  )
  environment = {key: os.environ[key] for key in os.environ if key != "JAX_PLATFORMS"}
  shown = subprocess.run(
    [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True,
    text=True, check=True,
  ).stdout  # fmt: skip
  assert shown.strip().endswith("None")
