"""The options of the QM9 experiment: presets, help, folders, and what it refuses."""

import dataclasses
import re

import pytest

from experiments import qm9 as experiment
from igb_jax.data import qm9
from tests.experiments.molecule_runs import run, small
from tests.experiments.running import assert_help_explains_every_option


def test_presets_can_be_overridden():
  paper = experiment.parse_config(["--preset=paper"])
  assert (paper.epochs, paper.batch_size, paper.train_size) == (300, 120, None)
  assert (paper.validation_size, paper.test_size) == (10_000, 10_000)
  assert (paper.plateau_factor, paper.plateau_patience) == (0.7, 5)
  assert (paper.learning_rate, paper.min_learning_rate) == (1e-3, 1e-5)
  assert paper.schedule == "plateau"
  changed = experiment.parse_config(["--epochs", "7", "--preset", "paper"])
  assert changed == dataclasses.replace(paper, epochs=7)
  assert experiment.parse_config([]) == experiment.PRESETS["quick"]


def test_help_explains_every_option(capsys):
  assert_help_explains_every_option(experiment, capsys)


@pytest.mark.parametrize(
  "arguments", [["--preset=huge"], ["--epoch=3"], ["--epochs=many"], ["--preset"]]
)
def test_wrong_options_are_named(arguments, capsys):
  with pytest.raises(SystemExit) as caught:
    experiment.parse_config(arguments)
  assert caught.value.code == 2
  assert arguments[0].partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--balancer=igbv9"], "unknown balancer 'igbv9'.*known: cosmos, dwa"),
    (["--balancer=stl"], "'stl' needs task"),
    (["--balancer=ew", "--balancer-options", "window=3"], "no hyper-parameter window"),
    (["--balancer=mgda+pcgrad"], "names two gradient balancers"),
    (["--balancer=cagrad", "--balancer-options", "c=-1"], "c must be finite and posit"),
    (["--balancer=mgda", "--balancer-options", "shared=true"], "name of a hyper-para"),
    (
      ["--balancer=dwa", "--balancer-options", "window=x"],
      "window must be an integer, got 'x'",
    ),
    (["--balancer=dwa", "--balancer-options", "window"], "takes NAME=VALUE"),
    (["--balancer=dwa", "--balancer-options", "window=0"], "window must be at least"),
    (["--balancer=dwa", "--balancer-options", "num_tasks=3"], "the name of a hyper-p"),
    (["--balancer=rlw", "--balancer-options", "log=true"], "no hyper-parameter log"),
    (["--train-size=1"], "--train-size must be at least 2, got 1"),
    (["--edge-dim=0"], "--edge-dim must be at least 1, got 0"),
    (["--molecules=-3"], "--molecules must be at least 1, got -3"),
    (["--epochs=0"], "--epochs must be at least 1, got 0"),
    (["--batch-size=-2"], "--batch-size must be at least 1, got -2"),
    (["--seed=-1"], "--seed must be at least 0, got -1"),
    (["--learning-rate=nan"], "--learning-rate must be positive, got nan"),
    (
      ["--schedule=plateau", "--min-learning-rate=1"],
      "--min-learning-rate must be positive and at most --learning-rate",
    ),
    (["--plateau-factor=1"], "--plateau-factor must be between 0 and 1, got 1"),
    (["--train-size=400"], "train_size must be 1 to 375"),
    (["--test-size=450"], "leave no training molecules"),
    (["--source=tfds"], "qm9/original is not prepared"),
  ],
)
def test_bad_input_is_refused_before_anything_is_written(
  arguments, message, qm9_dir, tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
  out = tmp_path / "run"
  assert run(small(qm9_dir, out, *arguments)) == 2
  shown = capsys.readouterr().err
  assert "error: " in shown
  assert re.search(message, shown)
  assert not out.exists()


def test_refuses_targets_that_do_not_vary(qm9_dir, tmp_path, monkeypatch, capsys):
  def load(*arguments, **keywords):
    data = loaded(*arguments, **keywords)
    data.targets[:, 2] = 1.0
    return data

  loaded = qm9.load
  monkeypatch.setattr(qm9, "load", load)
  assert run(small(qm9_dir, tmp_path / "run")) == 2
  assert "homo has one value in all 100 training" in capsys.readouterr().err


def test_the_folder_is_checked_before_the_data_are_prepared(tmp_path, capsys):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "notes.txt").write_text("mine")
  assert run(small(tmp_path / "data", tmp_path / "out")) == 2
  assert not (tmp_path / "data").exists()
  assert "Preparing" not in capsys.readouterr().err


def test_does_not_overwrite_a_run(qm9_dir, tmp_path, capsys):
  (tmp_path / "notes.txt").write_text("mine")
  assert run(small(qm9_dir, tmp_path)) == 2
  assert "is not empty; choose another --out" in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
