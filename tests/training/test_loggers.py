"""Loggers on their own: what they are given is what is read back."""

import dataclasses
import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from igb_jax.training import run
from igb_jax.training.config import RunConfig
from igb_jax.training.loggers import (
  LoggerError,
  Loggers,
  TensorBoardLogger,
  check_loggers,
  open_loggers,
  scalars_of,
)
from igb_jax.training.run_folder import RunFolder
from tests.training.event_files import as_float32, read_scalars


def line_of(epoch: int) -> dict[str, Any]:
  """A line of metrics.jsonl of three tasks, one of which had no label."""
  return {
    "epoch": epoch,
    "num_steps": 5 * (epoch + 1),
    "losses": {"mu": 0.1 + epoch, "U0": None, "the sum": 1e-20},
    "weights": {"mu": 1.0, "U0": 2.0, "the sum": 0.0},
    "validation": {"error of mu": 3.0},
    "seconds_per_step": None,
    "gradient_weights": [1.0, 2.0, 3.0],
    "gradient_cosines": [[1.0, 0.1, 0.2], [0.1, 1.0, -0.3], [0.2, -0.3, 1.0]],
    "conflict_share": 1 / 3,
  }


class Kept:
  """A logger that keeps what it is given, but for some epochs."""

  def __init__(self, *, fails: tuple[int, ...] = (), fails_to_close: bool = False):
    self.fails, self.fails_to_close = fails, fails_to_close
    self.epochs: dict[int, dict[str, float]] = {}
    self.closed = False

  def write(self, epoch, scalars):
    if epoch in self.fails:
      raise ConnectionError("no route to host")
    self.epochs[epoch] = dict(scalars)

  def close(self):
    self.closed = True
    if self.fails_to_close:
      raise ConnectionError("gone")


def test_a_line_is_flattened():
  assert scalars_of(line_of(0)) == {
    "num_steps": 5.0,
    "losses/mu": 0.1,
    "losses/the sum": 1e-20,
    "weights/mu": 1.0,
    "weights/U0": 2.0,
    "weights/the sum": 0.0,
    "validation/error of mu": 3.0,
    "gradient_weights/mu": 1.0,
    "gradient_weights/U0": 2.0,
    "gradient_weights/the sum": 3.0,
    "gradient_cosines/mu/U0": 0.1,
    "gradient_cosines/mu/the sum": 0.2,
    "gradient_cosines/U0/the sum": -0.3,
    "conflict_share": 1 / 3,
  }


def test_a_failure_is_told_once_and_counted_and_stops_nobody():
  told: list[str] = []
  broken, fine = Kept(fails=(1, 2, 4), fails_to_close=True), Kept()
  loggers = Loggers({"--wandb": broken, "--tensorboard": fine}, told.append)
  for epoch in range(5):
    loggers.write(line_of(epoch))
  assert [*broken.epochs] == [0, 3]
  assert fine.epochs == {epoch: scalars_of(line_of(epoch)) for epoch in range(5)}
  assert len(told) == 1
  assert told[0].startswith("--wandb: epoch 2 could not be written: no route to host.")
  loggers.close()
  assert broken.closed
  assert fine.closed
  assert told[1:] == [
    "--wandb: the last epochs may be missing: gone.",
    "--wandb: 3 epochs could not be written.",
  ]


def test_tensorboard_reads_what_was_written(tmp_path):
  logger = TensorBoardLogger(tmp_path / "events")
  lines = [line_of(epoch) for epoch in range(3)]
  for line in lines:
    logger.write(line["epoch"], scalars_of(line))
    # without waiting for the end: a run may be killed
    assert read_scalars(tmp_path / "events") == as_float32(lines[: line["epoch"] + 1])
  logger.close()
  assert read_scalars(tmp_path / "events") == as_float32(lines)


def test_tensorboard_forgets_what_was_written_before(tmp_path):
  first = TensorBoardLogger(tmp_path)
  for epoch in range(4):
    first.write(epoch, {"x": 1.0})
  first.close()
  (file,) = tmp_path.iterdir()
  file.rename(tmp_path / "events.out.tfevents.0000000001")  # as of another second
  second = TensorBoardLogger(tmp_path)
  assert read_scalars(tmp_path) == {}
  for epoch in range(2):
    second.write(epoch, {"x": 2.0})
  second.close()
  assert read_scalars(tmp_path) == {0: {"x": 2.0}, 1: {"x": 2.0}}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_an_error_of_the_epoch(tmp_path, monkeypatch):
  from tensorboard.compat.tensorflow_stub.io import gfile

  logger = TensorBoardLogger(tmp_path)
  logger.write(0, {"x": 1.0})

  def append(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as full:
    full.setattr(gfile.LocalFileSystem, "append", append)
    with pytest.raises(OSError, match="No space left"):
      logger.write(1, {"x": 1.0})
  with pytest.raises(OSError, match="No space left"):  # it does not wait for ever
    logger.write(2, {"x": 1.0})
  logger.close()
  assert read_scalars(tmp_path) == {0: {"x": 1.0}}


class FakeRun:
  """A run of wandb: as the service does, it takes no step before the last."""

  def __init__(self, server: dict[str, dict[int, dict]], options: dict[str, Any]):
    offline = os.environ.get("WANDB_MODE") == "offline"
    self.id = options["id"] or f"new{len(server)}"
    self.options, self.offline, self.finished = options, offline, False
    # without a network nothing is known of the epochs of other processes
    self.history = server.setdefault(self.id, {})
    self.step = 0 if offline else max(self.history, default=-1) + 1

  def log(self, data: dict, *, step: int, commit: bool) -> None:
    assert commit
    assert step not in self.history, "sent twice"
    assert step >= self.step
    self.history[step] = data
    self.step = step + 1

  def finish(self) -> None:
    self.finished = True


@pytest.fixture
def wandb(monkeypatch):
  """A module in the place of wandb, with its server and its runs."""
  server: dict[str, dict[int, dict]] = {}
  runs: list[FakeRun] = []

  def init(
    *, project, id, name, config, allow_val_change, dir, resume, reinit, settings
  ) -> FakeRun:  # the arguments of the package's own that are used
    runs.append(FakeRun(server, dict(locals())))
    return runs[-1]

  fake = SimpleNamespace(
    init=init, Settings=lambda **options: options, server=server, runs=runs
  )
  monkeypatch.setitem(sys.modules, "wandb", fake)
  monkeypatch.delenv("WANDB_PROJECT", raising=False)
  monkeypatch.delenv("WANDB_MODE", raising=False)
  return fake


def start(folder: Path, told: list[str], **which: bool) -> Loggers:
  config = RunConfig(epochs=3, out=folder, **which)
  return open_loggers(config, folder, name="a run", report=told.append)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_wandb_goes_on_with_its_run(tmp_path, wandb, monkeypatch, mode):
  monkeypatch.setenv("WANDB_MODE", mode)
  told: list[str] = []
  lines = [line_of(epoch) for epoch in range(5)]
  loggers = start(tmp_path, told, wandb=True)
  for line in lines[:3]:
    loggers.write(line)
  loggers.close()
  (first,) = wandb.runs
  assert first.finished
  assert first.options["id"] is None
  assert first.options["name"] == "a run"
  assert first.options["project"] == "igb_jax"
  options = {
    **dataclasses.asdict(RunConfig(epochs=3, wandb=True)),
    "out": str(tmp_path),
  }
  assert first.options["config"] == json.loads(json.dumps(options))
  assert json.loads((tmp_path / "wandb.json").read_text()) == {
    "id": "new0",
    "epochs": 3,
  }

  # resumed after the second epoch: the third one is computed again
  monkeypatch.setenv("WANDB_PROJECT", "theirs")
  loggers = start(tmp_path, told, wandb=True)
  for line in lines:
    loggers.write(line)
  loggers.close()
  assert wandb.runs[1].options["id"] == "new0"
  assert wandb.runs[1].options["project"] == "theirs"
  assert wandb.server == {"new0": {line["epoch"]: scalars_of(line) for line in lines}}
  assert not told


def test_wandb_gets_what_the_service_has_not(tmp_path, wandb):
  told: list[str] = []
  loggers = start(tmp_path, told, wandb=True)
  for epoch in range(3):
    loggers.write(line_of(epoch))
  del wandb.server["new0"][2]  # killed before it was sent
  loggers = start(tmp_path, told, wandb=True)
  for epoch in range(4):
    loggers.write(line_of(epoch))
  assert [*wandb.server["new0"]] == [0, 1, 2, 3]
  assert not told


def test_a_logger_that_cannot_start_is_an_error(tmp_path, wandb):
  def init(**options):
    raise RuntimeError("api_key not configured (no-tty)")

  wandb.init = init
  told: list[str] = []
  with pytest.raises(LoggerError, match="--wandb could not start: api_key not conf"):
    start(tmp_path, told, tensorboard=True, wandb=True)
  assert read_scalars(tmp_path / "tensorboard") == {}
  (file,) = (tmp_path / "tensorboard").iterdir()
  with pytest.raises(LoggerError, match=r"--tensorboard could not start: .*directory"):
    start(file, told, tensorboard=True)
  (tmp_path / "wandb.json").write_text("{")
  with pytest.raises(LoggerError, match=r"wandb.json is damaged"):
    start(tmp_path, told, wandb=True)
  assert not told


def test_a_run_of_wandb_that_cannot_be_kept_is_finished(tmp_path, wandb, monkeypatch):
  def full(path, text):
    raise OSError(f"{path} could not be written")

  monkeypatch.setattr("igb_jax.training.loggers.write_whole", full)
  with pytest.raises(LoggerError, match=r"--wandb could not start: .*wandb\.json"):
    start(tmp_path, [], wandb=True)
  (begun,) = wandb.runs
  assert begun.finished


def test_nothing_is_asked_for_and_nothing_is_imported(tmp_path, monkeypatch):
  for package in ("tensorboard", "wandb"):
    monkeypatch.setitem(sys.modules, package, None)
  check_loggers(RunConfig())
  loggers = start(tmp_path, [])
  loggers.write(line_of(0))
  loggers.close()
  assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_package_that_is_missing(monkeypatch, package):
  monkeypatch.setitem(sys.modules, package, None)
  config = RunConfig(**{package: True})
  with pytest.raises(ValueError, match=f"--{package} needs the package") as caught:
    check_loggers(config)
  assert f"pip install 'igb-jax[{package}]'" in str(caught.value)


def test_of_several_processes_the_others_start_no_logger(tmp_path):
  folder = RunFolder(tmp_path / "run", writes=False)
  nothing: Any = None
  asking: Any = SimpleNamespace(config=RunConfig(tensorboard=True))
  loggers = run._start_loggers(asking, folder, nothing)
  folder.append_metrics(line_of(0))
  loggers.write(line_of(0))
  loggers.close()
  folder.close()
  assert not [*tmp_path.iterdir()]
