"""Loggers: the numbers of metrics.jsonl for TensorBoard and Weights & Biases as well.

    line of metrics.jsonl -> scalars, name -> number -> every logger that was asked for

They are given an epoch at a time, between epochs, and write or send by themselves. A
logger that cannot start is an error before the first step. One that fails later is
reported the first time, and the epochs that it missed are counted: training continues,
as metrics.jsonl has every number anyway.
"""

import dataclasses
import importlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from igb_jax.training.config import LOGGERS, RunConfig
from igb_jax.training.run_folder import read_object, write_whole

_PROJECT = "igb_jax"  # of Weights & Biases, unless $WANDB_PROJECT names another
_FLUSH_SECONDS = 1e6  # never: every epoch is flushed when it is written


class LoggerError(OSError):
  """A logger could not start."""


class TensorBoardLogger:
  """Writes an event file, an event an epoch, that TensorBoard shows."""

  def __init__(self, folder: Path):
    """Begins another file in a folder; TensorBoard forgets those before it.

    So a run that is resumed writes all of its epochs once more, and none is there
    twice, whatever a killed process had written.

    Raises:
      ImportError: the package tensorboard is not installed.
      OSError: the file cannot be written.
    """
    files = importlib.import_module("tensorboard.summary.writer.event_file_writer")
    self._event = importlib.import_module("tensorboard.compat.proto.event_pb2")
    self._summary = importlib.import_module("tensorboard.compat.proto.summary_pb2")
    self._file = files.EventFileWriter(str(folder), flush_secs=_FLUSH_SECONDS)
    start = self._event.SessionLog(status=self._event.SessionLog.START)
    self._add(0, session_log=start)

  def write(self, epoch: int, scalars: Mapping[str, float]) -> None:
    """Writes an epoch's scalars as one event, at the step `epoch`, as float32.

    Raises:
      OSError: this epoch, or one before, could not be written.
    """
    value = self._summary.Summary.Value
    values = [value(tag=name, simple_value=number) for name, number in scalars.items()]
    self._add(epoch, summary=self._summary.Summary(value=values))

  def close(self) -> None:
    """Ends the file."""
    self._file.close()

  def _add(self, step: int, **content: Any) -> None:
    event = self._event.Event(step=step, wall_time=time.time(), **content)
    self._file.add_event(event)
    self._file.flush()  # also raises what went wrong in the thread that writes


class WandbLogger:
  """Sends scalars to a run of Weights & Biases, which a resumed run continues."""

  def __init__(self, folder: Path, *, name: str, config: RunConfig):
    """Begins a run, or continues the one whose id is in the folder.

    Args:
      folder: the folder of the run; its file wandb.json keeps the id and how many
        epochs were handed over.
      name: the name of a new run.
      config: the configuration of the run.

    Raises:
      ImportError: the package wandb is not installed.
      ValueError: wandb.json is damaged.
      OSError: wandb.json cannot be written.
      Exception: wandb cannot begin the run, for want of a login or a network.
    """
    wandb = importlib.import_module("wandb")
    self._path = folder / "wandb.json"
    before = read_object(self._path) if self._path.exists() else {}
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT") or _PROJECT,
      id=before.get("id"),
      name=name,
      config=json.loads(json.dumps(dataclasses.asdict(config), default=os.fspath)),
      allow_val_change=True,  # some options of a resumed run may differ
      dir=folder,
      resume="allow",
      reinit="create_new",  # seeds that are trained at once have a run each
      settings=wandb.Settings(console="off"),  # the progress bar is no log
    )
    try:
      # what was not sent is sent again; without a network nobody else knows of it
      is_offline = self._run.offline
      self._num_epochs = before.get("epochs", 0) if is_offline else self._run.step
      self._keep()
    except Exception:
      self._run.finish()
      raise

  def write(self, epoch: int, scalars: Mapping[str, float]) -> None:
    """Sends an epoch's scalars, at the step `epoch`, unless they are there."""
    if epoch < self._num_epochs:
      return
    self._run.log(dict(scalars), step=epoch, commit=True)
    self._num_epochs = epoch + 1
    self._keep()

  def close(self) -> None:
    """Waits until all is sent."""
    self._run.finish()

  def _keep(self) -> None:
    content = {"id": self._run.id, "epochs": self._num_epochs}
    write_whole(self._path, json.dumps(content) + "\n")


class Loggers:
  """All loggers of a run; what goes wrong in one stops neither the others nor the run.

  Attributes:
    missed: option of a logger -> number of epochs that it could not write.
  """

  def __init__(
    self,
    loggers: Mapping[str, TensorBoardLogger | WandbLogger],
    report: Callable[[str], None],
  ):
    """Takes option -> logger; `report` takes a line for the user."""
    self._loggers = loggers
    self._report = report
    self.missed: Counter[str] = Counter()

  def write(self, line: Mapping[str, Any]) -> None:
    """Gives every logger a line of metrics.jsonl."""
    scalars = scalars_of(line)
    for option, logger in self._loggers.items():
      try:
        logger.write(line["epoch"], scalars)
      except Exception as error:  # whatever a disk, a network or a library raises
        if not self.missed[option]:
          self._report(
            f"{option}: epoch {line['epoch'] + 1} could not be written: "
            f"{_reason(error)}. Training continues; metrics.jsonl has every epoch."
          )
        self.missed[option] += 1

  def close(self) -> None:
    """Ends them all, and says how many epochs they missed."""
    for option, logger in self._loggers.items():
      try:
        logger.close()
      except Exception as error:  # as above
        self._report(f"{option}: the last epochs may be missing: {_reason(error)}.")
      if self.missed[option]:
        self._report(f"{option}: {self.missed[option]} epochs could not be written.")


def scalars_of(line: Mapping[str, Any]) -> dict[str, float]:
  """The numbers in a line of metrics.jsonl, as `results.metrics_line` makes it.

  The names of what is in a dict or a list follow after a slash; a list has a number for
  each task, and a matrix is symmetric, with ones on its diagonal: each pair of tasks is
  named once. Left out are the number of the epoch, which is the scalars' step, words,
  and what is null.

  Example:
    >>> line = {
    ...   "epoch": 3, "losses": {"a": 1.0, "b": None}, "gradient_weights": [0.5, 1.5],
    ...   "gradient_cosines": [[1.0, -0.25], [-0.25, 1.0]], "conflict_share": 1.0}
    >>> for name, value in scalars_of(line).items():
    ...   print(name, value)
    losses/a 1.0
    gradient_weights/a 0.5
    gradient_weights/b 1.5
    gradient_cosines/a/b -0.25
    conflict_share 1.0
  """
  tasks = list(line["losses"])

  def parts(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
      for key, part in value.items():
        yield from parts(f"{name}/{key}", part)
    elif isinstance(value, list):
      for task, (key, part) in enumerate(zip(tasks, value, strict=True)):
        if isinstance(part, list):
          part = dict(zip(tasks[task + 1 :], part[task + 1 :], strict=True))
        yield from parts(f"{name}/{key}", part)
    elif isinstance(value, int | float):
      yield name, float(value)

  rest = {name: value for name, value in line.items() if name != "epoch"}
  return {name: value for key in rest for name, value in parts(key, rest[key])}


def check_loggers(config: RunConfig) -> None:
  """Checks that the packages of the loggers that are asked for are installed.

  Raises:
    ValueError: one is not; the message has the command that installs it.
  """
  for package in LOGGERS:
    if not getattr(config, package):
      continue
    try:
      importlib.import_module(package)
    except ImportError as error:
      raise ValueError(
        f"--{package} needs the package {package}, which cannot be imported ({error}): "
        f"pip install 'igb-jax[{package}]', or pip install -e '.[{package}]' in a "
        "checkout."
      ) from error


def open_loggers(
  config: RunConfig, folder: Path, *, name: str, report: Callable[[str], None]
) -> Loggers:
  """Starts the loggers that are asked for.

  `name` is that of the run where several are shown; `report` takes a line for the user.

  Raises:
    LoggerError: one could not start; the others are closed.
  """
  started: dict[str, TensorBoardLogger | WandbLogger] = {}
  option = ""
  try:
    if config.tensorboard:
      option = "--tensorboard"
      started[option] = TensorBoardLogger(folder / "tensorboard")
    if config.wandb:
      option = "--wandb"
      started[option] = WandbLogger(folder, name=name, config=config)
  except Exception as error:  # whatever a disk, a network or a library raises
    Loggers(started, report).close()
    raise LoggerError(
      f"{option} could not start: {_reason(error)}. Fix this, or leave the option out, "
      "and resume."
    ) from error
  return Loggers(started, report)


def _reason(error: Exception) -> str:
  """What went wrong, without the last full stop."""
  return (str(error) or type(error).__name__).rstrip(".")
