"""What a comparison refuses before it runs anything: options, folders, measurements."""

import json
import os
import sys
from types import SimpleNamespace

import jax
import pytest

from experiments import compare, custom
from experiments.comparison import measure
from experiments.comparison.datasets import DATASETS
from experiments.comparison.plan import Contender
from tests.experiments.lines_task import arguments
from tests.experiments.lines_task import task as task
from tests.experiments.running import exit_code, one_line


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


def test_what_does_not_fit_the_data_is_told_as_a_run_of_it_would(task, capfd):
  given = [f"--task={task}", "--balancers=ew,mgda", "--batch-size=128", "--dry-run"]
  assert exit_code(compare.main, given) == 2
  told = capfd.readouterr().err
  assert told.startswith("error: --batch-size=128 is larger than the training split")
  assert "Traceback" not in told


def test_a_contender_that_does_not_fit_is_told_as_a_run_of_it_would(task, capfd):
  config = custom.parse_config([f"--task={task}", "--batch-size=16"])
  with pytest.raises(SystemExit, match="2"):
    measure._make_experiment(DATASETS["custom"], config, Contender("ntksr", "ntksr"))
  assert "needs a task with a trunk" in one_line(capfd.readouterr().out)


def test_unknown_data_sets_and_options_are_refused(task, tmp_path, capfd):
  assert exit_code(compare.main, ["--dataset=qm8", f"--out={tmp_path / 'cmp'}"]) == 2
  assert "qm8" in capfd.readouterr().err
  given = arguments(task, tmp_path / "cmp", "--epocks=3")
  assert exit_code(compare.main, given) == 2
  assert "--epocks" in capfd.readouterr().err


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
    task=task, out=out, balancers="ew,mgda", seeds=2, gradient_seeds=1
  )
  comparison = compare.Comparison(config, ["--epochs=3", "--batch-size=16"])
  compare.begin(comparison, out, "command")
  with compare.filelock.FileLock(out / "compare.lock"):
    assert exit_code(compare.main, given) == 2
  assert f"another comparison is using {out}" in capfd.readouterr().err


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
