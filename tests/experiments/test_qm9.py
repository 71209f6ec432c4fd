"""The QM9 experiment from its command line to its files, on real molecules."""

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
from tests.experiments.molecule_runs import run, small
from tests.experiments.running import make_experiment, read_metrics
from tests.needed_options import needed_flags

pytestmark = pytest.mark.usefixtures("compiled_once")

TASKS = list(qm9.TARGETS)


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
  net = MPNN(11, ready.config.dim, ready.config.edge_dim)
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
  net = MPNN(11, ready.config.dim, ready.config.edge_dim)
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
