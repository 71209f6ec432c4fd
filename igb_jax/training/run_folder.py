"""The folder of a run: config.json, metrics.jsonl, summary.json, checkpoints, plots."""

import contextlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from igb_jax.training.config import FREE_OPTIONS

_LOCK = "run.lock"
_UNNAMED = {"schedule": "plateau", "edge_dim": 128}  # what runs had before the option


class RunFolder:
  """Writes what a run leaves behind; every file is complete or not there.

  Attributes:
    path: the folder.
    writes: whether this process writes; of several only the first one does.
  """

  def __init__(self, path: Path, *, resumed: bool = False, writes: bool = True):
    """Creates the folder and locks it until `close`, if this process writes.

    It may hold something only where it is `resumed`, see `check_resumable`.

    Raises:
      FileExistsError: the folder holds something already, which is not overwritten, or
        another process is using it.
      OSError: the folder cannot be created.
    """
    self.path = path
    self.writes = writes
    self._lock = filelock.FileLock(path / _LOCK)
    if not writes:
      return
    if not resumed:
      self.check(path)
    with _naming(path):
      (path / "plots").mkdir(parents=True, exist_ok=True)
    try:
      self._lock.acquire(blocking=False)
    except filelock.Timeout:
      raise FileExistsError(
        f"another process is using {path}; wait for it to end, or stop it."
      ) from None

  def close(self) -> None:
    """Lets other processes use the folder."""
    self._lock.release()

  @staticmethod
  def check_writable(path: Path) -> None:
    """Checks that a folder is there, or can be made, and written in; changes nothing.

    Raises:
      NotADirectoryError: it is a file, or would have to lie in one.
      PermissionError: it, or the folder that it would be made in, may not be written.
    """
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
      raise NotADirectoryError(
        f"{path} cannot be a folder: {there} is a file; choose another --out."
      )
    if not os.access(there, os.W_OK | os.X_OK):
      raise PermissionError(
        f"{path} cannot be written: you have no permission to write in {there}; choose "
        "another --out."
      )

  @staticmethod
  def check(path: Path) -> None:
    """Checks that a run may go to a folder, and changes nothing.

    Raises:
      FileExistsError: it is not a folder, or not empty.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
      raise FileExistsError(
        f"{path} is not empty; choose another --out, remove what is there, or use "
        "--resume to continue the run that is there."
      )

  @classmethod
  def check_resumable(cls, path: Path, config: Mapping[str, Any]) -> None:
    """Checks that a run may be resumed or started in a folder, and changes nothing.

    The configuration of the run to resume is as `write_json` takes it.

    Raises:
      FileExistsError: it is not a folder, or holds something other than a run.
      ValueError: the run in it has other options than the free ones, or its config.json
        is damaged.
    """
    started = path / "config.json"
    if not started.exists():
      # by a run killed before it wrote its options
      begun = {"plots", "config.partial", _LOCK}
      if not (path.is_dir() and {each.name for each in path.iterdir()} <= begun):
        cls.check(path)
      return
    try:
      before = read_object(started)
    except ValueError as error:
      raise ValueError(
        f"{error} The checkpoints were not touched: replace the file with the "
        "config.json of a run with the same options, then resume."
      ) from error
    differences = differing_options(before, config)
    if differences:
      raise ValueError(
        f"--resume: the run of {started} has other options: {'; '.join(differences)}. "
        "Use the same options, or choose another --out."
      )

  @property
  def checkpoints(self) -> Path:
    """Where the checkpoints go."""
    return self.path / "checkpoints"

  def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
    """Writes a JSON file whole, or not at all; paths become strings.

    Returns:
      The file's path.

    Raises:
      ValueError: a number is not finite.
    """
    return self._write(name, _to_json(content, indent=2) + "\n")

  def write_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes metrics.jsonl whole, or not at all.

    Raises:
      ValueError: a number is not finite.
    """
    self._write("metrics.jsonl", "".join(_to_json(line) + "\n" for line in lines))

  def append_metrics(self, line: Mapping[str, Any]) -> None:
    """Appends one line to metrics.jsonl.

    Raises:
      ValueError: a number is not finite.
    """
    text = _to_json(line) + "\n"
    if self.writes:
      path = self.path / "metrics.jsonl"
      with _naming(path), path.open("a") as file:
        file.write(text)

  def _write(self, name: str, text: str) -> Path:
    path = self.path / name
    if self.writes:
      write_whole(path, text)
    return path


def write_whole(path: Path, text: str) -> None:
  """Writes a file whole, or not at all; line ends are kept as they are.

  Raises:
    OSError: it cannot be written; the message names it.
  """
  partial = path.with_suffix(".partial")
  with _naming(path):
    with partial.open("w", encoding="utf-8", newline="") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())  # before its name is that of the old one
    os.replace(partial, path)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
  """Names the file that cannot be written."""
  try:
    yield
  except OSError as error:
    raise OSError(
      f"{path} could not be written: {error.strerror or error}. Free some space, or "
      "check the permissions, and resume."
    ) from error


def read_object(path: Path) -> dict[str, Any]:
  """Reads a JSON file that holds an object.

  Raises:
    ValueError: it holds something else, or is damaged; the message names the file.
    OSError: it cannot be read.
  """
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is damaged: {error}.") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} is damaged: it holds no JSON object.")
  return content


def differing_options(
  before: Mapping[str, Any], now: Mapping[str, Any], free: Container[str] = FREE_OPTIONS
) -> list[str]:
  """What is other in the options of two runs, for a message.

  Args:
    before: options as they were read from JSON.
    now: options that are given, as `RunFolder.write_json` takes them.
    free: names of those that may differ.

  Example:
    >>> differing_options({"seed": 1, "keep": 1}, {"seed": 2, "keep": 3})
    ['seed was 1 and is 2']
    >>> differing_options({"epochs": 8}, {"epochs": 9, "schedule": "cosine"})
    ['schedule was "plateau" and is "cosine"', 'epochs was 8 and is 9']
  """
  now = json.loads(_to_json(now))
  plain = {name: name.removeprefix("experiment.") for name in now}  # of a comparison
  former = {name: _UNNAMED[plain[name]] for name in now if plain[name] in _UNNAMED}
  before = former | dict(before)
  fixed = {"epochs"} if now.get("schedule") == "cosine" else set()  # the cosine's end
  return [
    f"{name} was {json.dumps(before.get(name))} and is {json.dumps(now.get(name))}"
    for name in dict.fromkeys([*before, *now])
    if (name not in free or name in fixed) and before.get(name) != now.get(name)
  ]


def _to_json(content: Mapping[str, Any], **options: Any) -> str:
  return json.dumps(content, allow_nan=False, default=os.fspath, **options)
