"""Checksums of a checkpoint, by which damage to its files is found."""

import hashlib
import json
import os
from pathlib import Path

CHECKSUMS = "checksums.json"


def sync(path: Path) -> None:
  """Waits until a file is on disk."""
  with path.open("rb") as file:
    os.fsync(file.fileno())


def checksums(folder: Path) -> dict[str, str]:
  """Name of each file of the items of a checkpoint -> its SHA-256."""
  sums = {}
  for path in sorted(folder.glob("*/**/*")):
    if path.is_file():
      with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
      sums[path.relative_to(folder).as_posix()] = digest
  return sums


def damage_of(folder: Path) -> str | None:
  """What is wrong with the checkpoint in a folder, or None."""
  try:
    expected = json.loads((folder / CHECKSUMS).read_text())
    found = checksums(folder)
  except (OSError, ValueError) as error:
    return f"{CHECKSUMS} cannot be read ({error})"
  if not isinstance(expected, dict):
    return f"{CHECKSUMS} has been changed"
  for name in sorted({*expected, *found}):
    if name not in found:
      return f"{name} is missing"
    if found[name] != expected.get(name):
      return f"{name} has been changed"
  return None
