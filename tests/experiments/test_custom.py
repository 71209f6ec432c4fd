"""A user's own task file, from the command line to the files of its run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import custom
from igb_jax.balancers.methods import METHODS
from igb_jax.training.experiment import for_seed
from igb_jax.training.task_file import load_task
from tests.experiments.custom_task import make, small
from tests.experiments.custom_task import write_task as write_task
from tests.experiments.running import exit_code, read_metrics, untimed

ROOT = Path(__file__).parents[2]
DIAMONDS = ROOT / "experiments" / "problems" / "diamonds.py"


@pytest.mark.parametrize("balancer", ["igbv1", "igbv1+nashmtl", "stl"])
def test_trains_and_writes_its_results(balancer, write_task, tmp_path, capsys):
  out = tmp_path / "run"
  task = write_task(("None, None, None", "0.5, 2.0, 80.0"))
  options = ["--balancer-options", "task=side"] if balancer == "stl" else []
  arguments = small(task, out, f"--balancer={balancer}", *options)
  assert exit_code(custom.main, arguments) == 0
  summary = json.loads((out / "summary.json").read_text())
  assert summary["dataset"] == "made-up"
  assert summary["tasks"] == ["height", "side"]
  assert summary["num_rows"] == [70, 30, 20]
  assert summary["num_steps"] == 4 * 4  # 70 rows in whole batches of 16
  assert summary["single_task_base"] == "task file"
  assert summary["notice"] is None
  lines = read_metrics(out)
  assert len(lines) == 4
  first, last = lines[0], lines[-1]
  changes = {
    "mean error": summary["test"]["mean error"] / 0.5 - 1,
    "largest error": summary["test"]["largest error"] / 2 - 1,
    "accuracy": 1 - summary["test"]["accuracy"] / 80,
  }
  assert list(summary["test"]) == list(changes)
  if balancer == "stl":  # is judged by its own metric, and leaves the other head alone
    assert summary["delta_m"] == pytest.approx(100 * changes["accuracy"])
    assert summary["weights"] == [0, 1]
    assert last["losses"]["side"] < first["losses"]["side"]
  else:
    assert summary["delta_m"] == pytest.approx(100 * np.mean([*changes.values()]))
    assert sum(last["losses"].values()) < 0.7 * sum(first["losses"].values())
    assert (np.array(summary["weights"]) != 1).all()
  assert ("gradient_cosines" in last) == ("+" in balancer)
  shown = capsys.readouterr().out
  assert re.search(r"accuracy +│ % +│", shown)
  assert f"70 rows to train on, 30 to validate and 20 to test, from {task}" in shown


def test_a_method_of_the_task_file_has_its_name(write_task):
  traits = METHODS["ew"].traits._asdict()
  code = f"""
import igb_jax.balancers

@igb_jax.balancers.methods.method("mine", "loss", paper="mine", **{traits})
def mine(num_tasks: int):
  return igb_jax.balancers.equal(num_tasks)

def make_task():"""
  try:
    made = make(write_task(("def make_task():", code)), "--balancer=mine+mgda")
  finally:
    METHODS.pop("mine", None)
  assert made.balancer.loss is not None
  assert made.balancer.gradient is not None


def test_metrics_are_of_the_whole_split(write_task):
  experiment = make(write_task())
  state = experiment.init_state()
  found = experiment.evaluate(state, "test").metrics
  shared, heads = (np.asarray(state.params[name]) for name in ("shared", "heads"))
  rows = load_task(experiment.config.task).test
  outputs = np.tanh(rows["x"] @ shared) @ heads
  errors = np.abs(outputs[:, 0] - rows["height"])
  right = outputs[:, 1:].argmax(axis=1) == rows["side"]
  assert found == pytest.approx(
    {
      "mean error": errors.mean(),
      "largest error": errors.max(),
      "accuracy": 100 * right.mean(),
    }
  )


def test_an_epoch_takes_whole_batches_in_an_order_of_its_own(write_task):
  experiment = make(write_task(), "--seed=3")
  epochs = [list(experiment.epoch_batches(epoch)) for epoch in (0, 0, 1)]
  taken = [np.concatenate([batch["x"] for batch in batches]) for batches in epochs]
  assert [len(batches) for batches in epochs] == [4] * 3
  np.testing.assert_array_equal(taken[0], taken[1])
  assert (taken[0] != taken[2]).any()
  every = {tuple(row) for row in load_task(experiment.config.task).train["x"]}
  for each in taken:
    assert len({tuple(row) for row in each} & every) == 64
  rest = list(experiment.epoch_batches(1, start=3))
  np.testing.assert_array_equal(rest[0]["x"], epochs[2][3]["x"])


def test_without_bases_the_untrained_network_is_the_base(write_task, tmp_path, capsys):
  out, task = tmp_path / "run", write_task()
  assert exit_code(custom.main, small(task, out, "--seed=5")) == 0
  summary = json.loads((out / "summary.json").read_text())
  assert summary["single_task_base"] == "untrained network"
  assert "against the untrained network" in summary["notice"]
  assert "against the untrained network" in capsys.readouterr().out
  assert summary["delta_m"] < -10
  bases = []
  for seed in (0, 5):  # one network for all seeds, so that they are comparable
    experiment = make(task, f"--seed={seed}")
    bases.append(experiment.problem.bases)
    loaded = load_task(task)
    params = jax.jit(loaded.init)(jax.random.key(0))
    values = loaded.measures(params, loaded.validation)
    np.testing.assert_allclose(bases[-1], values, 1e-5)
  assert bases[0] == bases[1]


def test_another_seed_is_the_run_that_it_would_be_alone(write_task):
  task = write_task()
  first = make(task, "--balancer=rlw")
  other = for_seed(first, 7)
  alone = make(task, "--balancer=rlw", "--seed=7")
  assert (first.config.seed, other.config.seed) == (0, 7)
  assert other.step is first.step
  states = []
  for experiment in (other, alone, first):
    state = experiment.init_state()
    for batch in experiment.epoch_batches(0):
      state = experiment.step(state, batch)
    states.append(jax.device_get(state))
  jax.tree.map(np.testing.assert_array_equal, states[0], states[1])
  assert (states[0].params["heads"] != states[2].params["heads"]).all()
  assert (states[0].sums.weights != states[2].sums.weights).all()


def test_seeds_at_once_are_the_runs_that_they_are_alone(write_task, tmp_path):
  task, out = write_task(), tmp_path / "together"
  together = small(task, out, "--balancer=uw", "--seeds", "0", "7")
  assert exit_code(custom.main, together) == 0
  alone = small(task, tmp_path / "alone", "--balancer=uw", "--seed=7")
  assert exit_code(custom.main, alone) == 0
  epochs = read_metrics(out / "seed7"), read_metrics(tmp_path / "alone")
  for at_once, by_itself in zip(*epochs, strict=True):
    for name in ("losses", "weights", "validation"):
      assert at_once[name] == pytest.approx(by_itself[name], rel=1e-4)
  assert read_metrics(out / "seed0")[0]["losses"] != epochs[0][0]["losses"]


def test_out_may_start_with_a_tilde(write_task, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert exit_code(custom.main, small(write_task(), "~/run", "--epochs=1")) == 0
  assert (tmp_path / "run" / "summary.json").exists()


def test_a_folder_without_out_has_data_set_balancer_seed_and_time(
  write_task, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  given = small(write_task(), None, "--epochs=1", "--seed=5", "--balancer=igbv1")
  assert exit_code(custom.main, given) == 0
  (folder,) = (tmp_path / "runs").iterdir()
  assert re.fullmatch(r"made-up-igbv1-seed5-\d{8}-\d{6}", folder.name)
  assert not (folder / "plots" / "gaps.png").exists()  # no base epoch yet


PRESENT = (
  ("measures=measures,", "measures=measures, present=present,"),
  ("def make_task", "def present(b): return b['there'].any(axis=0)\ndef make_task"),
  (
    '"side": (x[:, 0] > x[:, 1]).astype(np.int64)}',
    '"side": (x[:, 0] > x[:, 1]).astype(np.int64),\n'
    '    "there": np.arange(count)[:, None] < [count, 0]}',
  ),
)  # fmt: skip


def test_a_task_without_labels_is_left_out(write_task, tmp_path):
  out = tmp_path / "run"
  assert exit_code(custom.main, small(write_task(*PRESENT), out)) == 0
  for line in read_metrics(out):
    assert line["losses"]["side"] is None
    assert line["weights"]["side"] == 0
    assert line["weights"]["height"] == pytest.approx(1)


def test_a_stopped_run_goes_on_as_if_it_had_not(write_task, tmp_path):
  task, out, whole = write_task(), tmp_path / "run", tmp_path / "whole"
  options = "--balancer=rlw"
  assert exit_code(custom.main, small(task, out, options, "--epochs=2")) == 0
  assert exit_code(custom.main, small(task, out, options, "--resume")) == 0
  assert exit_code(custom.main, small(task, whole, options)) == 0
  lines = [[*map(untimed, read_metrics(path))] for path in (out, whole)]
  assert len(lines[0]) == 4
  assert lines[0] == lines[1]
  summaries = [json.loads((path / "summary.json").read_text()) for path in (out, whole)]
  assert untimed(summaries[0]) == untimed(summaries[1])


TWO_DEVICES = """
import sys
import jax
import numpy as np
from experiments import custom
from tests.experiments.running import make_experiment

assert jax.device_count() == 2
results = []
for mesh in ("data=1", "data=2", "data=1,model=2"):
  config = custom.parse_config([*sys.argv[1:], f"--mesh={mesh}"])
  experiment = make_experiment(custom, config)
  state = experiment.init_state()
  for epoch in range(3):
    for batch in experiment.epoch_batches(epoch):
      state = experiment.step(state, batch)
  score = experiment.evaluate(state, "validation").score
  assert experiment.step._cache_size() == 1
  divided = not state.params["shared"].sharding.is_fully_replicated
  assert divided == ("model" in mesh)
  results.append(jax.device_get((state.params, state.sums.losses, score)))
close = lambda *leaves: np.testing.assert_allclose(*leaves, 1e-3)
for result in results[1:]:
  jax.tree.map(close, result, results[0])
print(results[0][2])
"""


@pytest.mark.slow
def test_two_devices_equal_one(write_task):
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
  # 4,800 shared parameters, which the axis model divides
  task = write_task(("(4, 8)", "(4, 1200)"), ("(8, 3)) / 3", "(1200, 3)) / 35"))
  arguments = small(task, None, "--balancer=igbv1+mgda", "--learning-rate=1e-3")
  result = subprocess.run(
    [sys.executable, "-W", "error", "-c", TWO_DEVICES, *arguments],
    env=os.environ | {"XLA_FLAGS": flags},
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert float(result.stdout) < -10


def test_loss_balancers_take_any_parameters(write_task, tmp_path):
  task = write_task(
    ('"shared": shared, "heads"', '"trunk": shared, "heads"'),
    ('params["shared"]', 'params["trunk"]'),
  )
  assert exit_code(custom.main, small(task, tmp_path / "run", "--balancer=uw")) == 0


def test_the_learning_rate_falls_where_a_negative_delta_m_stalls(write_task):
  experiment = make(write_task(), "--plateau-patience=1", "--plateau-factor=0.5")
  plateau = experiment.init_state().plateau
  scales = []
  for score in (-80.0, -90.0, -90.0, -89.9995, -90.005, -95.0):
    _, plateau = experiment.problem.plateau.update((), plateau, value=score)
    scales.append(float(plateau.scale))
  assert scales == [1, 1, 1, 0.5, 0.5, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["nashmtl", "igbv1"])
def test_the_diamonds_are_learnt(balancer, tmp_path):
  out = tmp_path / "run"
  arguments = [f"--task={DIAMONDS}", f"--out={out}", f"--balancer={balancer}"]
  assert exit_code(custom.main, [*arguments, "--epochs=3"]) == 0
  summary = json.loads((out / "summary.json").read_text())
  assert sum(summary["num_rows"]) == 53_917
  task = load_task(DIAMONDS)
  metrics = summary["test"]
  # against the mean of the training rows, and their most frequent class
  nothing = jax.tree.map(np.zeros_like, task.init(jax.random.key(0)))
  assert metrics["price error"] < task.measures(nothing, task.test)[0] / 4
  for grade, gain in (("cut", 20), ("color", 0.5), ("clarity", 2)):
    most_frequent = np.bincount(task.train[grade]).argmax()
    share = 100 * np.mean(task.test[grade] == most_frequent)
    assert metrics[f"{grade} accuracy"] > share + gain


def test_the_documentation_shows_the_example():
  """But for what only the league needs."""
  code = DIAMONDS.read_text().replace("from .base import Training\n\n", "")
  code = re.sub(r"TRAINING = .*?\n\)\n\n", "", code, flags=re.DOTALL)
  assert code in (ROOT / "docs" / "custom_task.md").read_text()
