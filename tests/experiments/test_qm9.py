"""The QM9 experiment from its command line to its files, on real molecules."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import qm9 as experiment
from experiments.molecules import Molecules
from igb_jax import balancers
from igb_jax.data import qm9
from igb_jax.nets.mpnn import MPNN
from igb_jax.training.checkpoint import Checkpoints
from tests.balancers.contract import GRADIENT, LOSS, loss_traits
from tests.experiments.running import exit_code, make_experiment, read_metrics
from tests.molecules import MOLECULES
from tests.needed_options import needed_flags

pytestmark = pytest.mark.usefixtures("compiled_once")

TASKS = list(qm9.TARGETS)


def small(qm9_dir, out, *more: str) -> list[str]:
  """Arguments of a run that takes seconds."""
  return [
    f"--data-dir={qm9_dir}", f"--molecules={MOLECULES}", f"--out={out}",
    "--train-size=100", "--validation-size=50", "--test-size=75", "--batch-size=24",
    "--dim=8", "--size-groups=1", "--epochs=3", "--learning-rate=0.01",
    "--schedule=plateau", *more,
  ]  # fmt: skip


def run(arguments: list[str]) -> int:
  """Runs the experiment and returns its exit code."""
  return exit_code(experiment.main, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*balancers.names()])
def test_trains_beside_a_balancer_of_the_other_kind(name, qm9_dir, tmp_path):
  spec = f"{name}+mgda" if balancers.names()[name] == "loss" else f"si+{name}"
  options = needed_flags(name, len(TASKS))
  given = small(qm9_dir, tmp_path / "run", f"--balancer={spec}", "--epochs=1")
  assert run([*given, *options]) == 0
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert np.isfinite(summary["delta_m"])


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("balancer", LOSS)
def test_trains_with_every_loss_balancer_and_writes_its_results(
  balancer, qm9_dir, tmp_path, capsys
):
  task = ["--balancer-options", "task=homo"]
  options = task if balancer == "stl" else needed_flags(balancer, len(TASKS))
  out = tmp_path / "run"
  assert run(small(qm9_dir, out, f"--balancer={balancer}", *options)) == 0

  summary = json.loads((out / "summary.json").read_text())
  assert summary["dataset"] == "qm9"
  assert summary["balancer"] == balancer
  assert summary["seed"] == 0
  assert summary["epochs"] == 3
  assert summary["complete"]
  assert summary["num_steps"] == 3 * 5  # 100 molecules in batches of 24
  assert summary["device"]
  assert summary["train_seconds"] > summary["seconds_per_step"] > 0
  assert (
    list(summary["test"]) == summary["tasks"] == list(summary["explained"]) == TASKS
  )
  base = np.array(experiment.SINGLE_TASK_ERRORS)
  errors = np.array(list(summary["test"].values()))
  changes = 100 * (errors - base) / base
  judged = changes[TASKS.index("homo")] if balancer == "stl" else changes.mean()
  assert summary["delta_m"] == pytest.approx(judged)
  if balancer == "stl":
    assert summary["weights"] == [float(name == "homo") for name in TASKS]
  elif loss_traits(balancer).normalised:
    assert sum(summary["weights"]) == pytest.approx(11, rel=1e-4)

  lines = read_metrics(out)
  assert [line["epoch"] for line in lines] == [0, 1, 2]
  for line in lines:
    for field in ("losses", "weights", "validation"):
      assert list(line[field]) == TASKS
    assert line["oversized_batches"] == 0
  best = min(line["validation_delta_m"] for line in lines)
  assert lines[summary["best_epoch"]]["validation_delta_m"] == best
  assert list(lines[-1]["weights"].values()) == summary["weights"]

  config = json.loads((out / "config.json").read_text())
  assert config["train_size"] == 100
  assert config["out"] == str(out)
  assert any((out / "checkpoints").iterdir())
  plots = {path.name for path in (out / "plots").iterdir()}
  assert plots == {"losses.png", "weights.png", "gaps.png"}

  shown = capsys.readouterr().out
  assert re.search(r"homo +│ meV +│", shown)
  assert "predicting" in shown
  assert "explained" in shown
  for name in ("config.json", "metrics.jsonl", "summary.json", "plots/gaps.png"):
    assert str(out / name) in shown.replace("\n", "")


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("spec", [*GRADIENT, "igbv1+nashmtl"])
def test_trains_with_every_gradient_balancer_and_logs_what_it_saw(
  spec, qm9_dir, tmp_path
):
  options = ["--balancer-options", "update_every=2"] if "+" in spec else []
  out = tmp_path / "run"
  assert run(small(qm9_dir, out, f"--balancer={spec}", "--epochs=4", *options)) == 0
  summary = json.loads((out / "summary.json").read_text())
  assert summary["balancer"] == spec
  lines = read_metrics(out)
  if spec != "imtlg":  # whose direction may climb while its weights sum to 1
    assert sum(lines[-1]["losses"].values()) < sum(lines[0]["losses"].values())
  for line in lines:
    cosines = np.array(line["gradient_cosines"])
    assert cosines.shape == (11, 11)
    np.testing.assert_allclose(cosines, cosines.T, atol=1e-5)
    np.testing.assert_allclose(np.diagonal(cosines), 1, 1e-5)
    assert 0 <= line["conflict_share"] <= 1
    assert 1 <= line["gramian_condition_number"] < 1e7
    assert 0 <= line["solver_residual"] <= line["solver_worst_residual"] < 1e-4
    assert len(line["gradient_weights"]) == 11
  if spec == "mgda":
    assert sum(lines[0]["gradient_weights"]) == pytest.approx(11, rel=1e-4)
  weights = np.array(summary["weights"])
  if spec == "igbv1+nashmtl":  # the loss balancer's are beside them
    assert (weights != 1).any()
  else:
    assert (weights == 1).all()
  assert summary["gradient_weights"] == lines[-1]["gradient_weights"]
  plots = {path.name for path in (out / "plots").iterdir()}
  assert plots == {
    "losses.png", "weights.png", "gaps.png", "gradient_weights.png", "conflicts.png",
    "cosines.png",
  }  # fmt: skip


def test_learns_and_igbv1_moves_its_weights_after_the_base_epoch(qm9_dir, tmp_path):
  size = "--train-size=200", "--validation-size=100", "--batch-size=48", "--dim=16"
  arguments = small(qm9_dir, tmp_path / "run", *size, "--epochs=7")
  assert run(arguments) == 0
  lines = read_metrics(tmp_path / "run")
  first, best = lines[0], min(lines, key=lambda line: line["validation_delta_m"])
  assert best["validation_delta_m"] < 0.8 * first["validation_delta_m"]
  assert sum(lines[-1]["losses"].values()) < 0.7 * sum(first["losses"].values())
  for line in lines[:2]:
    assert set(line["weights"].values()) == {1.0}
  assert len({f"{weight:.4f}" for weight in lines[2]["weights"].values()}) > 5


@pytest.mark.slow
def test_igbv2_learns_and_acts_within_a_run(qm9_dir, tmp_path, capsys):
  options = ["update_every=2", "num_updates=2", "start_epoch=4", "hidden_sizes=[8,8]"]
  arguments = [f for option in options for f in ("--balancer-options", option)]
  out = tmp_path / "run"
  arguments = small(qm9_dir, out, "--balancer=igbv2", "--epochs=6", *arguments)
  assert run(arguments) == 0
  for line in read_metrics(out):
    assert sum(line["weights"].values()) == pytest.approx(11, rel=1e-4)
  ready = make_experiment(experiment, experiment.parse_config(arguments))
  with Checkpoints(out / "checkpoints") as checkpoints:
    restored = checkpoints.restore_best(ready.init_state())
  assert restored is not None
  state, progress = restored
  epoch = len(progress["records"]) - 1
  assert state.balancer.loss.step == 5 * (epoch + 1)
  assert state.balancer.loss.replay.size == max(0, 5 * (epoch - 1))
  assert (state.balancer.loss.agent.actor_optimizer[0].count > 0) == (epoch >= 3)
  assert state.balancer.loss.num_nonfinite == state.balancer.loss.num_rejected == 0


@pytest.mark.slow
def test_same_seed_same_numbers(qm9_dir, tmp_path):
  for name, seed in (("a", 3), ("b", 3), ("c", 4)):
    arguments = small(qm9_dir, tmp_path / name, f"--seed={seed}", "--balancer=rlw")
    assert run([*arguments, "--epochs=1"]) == 0
  a, b, c = (read_metrics(tmp_path / name)[0] for name in "abc")
  for field in ("losses", "weights", "validation"):
    assert a[field] == b[field]
    assert a[field] != c[field]


def test_evaluation_equals_a_plain_loop_over_molecules(qm9_dir):
  config = experiment.parse_config(small(qm9_dir, None)[:2] + small(qm9_dir, None)[3:])
  ready = make_experiment(experiment, config)
  evaluation = ready.evaluate(ready.init_state(), "test")
  molecules = Molecules(ready.config, ready.devices)
  positions = molecules.split.test
  net = MPNN(num_tasks=11, dim=ready.config.dim)
  apply, predictions = jax.jit(net.apply), []
  for position in positions:
    batch = molecules.batches(np.array([position]), molecules.targets)[0]
    output = apply({"params": ready.initial_params}, batch.graphs)
    predictions.append(np.asarray(output)[batch.mask == 1][0])
  train = molecules.data.targets[molecules.split.train].astype(np.float64)
  mean, std = train.mean(axis=0), train.std(axis=0, ddof=1)
  values = np.array(predictions) * std + mean
  errors = np.abs(values - molecules.data.targets[positions]).mean(axis=0)
  errors[[2, 3, 5, 6, 7, 8, 9]] *= 1000  # eV to meV
  np.testing.assert_allclose(list(evaluation.metrics.values()), errors, 1e-4)
  assert len(positions) == 75


def test_losses_are_means_over_the_molecules_that_are_there(qm9_dir):
  config = experiment.parse_config(small(qm9_dir, None)[:2] + small(qm9_dir, None)[3:])
  ready = make_experiment(experiment, config)
  batches = Molecules(ready.config, ready.devices).train_batches(0, 0)
  batch = batches[len(batches) - 1]
  whole = jax.jit(ready.problem.losses_of)(ready.initial_params, batch)
  assert 0 < batch.mask.sum() == 100 % 24
  net = MPNN(num_tasks=11, dim=ready.config.dim)
  output = jax.jit(net.apply)({"params": ready.initial_params}, batch.graphs)
  errors = (np.asarray(output) - batch.targets)[batch.mask == 1]
  np.testing.assert_allclose(whole, (errors**2).mean(axis=0), 1e-5)


def test_a_loss_that_is_not_finite_ends_the_run(qm9_dir, tmp_path, capsys):
  out = tmp_path / "run"
  arguments = ["--balancer=si", "--learning-rate=1e30", "--min-learning-rate=1e-5"]
  assert run(small(qm9_dir, out, *arguments)) == 1
  shown = capsys.readouterr().err
  assert re.search(r"training stopped at step \d+: the weighted loss is not", shown)
  assert "for mu (loss" in shown
  assert not (out / "summary.json").exists()
  assert (out / "config.json").exists()


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
    (["--molecules=-3"], "--molecules must be at least 1, got -3"),
    (["--epochs=0"], "--epochs must be at least 1, got 0"),
    (["--batch-size=-2"], "--batch-size must be at least 1, got -2"),
    (["--seed=-1"], "--seed must be at least 0, got -1"),
    (["--learning-rate=nan"], "--learning-rate and --min-learning-rate must be pos"),
    (["--min-learning-rate=1"], "--learning-rate and --min-learning-rate must be pos"),
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


def test_the_folder_is_checked_before_the_data_are_prepared(tmp_path, capsys):
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "notes.txt").write_text("mine")
  assert run(small(tmp_path / "data", tmp_path / "out")) == 2
  assert not (tmp_path / "data").exists()
  assert "Preparing" not in capsys.readouterr().err


def test_refuses_targets_that_do_not_vary(qm9_dir, tmp_path, monkeypatch, capsys):
  def load(*arguments, **keywords):
    data = loaded(*arguments, **keywords)
    data.targets[:, 2] = 1.0
    return data

  loaded = qm9.load
  monkeypatch.setattr(qm9, "load", load)
  assert run(small(qm9_dir, tmp_path / "run")) == 2
  assert "homo has one value in all 100 training" in capsys.readouterr().err


def test_out_may_start_with_a_tilde(qm9_dir, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert run([*small(qm9_dir, "~/run"), "--epochs=1"]) == 0
  assert (tmp_path / "run" / "summary.json").exists()


def test_does_not_overwrite_a_run(qm9_dir, tmp_path, capsys):
  (tmp_path / "notes.txt").write_text("mine")
  assert run(small(qm9_dir, tmp_path)) == 2
  assert "is not empty; choose another --out" in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_folder_without_out_has_data_set_balancer_seed_and_time(
  qm9_dir, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  arguments = [a for a in small(qm9_dir, "") if not a.startswith("--out")]
  assert run([*arguments, "--epochs=1", "--seed=5", "--balancer=ew"]) == 0
  (folder,) = (tmp_path / "runs").iterdir()
  assert re.fullmatch(r"qm9-ew-seed5-\d{8}-\d{6}", folder.name)
  assert not (folder / "plots" / "gaps.png").exists()  # no base epoch yet


def test_interrupt_tests_and_writes_what_there_is(qm9_dir, tmp_path):
  out = tmp_path / "run"
  process = subprocess.Popen(
    [sys.executable, "-m", "experiments.qm9", *small(qm9_dir, out, "--epochs=100000")],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=Path(__file__).parents[2],
  )
  deadline = time.monotonic() + 120
  while not (out / "metrics.jsonl").exists():
    assert time.monotonic() < deadline
    assert process.poll() is None, process.stdout and process.stdout.read()
    time.sleep(0.1)
  process.send_signal(signal.SIGINT)
  shown, _ = process.communicate(timeout=60)
  assert process.returncode == 130, shown
  assert "Traceback" not in shown
  summary = json.loads((out / "summary.json").read_text())
  assert not summary["complete"]
  assert summary["epochs"] == len(read_metrics(out)) >= 1
  assert f"stopped after {summary['epochs']} of 100000 epochs" in shown


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
  with pytest.raises(SystemExit) as caught:
    experiment.parse_config(["--help"])
  assert caught.value.code == 0
  shown = capsys.readouterr().out
  for field in dataclasses.fields(experiment.Config):
    assert "--" + field.name.replace("_", "-") in shown


@pytest.mark.parametrize(
  "arguments", [["--preset=huge"], ["--epoch=3"], ["--epochs=many"], ["--preset"]]
)
def test_wrong_options_are_named(arguments, capsys):
  with pytest.raises(SystemExit) as caught:
    experiment.parse_config(arguments)
  assert caught.value.code == 2
  assert arguments[0].partition("=")[0] in capsys.readouterr().err
