"""Caches: folders that one process prepares, and all others read.

A cache is complete if it has a manifest, which is written last and lists the files.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import filelock
import platformdirs

from igb_jax.data._processes import is_worker, say

_Result = TypeVar("_Result")

MANIFEST = "manifest.json"


def cache_root(folder: Path | None) -> Path:
  """The folder of all caches: as given, of the environment, or of the platform."""
  root = folder or os.environ.get("IGB_JAX_DATA")
  return Path(root or platformdirs.user_cache_path("igb_jax")).expanduser().absolute()


def read_only(folder: Path) -> bool:
  """Whether nobody can change a folder that exists."""
  return folder.is_dir() and not os.access(folder.parent, os.W_OK)


@contextlib.contextmanager
def naming(folder: Path, what: str) -> Iterator[None]:
  """Adds the folder to errors of the file system, which TFDS may disguise."""
  try:
    yield
  except (OSError, RuntimeError) as error:
    code = getattr(error, "errno", None) or errno.EIO
    reason = getattr(error, "strerror", None) or error
    message = f"cannot write the {what} cache ({reason})"
    raise OSError(code, message, str(folder)) from error


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
  """Keeps other processes from the folder, after waiting for them."""
  if is_worker():  # it would wait for the process that waits for it
    raise RuntimeError(
      "the processes that prepare the data run your script once more, to import it; "
      'put what it does under `if __name__ == "__main__":`, or prepare the data '
      "beforehand."
    )
  lock = filelock.FileLock(f"{folder}.lock")
  with naming(folder, what):
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
      lock.acquire(timeout=0)
    except filelock.Timeout:
      say(f"Waiting for another process that prepares or reads {folder}")
      lock.acquire()
  try:
    yield
  finally:
    lock.release()


class Manifest(Protocol):
  """What every manifest says: the cache's version, and a state of each file."""

  @property
  def version(self) -> int:
    """Version of what the cache holds."""
    ...

  @property
  def files(self) -> dict[str, Any]:
    """Relative path -> what differs where the file has changed."""
    ...


def states(folder: Path, state: Callable[[Path], Any]) -> dict[str, Any]:
  """The state of every file in the folder but the manifest, by relative path."""
  return {
    path.relative_to(folder).as_posix(): state(path)
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != MANIFEST
  }


def find_problem(
  folder: Path,
  read_manifest: Callable[[Path], Manifest],
  state: Callable[[Path], Any],
  version: int,
  fingerprint: str | None = None,
) -> str | None:
  """Says why a cache cannot be used, None if it can.

  Args:
    folder: The cache.
    read_manifest: Reads the manifest of a folder.
    state: What the manifest says of a file.
    version: The version that is needed.
    fingerprint: Of the source, where the manifest has one.
  """
  try:
    manifest = read_manifest(folder)
  except FileNotFoundError:
    return "it is not complete"
  except (ValueError, TypeError):
    return f"{MANIFEST} is damaged"
  if manifest.version != version:
    return f"it has version {manifest.version}, not {version}"
  if getattr(manifest, "fingerprint", None) != fingerprint:
    return "the source has changed"
  if manifest.files != states(folder, state):
    return "files are missing or damaged"
  return None


def prepared_once(
  folder: Path,
  what: str,
  problem_of: Callable[[Path], str | None],
  read: Callable[[Path], _Result],
  prepare: Callable[[Path], _Result],
  *,
  progress: bool,
) -> _Result:
  """Reads a cache, which is prepared first where it has a problem."""
  if read_only(folder) and problem_of(folder) is None:
    return read(folder)  # Nobody can change it, so it needs no lock.
  with locked(folder, what):
    problem = problem_of(folder)
    if problem is None:
      return read(folder)
    if folder.exists():
      say(f"Rebuilding the {what} cache in {folder}: {problem}")
    elif progress:
      say(f"Preparing the {what} cache in {folder}, once")
    return prepare(folder)


@contextlib.contextmanager
def emptied(folder: Path, what: str) -> Iterator[None]:
  """Removes a cache; errors of writing the next one name its folder."""
  with naming(folder, what):
    if folder.exists():
      shutil.rmtree(folder)
    yield


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
  """Completes a cache, in one step that cannot be half done."""
  unfinished = folder / f"{MANIFEST}.unfinished"
  unfinished.write_text(json.dumps(manifest, indent=2))
  unfinished.replace(folder / MANIFEST)
