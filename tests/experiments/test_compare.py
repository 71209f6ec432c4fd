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
from types import SimpleNamespace
from typing import NamedTuple

import jax
import pytest

from experiments import compare
from experiments.comparison import measure, processes
from experiments.comparison.plan import Contender, contender_jobs, parse_contenders
from tests.experiments.running import exit_code

ROOT = Path(__file__).parents[2]
# two lines to be fitted; with OFFSET the first loss is negative and has no logarithm
TASK = """
import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.array_task import ArrayTask, TaskMetric

x = np.random.default_rng(0).normal(size=(96, 3)).astype(np.float32)
rows = {"x": x, "y": np.stack([x.sum(1), 10 * x[:, 0] + 1], axis=1)}


def errors(params, rows):
  prediction = jnp.tanh(rows["x"] @ params["shared"]) @ params["heads"]
  return jnp.mean((prediction - rows["y"]) ** 2, axis=0)


def init(key):
  keys = jax.random.split(key)
  return {
    "shared": jax.random.normal(keys[0], (3, 4)),
    "heads": jax.random.normal(keys[1], (4, 2)),
  }


def make_task():
  return ArrayTask(
    name="lines",
    task_names=("sum", "first"),
    metrics=(
      TaskMetric("error of the sum", "m^2", "sum"),
      TaskMetric("error of the first", "m^2", "first"),
    ),
    train=jax.tree.map(lambda leaf: leaf[:64], rows),
    validation=jax.tree.map(lambda leaf: leaf[64:80], rows),
    test=jax.tree.map(lambda leaf: leaf[80:], rows),
    init=init,
    losses=lambda params, rows: errors(params, rows) - jnp.array([OFFSET, 0.0]),
    measures=errors,
  )
"""


@pytest.fixture
def task(tmp_path) -> Path:
  path = tmp_path / "lines.py"
  path.write_text(TASK.replace("OFFSET", "0.0"))
  return path


def arguments(task, out, *more: str) -> list[str]:
  return [
    f"--task={task}", f"--out={out}", "--balancers=ew,igbv1,mgda", "--seeds=2",
    "--gradient-seeds=1", "--epochs=3", "--batch-size=16", *more,
  ]  # fmt: skip


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
  assert "7 of 7 runs are done" in shown
  assert "running mgda, seed 0, about" in shown

  results = read_results(out)
  assert results["dataset"] == "lines"
  assert results["tasks"] == ["sum", "first"]
  assert [each["task"] for each in results["baselines"]] == ["sum", "first"]
  assert all(len(each["test"]) == 1 for each in results["baselines"])
  assert statuses(results) == {
    ("ew", 0): "done", ("ew", 1): "done", ("igbv1", 0): "done", ("igbv1", 1): "done",
    ("mgda", 0): "done",
  }  # fmt: skip
  assert results["notes"] == ["2 seeds are trained at once"]
  for run in results["runs"]:
    summary = json.loads((out / run["folder"] / "summary.json").read_text())
    assert summary["balancer"] == run["balancer"]
    assert summary["seed"] == run["seed"]
    assert summary["test"] == run["test"]
    assert ("seeds_at_once" in summary) == (run["balancer"] != "mgda")
  for name in ("ew", "igbv1", "mgda"):
    timing = results["timing"][name]
    assert all(ratio > 0 for ratio in timing["of_ew"])
    assert timing["memory_bytes"] > 0
  with (out / "results.csv").open() as file:
    assert len([*csv.DictReader(file)]) == 7
  for name in ("report.md", "report.html"):
    text = (out / name).read_text()
    assert all(balancer in text for balancer in ("ew", "igbv1", "mgda"))

  # all is done: nothing is run again
  before = {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}
  assert len(before) == 7
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


@pytest.mark.parametrize(
  ("content", "message"),
  [("[1", "is damaged: "), ('{"device": "cpu"}', "lacks base, ")],
)
def test_damaged_measurements_are_named(task, tmp_path, capfd, content, message):
  out = tmp_path / "cmp"
  config = compare.Config(task=task, balancers="ew", out=out)
  compare.begin(compare.Comparison(config, ["--epochs=3"]), out, "command")
  (out / "measured.json").write_text(content)
  given = [f"--task={task}", f"--out={out}", "--balancers=ew", "--epochs=3"]
  assert exit_code(compare.main, given) == 1
  error = capfd.readouterr().err.replace("\n", " ")
  assert "measured.json is damaged: " in error
  assert message in error
  assert "Delete it; the steps are then measured again." in error


def test_each_of_several_runs_has_its_share_of_the_cores(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
  monkeypatch.setattr(os, "sched_setaffinity", print, raising=False)
  assert processes.shares_of_cores(1) == [None]
  assert processes.shares_of_cores(2) == [{3, 7}, {5}]


def test_runs_side_by_side_need_cores(task, tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
  assert exit_code(compare.main, arguments(task, tmp_path, "--parallel=4")) == 2
  assert "--parallel must be at most 3, the number of" in capfd.readouterr().err

  request, answer = tmp_path / "request.json", tmp_path / "answer.json"
  request.write_text(json.dumps({"parallel": 2}))
  device = SimpleNamespace(device_kind="H100")
  monkeypatch.setattr(jax, "devices", lambda: [device])
  monkeypatch.setattr(sys, "argv", ["measure", str(request), str(answer)])
  with pytest.raises(SystemExit, match="2"):
    measure.main()
  message = "--parallel is for CPUs; here each run has H100 to itself."
  assert message in capfd.readouterr().out
  assert not answer.exists()
  measure.check_parallel(1, "H100")


@pytest.mark.slow
def test_a_killed_comparison_goes_on_with_what_is_missing(task, tmp_path, capfd):
  out = tmp_path / "cmp"
  given = arguments(
    task, out, "--together=never", "--no-baselines", "--balancers=ew,si"
  )
  process = subprocess.Popen(command(given), cwd=ROOT)
  deadline = time.monotonic() + 120
  while not [*out.rglob("summary.json")]:
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
  assert "7 runs, about" in shown
  assert not out.exists()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--balancers=ew,igbv3"], "unknown balancer 'igbv3'"),
    (["--balancers=ew,ew"], "names a balancer twice"),
    (["--balancers=ew,,si"], "must be names separated by commas"),
    (["--balancers=ew,stl"], "must not name stl"),
    (["--balancers=igbv1:base_epock=2"], "base_epock"),
    (["--seeds=0"], "--seeds must be at least 1, got 0"),
    (["--gradient-seeds=0"], "--gradient-seeds must be at least 1, got 0"),
    (["--balancer=si"], "the comparison itself sets --balancer"),
    (["--resume"], "the comparison itself sets --resume"),
    (["--dataset=qm9"], "either --dataset (qm9, nyuv2, rooms) or --task"),
  ],
)
def test_wrong_options_are_refused_before_anything_is_run(
  options, message, task, tmp_path, capfd
):
  out = tmp_path / "cmp"
  assert exit_code(compare.main, arguments(task, out, *options)) == 2
  assert message in capfd.readouterr().err.replace("\n", " ")
  assert not out.exists()


def test_scenes_need_their_folder_and_rooms_take_none(tmp_path, capfd):
  given = ["--dataset=nyuv2", f"--out={tmp_path / 'cmp'}"]
  assert exit_code(compare.main, given) == 2
  assert "--dataset nyuv2 needs --data-dir" in capfd.readouterr().err
  given = ["--dataset=rooms", f"--out={tmp_path / 'cmp'}", f"--data-dir={tmp_path}"]
  assert exit_code(compare.main, given) == 2
  assert "--dataset rooms takes no --data-dir" in capfd.readouterr().err
  assert exit_code(compare.main, ["--dataset=rooms"]) == 2
  assert "--out, the folder of the comparison, is missing" in capfd.readouterr().err


def test_unknown_data_sets_and_options_are_refused(task, tmp_path, capfd):
  assert exit_code(compare.main, ["--dataset=qm8", f"--out={tmp_path / 'cmp'}"]) == 2
  assert "qm8" in capfd.readouterr().err
  given = arguments(task, tmp_path / "cmp", "--epocks=3")
  assert exit_code(compare.main, given) == 2
  assert "--epocks" in capfd.readouterr().err


def test_a_folder_of_another_comparison_is_refused(task, tmp_path, capfd):
  out = tmp_path / "cmp"
  comparison = compare.Comparison(
    compare.Config(task=task, balancers="ew,si", out=out), ["--epochs=3"]
  )
  compare.begin(comparison, out, "command")
  given = [f"--task={task}", f"--out={out}", "--balancers=ew,uw", "--epochs=4"]
  assert exit_code(compare.main, given) == 2
  error = capfd.readouterr().err
  assert 'balancers was "ew,si" and is "ew,uw"' in error
  assert "experiment.epochs was 3 and is 4" in error

  task.write_text(task.read_text() + "# changed")
  assert exit_code(compare.main, given) == 2
  assert "sha256 of the task was" in capfd.readouterr().err
  (out / "compare.json").write_text("{")
  assert exit_code(compare.main, given) == 2
  assert f"{out / 'compare.json'} is damaged" in capfd.readouterr().err
  other = tmp_path / "other"
  other.mkdir()
  (other / "thesis.tex").write_text("all of it")
  assert exit_code(compare.main, [*given, f"--out={other}"]) == 2
  assert "is not empty" in capfd.readouterr().err
  assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_folder_at_work_is_left_alone(task, tmp_path, capfd):
  out = tmp_path / "cmp"
  given = arguments(task, out)
  config = compare.Config(
    task=task, out=out, balancers="ew,igbv1,mgda", seeds=2, gradient_seeds=1
  )
  comparison = compare.Comparison(config, ["--epochs=3", "--batch-size=16"])
  compare.begin(comparison, out, "command")
  with compare.filelock.FileLock(out / "compare.lock"):
    assert exit_code(compare.main, given) == 2
  assert f"another comparison is at work in {out}" in capfd.readouterr().err


def test_seeds_are_divided_into_jobs():
  contender = Contender("igbv1:base_epoch=0", "igbv1", ("base_epoch=0",))
  together, last = contender_jobs(contender, [0, 1, 2], at_once=2)
  assert [run.folder for run in together.runs] == [
    f"runs/igbv1%3Abase_epoch=0/together-0-1/seed{seed}" for seed in (0, 1)
  ]
  assert "--balancer-options=base_epoch=0" in together.arguments
  assert last.folder == last.runs[0].folder == "runs/igbv1%3Abase_epoch=0/seed2"
  assert "--seed=2" in last.arguments


def test_hyper_parameters_follow_a_balancer():
  contenders = parse_contenders(
    "ew, igbv2:start_epoch=0:warmup_epochs=1,igbv2+nashmtl", ["a", "b"]
  )
  assert contenders[1].options == ("start_epoch=0", "warmup_epochs=1")
  assert [each.kind for each in contenders] == ["loss", "loss", "gradient"]


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
