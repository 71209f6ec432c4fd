"""--tensorboard and --wandb of a run: the numbers of metrics.jsonl, each once."""

import shutil
import sys

import pytest

from experiments import compare, custom
from igb_jax.training import loggers
from tests.experiments.lines_task import task as task
from tests.experiments.running import exit_code, read_metrics
from tests.training.event_files import as_float32, read_scalars
from tests.training.test_loggers import wandb as wandb


def arguments(task, out, *more: str) -> list[str]:
  options = [f"--task={task}", f"--out={out}", "--batch-size=16", "--epochs=3"]
  return [*options, "--balancer=ew", *more]


def logged(out):
  return read_scalars(out / "tensorboard")


def test_all_numbers_are_logged(task, tmp_path, wandb):
  out = tmp_path / "run"
  given = arguments(task, out, "--balancer=ew+mgda", "--tensorboard", "--wandb")
  assert exit_code(custom.main, given) == 0
  lines = read_metrics(out)
  assert logged(out) == as_float32(lines)
  (of_run,) = wandb.server.values()
  assert of_run == {line["epoch"]: loggers.scalars_of(line) for line in lines}
  assert {"losses/sum", "gradient_cosines/sum/first", "conflict_share"} <= {*of_run[2]}
  (run,) = wandb.runs
  assert run.finished
  assert run.options["name"] == "lines-ew+mgda-seed0"
  assert run.options["config"]["batch_size"] == 16


def test_a_resumed_run_has_every_epoch_once(task, tmp_path, wandb):
  out = tmp_path / "run"
  given = arguments(task, out, "--tensorboard", "--wandb", "--keep=3")
  assert exit_code(custom.main, given) == 0
  # as if it had been killed before its last checkpoint
  newest = max((out / "checkpoints").iterdir(), key=lambda path: int(path.name))
  shutil.rmtree(newest)
  given = arguments(task, out, "--tensorboard", "--wandb", "--epochs=4", "--resume")
  assert exit_code(custom.main, given) == 0
  lines = read_metrics(out)
  assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
  assert logged(out) == as_float32(lines)
  (of_run,) = wandb.server.values()
  assert [*of_run] == [0, 1, 2, 3]


def test_a_run_that_cannot_be_resumed_keeps_what_was_logged(task, tmp_path, capsys):
  out = tmp_path / "run"
  assert exit_code(custom.main, arguments(task, out, "--tensorboard")) == 0
  given = arguments(task, out, "--tensorboard", "--epochs=2", "--resume")
  assert exit_code(custom.main, given) == 1
  shown = capsys.readouterr().err
  assert "has already reached epoch 3" in shown
  assert "to resume" not in shown
  lines = read_metrics(out)
  assert len(lines) == 3
  assert logged(out) == as_float32(lines)


def test_a_run_that_had_no_logger_gets_one_when_it_is_resumed(task, tmp_path):
  out = tmp_path / "run"
  assert exit_code(custom.main, arguments(task, out)) == 0
  assert not (out / "tensorboard").exists()
  given = arguments(task, out, "--tensorboard", "--resume")
  assert exit_code(custom.main, given) == 0
  assert logged(out) == as_float32(read_metrics(out))


def test_seeds_at_once_are_logged_apart(task, tmp_path, wandb):
  out = tmp_path / "run"
  given = arguments(
    task, out, "--tensorboard", "--wandb", "--devices=1", "--seeds", "0", "1"
  )
  assert exit_code(custom.main, given) == 0
  assert not (out / "tensorboard").exists()
  for seed, run in enumerate(wandb.runs):
    lines = read_metrics(out / f"seed{seed}")
    assert len(lines) == 3
    assert logged(out / f"seed{seed}") == as_float32(lines)
    assert run.options["name"] == f"lines-ew-seed{seed}"
    assert [*run.history] == [0, 1, 2]
    assert run.finished
  assert len(wandb.server) == 2


def test_training_goes_on_where_a_logger_fails(task, tmp_path, monkeypatch, capsys):
  write = loggers.TensorBoardLogger.write

  def fails_later(self, epoch, scalars):
    if epoch > 0:
      raise OSError("No space left on device")
    write(self, epoch, scalars)

  monkeypatch.setattr(loggers.TensorBoardLogger, "write", fails_later)
  out = tmp_path / "run"
  assert exit_code(custom.main, arguments(task, out, "--tensorboard")) == 0
  shown = capsys.readouterr().out
  assert shown.count("No space left") == 1
  assert "--tensorboard: epoch 2 could not be written: No space left on dev" in shown
  assert "--tensorboard: 2 epochs could not be written." in shown
  lines = read_metrics(out)
  assert len(lines) == 3
  assert logged(out) == as_float32(lines[:1])
  assert (out / "summary.json").exists()


def test_a_logger_that_cannot_start_ends_the_run_before_it_trains(
  task, tmp_path, wandb, capsys
):
  def init(**options):
    raise RuntimeError("api_key not configured")

  wandb.init = init
  out = tmp_path / "run"
  assert exit_code(custom.main, arguments(task, out, "--wandb")) == 1
  shown = " ".join(capsys.readouterr().err.split())
  assert "error: --wandb could not start: api_key not configured." in shown
  assert "leave the option out, and resume." in shown
  assert "to resume" not in shown
  assert not (out / "metrics.jsonl").exists()
  assert exit_code(custom.main, arguments(task, out, "--resume")) == 0
  assert len(read_metrics(out)) == 3


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_told_before_anything_is_done(
  package, task, tmp_path, monkeypatch, capsys
):
  monkeypatch.setitem(sys.modules, package, None)
  out = tmp_path / "run"
  assert exit_code(custom.main, arguments(task, out, f"--{package}")) == 2
  assert f"pip install 'igb-jax[{package}]'" in capsys.readouterr().err
  assert not out.exists()
  given = [f"--task={task}", f"--out={out}", f"--{package}"]
  assert exit_code(compare.main, given) == 2
  assert f"pip install 'igb-jax[{package}]'" in capsys.readouterr().err
  assert not out.exists()


def test_a_comparison_hands_the_options_on_and_may_go_on_without(task, tmp_path):
  config = compare.Config(task=task, balancers="ew", out=tmp_path / "cmp")
  with_logger = compare.Comparison(config, ["--tensorboard"])
  assert "--tensorboard" in with_logger.arguments
  assert with_logger.settings == compare.Comparison(config, []).settings
