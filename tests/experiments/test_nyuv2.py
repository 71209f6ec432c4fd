"""The NYUv2 experiment from its command line to its files, on rooms and tiny files."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import nyuv2 as experiment
from experiments import scenes
from experiments.scene_base import SINGLE_TASK, read_base
from igb_jax import scene_tasks
from igb_jax.balancers.methods import METHODS
from tests.experiments.running import (
  assert_help_explains_every_option,
  exit_code,
  make_experiment,
  read_metrics,
)

METRICS = list(scene_tasks.METRICS)


def small(out, *more: str) -> list[str]:
  """Arguments of a run that takes seconds."""
  return [
    f"--out={out}", "--epochs=2", "--batch-size=2", "--width=0.05",
    "--resolution", "32", "64", "--rooms", "6", "3", "4", *more,
  ]  # fmt: skip


def run(arguments: list[str]) -> int:
  """Runs the experiment and returns its exit code."""
  return exit_code(experiment.main, arguments)


def write_images(folder, numbers=(4, 3), size=(32, 64)) -> None:
  """NYUv2 as image folders, with noise instead of rooms."""
  generator = np.random.default_rng(0)
  for part, number in zip(("train", "test"), numbers, strict=True):
    for kind in ("image", "label", "depth"):
      (folder / part / kind).mkdir(parents=True)
    for index in range(number):
      name = f"{index + 1:04}.png"
      image = generator.integers(0, 256, (*size, 3), np.uint8)
      label = generator.integers(0, 13, size, np.uint8)
      depth = np.full(size, 2500, np.uint16)
      for kind, values in (("image", image), ("label", label), ("depth", depth)):
        Image.fromarray(values).save(folder / part / kind / name)


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
  "arguments",
  [
    ["--balancer=igbv1"],
    ["--balancer=igbv1+nashmtl", "--balancer-options", "update_every=2"],
    ["--balancer=ew", "--split=standard", "--dtype=bfloat16"],
  ],
)
def test_trains_on_rooms_and_writes_its_results(arguments, tmp_path, capsys):
  out = tmp_path / "run"
  assert run(small(out, *arguments)) == 0
  summary = json.loads((out / "summary.json").read_text())
  assert summary["dataset"] == "rooms"
  assert "not NYUv2" in summary["notice"]
  assert summary["num_steps"] == 2 * 3
  assert list(summary["test"]) == METRICS
  assert summary["tasks"] == ["segmentation", "depth", "normal"]
  standard = "--split=standard" in arguments
  assert summary["num_scenes"] == ([6, 0, 7] if standard else [6, 3, 4])
  lines = read_metrics(out)
  assert [line["epoch"] for line in lines] == [0, 1]
  if standard:
    assert summary["tested"] == "as the mean over the last 2 epochs"
    for name in METRICS:
      mean = np.mean([line["validation"][name] for line in lines])
      assert summary["test"][name] == pytest.approx(mean)
  base = np.array(SINGLE_TASK)
  sign = np.where(scene_tasks.HIGHER_IS_BETTER, -1, 1)
  values = np.array(list(summary["test"].values()))
  expected = 100 * np.mean(sign * (values - base) / base)
  assert summary["delta_m"] == pytest.approx(expected)
  plots = {path.name for path in (out / "plots").iterdir()}
  assert {"predictions.png", "losses.png", "weights.png", "gaps.png"} <= plots
  assert ("cosines.png" in plots) == ("nashmtl" in arguments[0])
  shown = capsys.readouterr().out
  assert shown.count("generated rooms, not NYUv2") == 2  # at the start and at the end
  assert "predictions.png" in shown.replace("\n", "")


@pytest.mark.usefixtures("drawn")
def test_trains_on_files_and_says_what_it_found(tmp_path, capsys):
  write_images(tmp_path / "data")
  out = tmp_path / "run"
  arguments = [f"--data-dir={tmp_path / 'data'}", f"--cache-dir={tmp_path / 'cache'}"]
  assert run(small(out, "--balancer=ew", "--epochs=1", "--workers=1", *arguments)) == 0
  summary = json.loads((out / "summary.json").read_text())
  assert summary["dataset"] == "nyuv2"
  assert "comparable with published ones: normals are derived" in summary["notice"]
  assert summary["num_scenes"] == [4, 1, 2]
  assert "image" in summary["data"]
  shown = capsys.readouterr().out.replace("\n", "")
  assert f"data: {summary['data']}" in shown
  larger = small(out, *arguments, "--resolution", "64", "64")
  ready = make_experiment(experiment, experiment.parse_config(larger))
  assert ready.problem.notice is not None
  assert "32 x 64 are resized to 64 x 64" in ready.problem.notice


def test_a_scene_that_cannot_be_read_ends_the_run(tmp_path, monkeypatch, capsys):
  class Damaged(scenes.Rooms):
    def __getitem__(self, index):
      if index < 6:  # of the training scenes
        raise OSError(f"scene {index} is damaged")
      return super().__getitem__(index)

  monkeypatch.setattr(scenes, "Rooms", Damaged)
  out = tmp_path / "run"
  assert run(small(out, "--balancer=ew")) == 1
  shown = capsys.readouterr().err.replace("\n", " ")
  assert re.search(r"error: a batch could not be loaded: scene \d is damaged", shown)
  assert f"saved files are in {out}" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", [name for name, method in METHODS.items() if method.kind == "gradient"]
)
def test_three_epochs_of_rooms_with_every_gradient_balancer(tmp_path, name):
  assert run(small(tmp_path / "run", f"--balancer={name}", "--epochs=3")) == 0
  last = read_metrics(tmp_path / "run")[-1]
  assert last["epoch"] == 2
  assert np.isfinite([*last["losses"].values(), *last["validation"].values()]).all()


@pytest.mark.slow
def test_same_seed_same_numbers(tmp_path):
  for name, seed in (("a", 3), ("b", 3), ("c", 4)):
    arguments = small(tmp_path / name, f"--seed={seed}", "--balancer=ew", "--epochs=1")
    assert run(arguments) == 0
  a, b, c = (read_metrics(tmp_path / name)[0] for name in "abc")
  assert a["losses"] == b["losses"]
  assert a["validation"] == b["validation"]
  assert a["losses"] != c["losses"]


@pytest.mark.slow
def test_batch_statistics_move_in_training_and_stay_in_evaluation(tmp_path):
  config = experiment.parse_config(small(tmp_path / "run", "--balancer=ew"))
  ready = make_experiment(experiment, config)
  state = ready.init_state()
  before = jax.tree.map(np.array, state.variables)
  ready.evaluate(state, "validation")
  jax.tree.map(np.testing.assert_array_equal, state.variables, before)
  for batch in ready.epoch_batches(0):
    state = ready.step(state, batch)
  moved = jax.tree.map(lambda a, b: (np.array(a) != b).any(), state.variables, before)
  assert all(jax.tree.leaves(moved))
  assert state.failure.step == -1


@pytest.mark.slow
def test_mtan_trains(tmp_path):
  arguments = ["--model=mtan", "--balancer=igbv1", "--resolution", "32", "32"]
  config = experiment.parse_config(small(tmp_path / "run", *arguments))
  ready = make_experiment(experiment, config)
  assert any("attention" in name for name in ready.initial_params["shared"])
  state = ready.init_state()
  before = jax.tree.map(np.array, state.params)
  for batch in ready.epoch_batches(0):
    state = ready.step(state, batch)
  assert state.failure.step == -1
  moved = jax.tree.map(lambda a, b: (np.array(a) != b).any(), state.params, before)
  assert np.mean(jax.tree.leaves(moved)) > 0.9
  metrics = ready.evaluate(state, "validation").metrics
  assert list(metrics) == METRICS
  assert np.isfinite(list(metrics.values())).all()


def test_stl_base_replaces_the_papers(tmp_path):
  base = dict.fromkeys(METRICS, 10.0)
  path = tmp_path / "base.json"
  path.write_text(json.dumps(base))
  assert read_base([path]) == (10.0,) * 9
  assert read_base([]) == SINGLE_TASK
  for content, message in (
    (json.dumps(base | {"miou": 0, "depth_abs_err": True, "normal_30": "x"}),
     r"wrong or missing: miou, depth_abs_err, normal_30\."),
    ("{}", "wrong or missing: miou, pixel"),
    ("[]", "base.json must hold a JSON object"),
    ("{", "is not a JSON file"),
    ('{"balancer": "ew"}', "base.json is from a run with --balancer=ew, not stl"),
    ('{"balancer": "stl"}', "is not the summary of a run of this experiment on one of"),
    ('{"balancer": "stl", "balancer_options": ["task=homo"], "test": {"homo": 1}}',
     "is not the summary of a run of this experiment on one of"),
  ):  # fmt: skip
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
      read_base([path])


@pytest.mark.slow
def test_stl_base_is_made_of_single_task_runs(tmp_path):
  paths = []
  for number, task in enumerate(("segmentation", "depth", "2")):  # as runs write them
    paths.append(tmp_path / task / "summary.json")
    paths[-1].parent.mkdir()
    content = {"balancer": "stl", "balancer_options": [f"task={task}"]}
    test = {name: number + index for index, name in enumerate(METRICS, 1)}
    paths[-1].write_text(json.dumps({**content, "test": test}))
  expected = (1, 2, 1 + 3, 1 + 4, *(2 + index for index in range(5, 10)))
  assert read_base(paths) == expected

  # a run that has this base, and is itself the base of another
  names = [str(path) for path in paths]
  options = ["--balancer=stl", "--balancer-options=task=segmentation", "--epochs=1"]
  run_folder = tmp_path / "run"
  assert run(small(run_folder, *options, "--stl-base", *names)) == 0
  summary = json.loads((run_folder / "summary.json").read_text())
  assert summary["single_task_base"] == "own runs"
  assert json.loads((run_folder / "config.json").read_text())["stl_base"] == names
  own = tuple(summary["test"].values())[:2]
  found = read_base([run_folder / "summary.json", *paths[1:]])
  assert found == pytest.approx((*own, *expected[2:]))

  with pytest.raises(ValueError, match="wrong or missing: normal_mean, "):
    read_base(paths[:2])
  with pytest.raises(ValueError, match="has depth_abs_err, depth_rel_err twice"):
    read_base([paths[1], paths[1]])


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--balancer=igbv9"], "unknown balancer 'igbv9'"),
    (["--balancer=stl"], "'stl' needs task"),
    (["--balancer=stl", "--balancer-options", "task=deth"], "not a number, .* or task"),
    (["--resolution", "33", "64"], r"--resolution must be two positive .*\(33, 64\)"),
    (["--resolution", "0", "64"], "--resolution must be two positive multiples"),
    (["--rooms", "0", "1", "1"], "--rooms must be three numbers of at least 1"),
    (["--epochs=0"], "--epochs must be at least 1, got 0"),
    (["--workers=-1"], "--workers must be at least 0, got -1"),
    (["--learning-rate=nan"], "--learning-rate must be positive, got nan"),
    (["--width=0"], "--width must be positive, got 0"),
    (["--batch-size=7"], "a batch of 7 needs as many training scenes, got 6"),
    (["--data-dir=/nowhere"], "/nowhere"),
    (["--stl-base", "/nowhere.json"], "nowhere.json"),
    (["--limit=3"], "--limit is for --data-dir"),
  ],
)
def test_bad_input_is_refused_before_anything_is_written(
  arguments, message, tmp_path, capsys
):
  out = tmp_path / "run"
  assert run(small(out, *arguments)) == 2
  shown = capsys.readouterr().err
  assert "error: " in shown
  assert re.search(message, shown)
  assert not out.exists()


def test_presets_are_the_published_protocols():
  paper = experiment.parse_config(["--preset=paper"])
  assert (paper.epochs, paper.batch_size, paper.learning_rate) == (500, 2, 1e-4)
  assert (paper.model, paper.width, paper.resolution) == ("segnet", 1.0, (288, 384))
  assert (paper.split, paper.halve_every) == ("paper", 100)
  mtan = experiment.parse_config(["--preset=mtan"])
  assert (mtan.epochs, mtan.model, mtan.split) == (200, "mtan", "standard")
  assert (mtan.batch_size, mtan.learning_rate, mtan.halve_every) == (2, 1e-4, 100)
  assert (mtan.width, mtan.resolution) == (1.0, (288, 384))
  assert experiment.AVERAGED_EPOCHS == 10
  changed = experiment.parse_config(["--epochs", "7", "--preset", "mtan"])
  assert changed == dataclasses.replace(mtan, epochs=7)
  assert experiment.parse_config([]) == experiment.PRESETS["quick"]


def test_help_explains_every_option(capsys):
  assert_help_explains_every_option(experiment, capsys)


def test_the_batches_of_an_epoch_are_its_own_in_any_order(tmp_path):
  ready = make_experiment(experiment, experiment.parse_config(small(tmp_path / "run")))
  first = list(ready.epoch_batches(0))
  next(iter(ready.epoch_batches(1)))  # and the rest of it never
  for epoch, expected in ((0, first), (1, None), (0, first)):
    found = list(ready.epoch_batches(epoch))
    assert len(found) == ready.problem.steps_per_epoch
    if expected:
      jax.tree.map(np.testing.assert_array_equal, found, expected)
  ready.close()
