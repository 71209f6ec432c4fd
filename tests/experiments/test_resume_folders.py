"""Folders in which runs are to go on: what they find there, refuse or cannot write."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from experiments import qm9 as experiment
from igb_jax.training.run_folder import RunFolder
from tests.experiments.molecule_runs import run, small
from tests.experiments.running import read_metrics

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_resume_starts_a_run_where_there_is_none(qm9_dir, tmp_path, capsys):
  out = tmp_path / "run"
  (out / "plots").mkdir(parents=True)
  (out / "config.partial").write_text("{")  # as one killed at once leaves it
  assert run([*small(qm9_dir, out, "--epochs=1"), "--resume"]) == 0
  assert "no checkpoint yet" in capsys.readouterr().out
  assert len(read_metrics(out)) == 1


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "config.json is damaged: "),
    ("[]", "config.json is damaged: it holds no JSON object"),
    (None, "is not empty; choose another --out"),
  ],
)
def test_resume_refuses_what_is_no_run(content, message, qm9_dir, tmp_path, capsys):
  name = "notes.txt" if content is None else "config.json"
  (tmp_path / name).write_text(content or "mine")
  assert run([*small(qm9_dir, tmp_path), "--resume"]) == 2
  assert message in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--resume"], "--resume needs --out"),
    (["--keep=0"], "--keep must be at least 1, got 0"),
    (
      ["--checkpoint-every=often"],
      "--checkpoint-every must be a positive whole number",
    ),
  ],
)
def test_wrong_options_are_refused(options, message, qm9_dir, tmp_path, capsys):
  arguments = [a for a in small(qm9_dir, tmp_path) if not a.startswith("--out")]
  assert run([*arguments, *options]) == 2
  assert message in capsys.readouterr().err


def test_another_run_in_the_same_folder_is_refused(qm9_dir, tmp_path, capsys):
  out = tmp_path / "run"
  folder = RunFolder(out)
  arguments = [*small(qm9_dir, out, "--epochs=1"), "--resume"]
  assert run(arguments) == 2
  assert f"another process is using {out}" in capsys.readouterr().err
  folder.close()
  assert run(arguments) == 0
  assert [line["epoch"] for line in read_metrics(out)] == [0]


def test_a_run_without_a_checkpoint_goes_on_with_the_options_given_now(
  qm9_dir, tmp_path
):
  out = tmp_path / "run"
  before = experiment.parse_config(small(qm9_dir, out, "--epochs=2"))
  folder = RunFolder(out)
  folder.write_json("config.json", dataclasses.asdict(before))
  folder.close()
  assert run([*small(qm9_dir, out, "--epochs=1"), "--resume"]) == 0
  assert json.loads((out / "config.json").read_text())["epochs"] == 1


def test_data_with_other_epochs_are_not_gone_on_with(
  qm9_dir, tmp_path, monkeypatch, capsys
):
  out = tmp_path / "run"
  assert run(small(qm9_dir, out, "--epochs=1")) == 0
  make = experiment.make_problem

  def with_fewer_steps(config, devices):
    problem = make(config, devices)
    return dataclasses.replace(problem, steps_per_epoch=problem.steps_per_epoch - 1)

  monkeypatch.setattr(experiment, "make_problem", with_fewer_steps)
  config = (out / "config.json").read_text()
  assert run([*small(qm9_dir, out, "--epochs=2"), "--resume"]) == 1
  assert "the data have changed: an epoch has 4 steps now" in capsys.readouterr().err
  assert (out / "config.json").read_text() == config
  assert len(read_metrics(out)) == 1


@pytest.mark.parametrize(
  "name", ["metrics.jsonl", pytest.param("summary.json", marks=pytest.mark.slow)]
)
def test_a_file_that_cannot_be_written_is_named(
  name, qm9_dir, tmp_path, monkeypatch, capsys
):
  out = tmp_path / "run"
  opened = Path.open

  def full(self, mode="r", **options):
    if self.stem == name.partition(".")[0] and mode != "r":
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return opened(self, mode, **options)

  monkeypatch.setattr(Path, "open", full)
  arguments = small(qm9_dir, out, "--epochs=1")
  assert run(arguments) == 1
  error = capsys.readouterr().err.replace("\n", " ")
  assert f"{out / name} could not be written: No space left on device" in error
  assert "to resume: python -m experiments.qm9" in error
  monkeypatch.undo()
  assert run([*arguments, "--resume"]) == 0
  assert [line["epoch"] for line in read_metrics(out)] == [0]
