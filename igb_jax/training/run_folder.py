"""The folder of a run: config.json, metrics.jsonl, summary.json, checkpoints, plots."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RunFolder:
  """Writes what a run leaves behind; every file is complete or not there.

  Attributes:
    path: the folder.
  """

  def __init__(self, path: Path):
    """Creates the folder.

    Args:
      path: where the run goes; created with its parents.

    Raises:
      FileExistsError: the folder holds something already; nothing is overwritten.
      OSError: the folder cannot be created.
    """
    self.check(path)
    self.path = path
    (path / "plots").mkdir(parents=True)

  @staticmethod
  def check(path: Path) -> None:
    """Checks that a run may go to a folder, and changes nothing.

    Args:
      path: the folder.

    Raises:
      FileExistsError: it is no folder, or not empty.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
      raise FileExistsError(
        f"{path} is not empty; choose another --out, or remove what is there."
      )

  @property
  def checkpoints(self) -> Path:
    """Where the checkpoints go."""
    return self.path / "checkpoints"

  @property
  def plots(self) -> Path:
    """Where the plots go."""
    return self.path / "plots"

  def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
    """Writes a JSON file whole, or not at all.

    Args:
      name: of the file.
      content: what JSON can hold, and paths, which become strings; numbers that are
        not finite are refused.

    Returns:
      The file's path.

    Raises:
      ValueError: a number is not finite.
    """
    path = self.path / name
    partial = path.with_suffix(".partial")
    text = json.dumps(content, indent=2, allow_nan=False, default=os.fspath)
    partial.write_text(text + "\n")
    os.replace(partial, path)
    return path

  def append_metrics(self, line: Mapping[str, Any]) -> None:
    """Appends one line to metrics.jsonl.

    Args:
      line: what JSON can hold; numbers that are not finite are refused.

    Raises:
      ValueError: a number is not finite.
    """
    with (self.path / "metrics.jsonl").open("a") as file:
      file.write(json.dumps(line, allow_nan=False) + "\n")
