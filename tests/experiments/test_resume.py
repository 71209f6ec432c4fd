"""Runs that are killed, stopped, damaged and resumed, against one that never stopped.

Lines of metrics.jsonl are compared without the fields that are timings.
"""

import errno
import json
import os
import re
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import nyuv2
from experiments import qm9 as experiment
from igb_jax.training import checkpoint
from igb_jax.training.checkpoint import Checkpoints
from tests.experiments.molecule_runs import names, run, saved, small, start, wait_for
from tests.experiments.running import exit_code, make_experiment, read_metrics, untimed
from tests.experiments.test_nyuv2 import small as small_scenes

pytestmark = pytest.mark.usefixtures("compiled_once")


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
  command = re.search(r"to resume: python -m (experiments.qm9 .*--resume)\n", shown)
  assert command is not None, shown
  assert (out / "summary.json").exists() == tested
  newest = max(saved(out))
  epochs = len(read_metrics(out)) + 2
  assert newest >= 25 * (epochs - 2)
  more = [*arguments, f"--epochs={epochs}"]
  assert run([*more, "--resume"]) == 0
  assert run([*small(qm9_dir, whole, *more[3:])]) == 0
  assert_same_run(more, out, whole)


@pytest.mark.slow
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
  assert (
    "reached epoch 2; --epochs must be at least 2, got 1" in capsys.readouterr().err
  )
  assert (out / "metrics.jsonl").read_text() == before

  (data, *_) = sorted((out / "checkpoints" / "10").rglob("d/*"))
  data.write_bytes(data.read_bytes()[:-1])
  assert run([*arguments, "--resume", "--keep=2"]) == 0
  shown = capsys.readouterr().out
  assert re.search("skipping damaged checkpoint 10: state/.* changed", shown)
  assert "resuming after epoch 1." in shown
  assert run(small(qm9_dir, whole, "--balancer=dwa")) == 0
  assert_same_run(arguments, out, whole)
  assert run([*arguments, "--resume"]) == 0  # which only tests again
  assert_same_run(arguments, out, whole)


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
  assert f"saved files are in {out}; to resume: python -m exp" in shown
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


@pytest.mark.slow
def test_the_batches_of_an_epoch_start_anywhere(qm9_dir, tmp_path):
  molecules = experiment.parse_config(small(qm9_dir, tmp_path))
  scenes = nyuv2.parse_config(small_scenes(tmp_path))
  for ready in (make_experiment(experiment, molecules), make_experiment(nyuv2, scenes)):
    whole = list(ready.epoch_batches(1))
    rest = list(ready.epoch_batches(1, 2))
    assert len(rest) == ready.problem.steps_per_epoch - 2 > 0
    jax.tree.map(np.testing.assert_array_equal, rest, whole[2:])
    ready.close()
