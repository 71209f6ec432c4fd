"""Runs that are killed, stopped, damaged and resumed, against one that never stopped.

Lines of metrics.jsonl are compared without the fields that are timings.
"""

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import nyuv2
from experiments import qm9 as experiment
from igb_jax.training import checkpoint
from igb_jax.training.checkpoint import Checkpoints
from igb_jax.training.run_folder import RunFolder
from tests.experiments.molecule_runs import run, small
from tests.experiments.running import exit_code, make_experiment, read_metrics
from tests.experiments.test_nyuv2 import small as small_scenes

pytestmark = pytest.mark.usefixtures("compiled_once")

TIMINGS = {
  "steps_seconds", "data_seconds", "train_seconds", "seconds_per_step",
  "data_wait_share",
}  # fmt: skip


def untimed(content: dict) -> dict:
  return {name: value for name, value in content.items() if name not in TIMINGS}


def assert_same_run(arguments, out: Path, expected: Path) -> None:
  """Checks that two complete runs left the same, to the last bit."""
  assert [*map(untimed, read_metrics(out))] == [*map(untimed, read_metrics(expected))]
  summaries = [
    json.loads((path / "summary.json").read_text()) for path in (out, expected)
  ]
  assert untimed(summaries[0]) == untimed(summaries[1])
  ready = make_experiment(experiment, experiment.parse_config(arguments))
  states = []
  for path in (out, expected):
    with Checkpoints(path / "checkpoints") as checkpoints:
      assert not checkpoints.damaged
      states.append(checkpoints.restore_newest(ready.init_state())[0])
  jax.tree.map(np.testing.assert_array_equal, *states)


def start(arguments: list[str]) -> subprocess.Popen[str]:
  return subprocess.Popen(
    [sys.executable, "-m", "experiments.qm9", *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=Path(__file__).parents[2],
  )


def wait_for(process: subprocess.Popen[str], condition) -> None:
  deadline = time.monotonic() + 120
  while not condition():
    assert time.monotonic() < deadline
    assert process.poll() is None, process.stdout and process.stdout.read()
    time.sleep(0.002)


def saved(out: Path) -> list[int]:
  """Numbers of steps of the checkpoints."""
  return [int(name) for name in names(out) if name.isdecimal()]


def names(out: Path) -> list[str]:
  folder = out / "checkpoints"
  return [path.name for path in folder.iterdir()] if folder.exists() else []


def is_writing(out: Path) -> bool:
  return any(".orbax" in name for name in names(out))


def kill_after(
  steps: int, arguments: list[str], out: Path, delay: float | None
) -> bool:
  """Starts a run, and kills it once it has saved after so many steps.

  Some seconds later, that is, or without a delay when it saves again. Returns whether
  it was saving.
  """
  before = set(names(out))
  process = start(arguments)
  wait_for(process, lambda: set(names(out)) != before)
  wait_for(process, lambda: max(saved(out), default=0) >= steps)
  if delay is None:
    wait_for(process, lambda: is_writing(out))
  else:
    time.sleep(delay)
  process.kill()
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  return is_writing(out)


@pytest.mark.slow
def test_killed_while_it_saves_and_resumed_is_as_if_never_stopped(qm9_dir, tmp_path):
  out, whole = tmp_path / "run", tmp_path / "whole"
  options = ["--balancer=rlw", "--epochs=5"]
  arguments = small(qm9_dir, out, *options)
  kill_after(5, arguments, out, None)
  assert run([*arguments, "--resume"]) == 0
  assert run(small(qm9_dir, whole, *options)) == 0
  assert_same_run(arguments, out, whole)


@pytest.mark.slow
def test_killed_at_twenty_moments_and_resumed_is_as_if_never_stopped(qm9_dir, tmp_path):
  out, whole = tmp_path / "run", tmp_path / "whole"
  options = ["--balancer=igbv2+pcgrad", "--epochs=40"]
  for option in ("update_every=2", "start_epoch=4", "hidden_sizes=[8,8]"):
    options += ["--balancer-options", option]
  arguments = small(qm9_dir, out, *options, "--checkpoint-every=1s", "--resume")
  generator = np.random.default_rng(0)
  writing = []
  for number, steps in enumerate(np.sort(generator.integers(0, 5 * 35, 20))):
    delay = generator.uniform(0, 0.3) if number % 2 else None
    writing.append(kill_after(steps, arguments, out, delay))
  assert sum(writing) >= 5
  assert run(arguments) == 0
  assert run(small(qm9_dir, whole, *options)) == 0
  assert_same_run(arguments, out, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("number", "code", "tested"),
  [(signal.SIGTERM, 143, False), (signal.SIGINT, 130, True)],
)
def test_a_stopped_run_saves_within_an_epoch_and_says_how_to_go_on(
  number, code, tested, qm9_dir, tmp_path
):
  out, whole = tmp_path / "run", tmp_path / "whole"
  arguments = small(qm9_dir, out, "--batch-size=4", "--checkpoint-every=1h")
  process = start([*arguments, "--epochs=100000"])
  wait_for(process, (out / "metrics.jsonl").exists)
  process.send_signal(number)
  shown, _ = process.communicate(timeout=60)
  assert process.returncode == code, shown
  assert "Traceback" not in shown
  command = re.search(r"to go on: python -m (experiments.qm9 .*--resume)\n", shown)
  assert command is not None, shown
  assert (out / "summary.json").exists() == tested
  newest = max(saved(out))
  epochs = len(read_metrics(out)) + 2
  assert newest >= 25 * (epochs - 2)
  more = [*arguments, f"--epochs={epochs}"]
  assert run([*more, "--resume"]) == 0
  assert run([*small(qm9_dir, whole, *more[3:])]) == 0
  assert_same_run(more, out, whole)


def test_resume_starts_a_run_where_there_is_none(qm9_dir, tmp_path, capsys):
  out = tmp_path / "run"
  (out / "plots").mkdir(parents=True)
  (out / "config.partial").write_text("{")  # as one killed at once leaves it
  assert run([*small(qm9_dir, out, "--epochs=1"), "--resume"]) == 0
  assert "no checkpoint yet" in capsys.readouterr().out
  assert len(read_metrics(out)) == 1


def test_more_epochs_a_damaged_checkpoint_and_other_options(qm9_dir, tmp_path, capsys):
  out, whole = tmp_path / "run", tmp_path / "whole"
  arguments = small(qm9_dir, out, "--balancer=dwa")
  assert run([*arguments, "--epochs=2"]) == 0
  before = (out / "metrics.jsonl").read_text()

  for option, message in (
    ("--balancer=uw", r'balancer was "dwa" and is "uw"'),
    ("--dim=16", "dim was 8 and is 16"),
    ("--molecules=400", "molecules was 500 and is 400"),
    ("--seed=1", "seed was 0 and is 1"),
  ):
    assert run([*arguments, option, "--resume"]) == 2
    shown = capsys.readouterr().err
    assert re.search(
      f"--resume: the run of .*config.json has other options: {message}", shown
    )
  assert run([*arguments, "--epochs=1", "--resume"]) == 1
  assert "is in epoch 3 already; --epochs=1 must not be" in capsys.readouterr().err
  assert (out / "metrics.jsonl").read_text() == before

  (data, *_) = sorted((out / "checkpoints" / "10").rglob("d/*"))
  data.write_bytes(data.read_bytes()[:-1])
  assert run([*arguments, "--resume", "--keep=2"]) == 0
  shown = capsys.readouterr().out
  assert re.search("checkpoint 10 is damaged and left out: state/.* changed", shown)
  assert "goes on after epoch 1 and 0 steps of the next" in shown
  assert run(small(qm9_dir, whole, "--balancer=dwa")) == 0
  assert_same_run(arguments, out, whole)
  assert run([*arguments, "--resume"]) == 0  # which only tests again
  assert_same_run(arguments, out, whole)


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


@pytest.mark.slow
def test_a_full_disk_stops_the_run_which_goes_on_later(
  qm9_dir, tmp_path, capsys, monkeypatch
):
  def fill_up(folder):
    if len(calls) == 2:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    calls.append(folder)
    return checksums(folder)

  calls, checksums = [], checkpoint.checksums
  out, whole = tmp_path / "run", tmp_path / "whole"
  arguments = small(qm9_dir, out, "--balancer=dwa", "--epochs=4")
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "checksums", fill_up)
    assert run(arguments) == 1
  shown = capsys.readouterr().err
  assert re.search(r"error: a checkpoint could not .* No space left on device", shown)
  assert f"what was saved before is in {out}; to go on: python -m exp" in shown
  assert "Traceback" not in shown
  assert not (out / "summary.json").exists()
  assert {5, 10} <= set(saved(out))
  assert run([*arguments, "--resume"]) == 0
  assert run(small(qm9_dir, whole, "--balancer=dwa", "--epochs=4")) == 0
  assert_same_run(arguments, out, whole)


@pytest.mark.slow
def test_scenes_go_on_too(tmp_path):
  for name, epochs in (("run", 1), ("run", 3), ("whole", 3)):
    arguments = [f"--epochs={epochs}", "--balancer=igbv1", "--resume"]
    code = exit_code(nyuv2.main, small_scenes(tmp_path / name, *arguments))
    assert code == 0
  lines = [[*map(untimed, read_metrics(tmp_path / name))] for name in ("run", "whole")]
  assert lines[0] == lines[1]
  assert len(lines[0]) == 3


def test_the_batches_of_an_epoch_start_anywhere(qm9_dir, tmp_path):
  molecules = experiment.parse_config(small(qm9_dir, tmp_path))
  scenes = nyuv2.parse_config(small_scenes(tmp_path))
  for ready in (make_experiment(experiment, molecules), make_experiment(nyuv2, scenes)):
    whole = list(ready.epoch_batches(1))
    rest = list(ready.epoch_batches(1, 2))
    assert len(rest) == ready.problem.steps_per_epoch - 2 > 0
    jax.tree.map(np.testing.assert_array_equal, rest, whole[2:])
    ready.close()


def test_another_run_in_the_same_folder_is_refused(qm9_dir, tmp_path, capsys):
  out = tmp_path / "run"
  folder = RunFolder(out)
  arguments = [*small(qm9_dir, out, "--epochs=1"), "--resume"]
  assert run(arguments) == 2
  assert f"another process is at work in {out}" in capsys.readouterr().err
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


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json"])
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
  assert "to go on: python -m experiments.qm9" in error
  monkeypatch.undo()
  assert run([*arguments, "--resume"]) == 0
  assert [line["epoch"] for line in read_metrics(out)] == [0]
