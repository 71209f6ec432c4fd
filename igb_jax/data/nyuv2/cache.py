"""NYUv2's cache: scenes as array_record files, whose records have checksums."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from igb_jax.data import _once, _processes
from igb_jax.data._processes import say
from igb_jax.data.nyuv2._checking import check_all, in_order
from igb_jax.data.nyuv2._records import NOTHING, prepare
from igb_jax.data.nyuv2.dataset import TFDS_NAME, NYUv2, check_manifest, open_cache
from igb_jax.data.nyuv2.sources import recognise
from igb_jax.data.nyuv2.types import PARTS, Part, SceneSource
from igb_jax.data.scene_coding import assumed


def _size(path: Path) -> int:
  return path.stat().st_size


# Raise the version with every change of what the cache holds, so that older ones are
# rebuilt.
_KIND = _once.Kind("NYUv2", version=4, state=_size, check=check_manifest)


def load(
  source: Path,
  cache_dir: Path | None = None,
  *,
  limit: int | None = None,
  progress: bool = True,
) -> NYUv2:
  """Opens the scenes of a folder or file, which the first call prepares.

  The cache lies in the folder `igb_nyuv2` of `cache_dir`, one folder for each source
  and limit. One that is damaged, half-written, of another version, or of files whose
  names, sizes or times have changed since is prepared again. Processes that call this
  at once take turns.

  Args:
    source: Folder or file in one of the formats of `igb_jax.data.nyuv2.sources`.
    cache_dir: Folder of the cache; by default the environment variable
      `IGB_JAX_DATA`, or else the cache folder of the platform.
    limit: Number of scenes to take of each part, the first ones; None for all.
    progress: Whether to show how far the preparation is.

  Returns:
    The scenes, all of one size.

  Raises:
    ValueError: If the limit is not positive, files are missing, damaged or hold
      something else, a part has no labels, no depth or no normals at all, or all
      files have another coding; names all of them (up to 20) with what is wrong.
    FileNotFoundError: If the source does not exist or has none of the formats.
    OSError: If the cache cannot be written; names its folder.
  """
  if limit is not None and limit < 1:
    raise ValueError(f"limit must be positive, got {limit}")
  found = recognise(source)
  if limit is not None:
    scenes = {part: files[:limit] for part, files in found.scenes.items()}
    description = f"{found.description}; of each part the first {limit} at most"
    found = dataclasses.replace(found, scenes=scenes, description=description)
  fingerprint = _fingerprint(found)

  def prepare_all(folder: Path) -> NYUv2:
    if progress:
      say(f"Found {found.description}")
    size, signs = check_all(found, progress)
    source = found
    if note := assumed(found.kind, signs):
      say(f"{found.path}: {note}")
      source = dataclasses.replace(found, description=f"{found.description}; {note}")
    return _write(folder, source, size, fingerprint, progress)

  folder = _once.cache_root(cache_dir) / "igb_nyuv2" / _config(found.path, limit)
  return _once.prepared_once(
    folder, _KIND, open_cache, prepare_all, fingerprint=fingerprint, progress=progress
  )


def _config(path: Path, limit: int | None) -> str:
  """Name of the folder for a source and limit."""
  digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
  name = f"{path.stem or 'source'}-{digest}"
  return name if limit is None else f"{name}-limit{limit}"


def _fingerprint(source: SceneSource) -> str:
  """SHA-256 of the names, sizes and times of all files of a source.

  Files that are not there, such as links to nowhere, are left to the checks.
  """
  digest = hashlib.sha256(source.kind.encode())
  for path in sorted(source.files):
    try:
      status = path.stat()
      state = f"{status.st_size}\0{status.st_mtime_ns}"
    except OSError:
      state = "absent"
    name = os.fsencode(path.relative_to(source.path.parent))
    digest.update(b"%b\0%b\0" % (name, state.encode()))
  return digest.hexdigest()


def _write(
  folder: Path,
  source: SceneSource,
  size: tuple[int, int],
  fingerprint: str,
  progress: bool,
) -> NYUv2:
  """Replaces the cache in a folder and opens it."""
  from igb_jax.data import _tfds

  depth_type = np.float32 if source.exact_depth else np.uint16
  fields = {
    "image": ((*size, 3), np.uint8),
    "label": (size, np.uint8),
    "depth": (size, depth_type),
    "normal": ((*size, 3), np.int16),
  }
  scenes = in_order(source)
  encode = functools.partial(prepare, exact_depth=source.exact_depth)
  prepared = _processes.on_all_cores(encode, scenes)
  if progress:
    prepared = _processes.shown(prepared, "Preparing", len(scenes), "scenes")
  failures: list[Exception] = []
  lacking: dict[str, list[str]] = {}  # by name, what no pixel of a scene has
  names: dict[Part, list[str]] = {
    part: [scene.name for scene in source.scenes[part]]
    for part in PARTS
    if source.scenes.get(part)
  }

  def records(part: Part) -> Iterator[dict[str, np.ndarray]]:
    try:
      # The names come first, so that no record of the next part is taken.
      for name, record in zip(names[part], prepared, strict=False):
        lacks = [key for key, none in NOTHING.items() if (record[key] == none).all()]
        if lacks:
          lacking[name] = lacks
        yield record
    except Exception as error:
      failures.append(error)
      raise

  try:
    with _once.emptied(folder, _KIND), contextlib.closing(prepared):
      _tfds.write_records(
        folder, TFDS_NAME, fields, {part: records(part) for part in names}
      )
      _once.write_manifest(
        folder,
        _KIND,
        fingerprint=fingerprint,
        description=source.description,
        size=size,
        exact_depth=source.exact_depth,
        names=names,
        lacking=lacking,
      )
  except Exception:
    if failures:
      raise failures[0] from None  # and not what TFDS made of it.
    raise
  return open_cache(folder)
