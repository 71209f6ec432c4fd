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
from typing import Any, NamedTuple, TypeVar

import filelock
import platformdirs

from igb_jax.data._processes import is_worker, say

_Result = TypeVar("_Result")

MANIFEST = "manifest.json"


def cache_root(folder: Path | None) -> Path:
  """The folder of all caches: as given, of the environment, or of the platform."""
  root = folder or os.environ.get("IGB_JAX_DATA")
  return Path(root or platformdirs.user_cache_path("igb_jax")).expanduser().absolute()


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
      "data preparation starts processes that re-import your script; put its code "
      'under `if __name__ == "__main__":`, or prepare the data beforehand.'
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


class Kind(NamedTuple):
  """What the caches of one data set have in common.

  Attributes:
    what: Name of the data set, for the user.
    version: Version of what they hold; caches of other versions are prepared anew.
    state: What the manifest says of a file, which differs where the file has changed.
    check: Raises `ValueError`, `TypeError` or `KeyError` for a damaged manifest.
  """

  what: str
  version: int
  state: Callable[[Path], Any]
  check: Callable[[dict[str, Any]], None] = lambda manifest: None


def read_manifest(folder: Path) -> dict[str, Any]:
  """The manifest of a cache: its version, the state of its files, and more."""
  return json.loads((folder / MANIFEST).read_text())


def _states(folder: Path, kind: Kind) -> dict[str, Any]:
  """The state of every file in the folder but the manifest, by relative path."""
  return {
    path.relative_to(folder).as_posix(): kind.state(path)
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != MANIFEST
  }


def find_problem(
  folder: Path, kind: Kind, fingerprint: str | None = None
) -> str | None:
  """Says why a cache of a source, which may have a fingerprint, cannot be used."""
  try:
    manifest = read_manifest(folder)
    if manifest["version"] != kind.version:
      return f"it has version {manifest['version']}, not {kind.version}"
    if manifest.get("fingerprint") != fingerprint:
      return "the source has changed"
    kind.check(manifest)
    if manifest["files"] != _states(folder, kind):
      return "files are missing or damaged"
  except FileNotFoundError:
    return "it is not complete"
  except (ValueError, TypeError, KeyError):
    return f"{MANIFEST} is damaged"
  return None


def prepared_once(
  folder: Path,
  kind: Kind,
  read: Callable[[Path], _Result],
  prepare: Callable[[Path], _Result],
  *,
  fingerprint: str | None = None,
  progress: bool,
) -> _Result:
  """Reads a cache, which is prepared first where it has a problem."""
  cannot_change = folder.is_dir() and not os.access(folder.parent, os.W_OK)
  if cannot_change and find_problem(folder, kind, fingerprint) is None:
    return read(folder)  # nobody can change it, so it needs no lock
  with locked(folder, kind.what):
    problem = find_problem(folder, kind, fingerprint)
    if problem is None:
      return read(folder)
    if folder.exists():
      say(f"Rebuilding the {kind.what} cache in {folder}: {problem}")
    elif progress:
      say(f"Preparing the {kind.what} cache in {folder}, once")
    return prepare(folder)


@contextlib.contextmanager
def emptied(folder: Path, kind: Kind) -> Iterator[None]:
  """Removes a cache; errors of writing the next one name its folder."""
  with naming(folder, kind.what):
    if folder.exists():
      shutil.rmtree(folder)
    yield


def write_manifest(folder: Path, kind: Kind, **more: Any) -> None:
  """Completes a cache, in one step that cannot be half done."""
  manifest = {"version": kind.version, "files": _states(folder, kind), **more}
  unfinished = folder / f"{MANIFEST}.unfinished"
  unfinished.write_text(json.dumps(manifest, indent=2))
  unfinished.replace(folder / MANIFEST)
