"""QM9 from its cache, which holds featurised molecules as array_record files."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from igb_jax.data import _once
from igb_jax.data._processes import say
from igb_jax.data.qm9._catalogue import read_catalogue
from igb_jax.data.qm9._featurising import Block, Record, featurise_all
from igb_jax.data.qm9.dataset import QM9
from igb_jax.data.qm9.qm9pack import read_qm9pack


def _digest(path: Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


# Raise the version with every change of what the cache holds, so that older ones are
# rebuilt.
_KIND = _once.Kind("QM9", version=1, state=_digest)
_NAME, _PART = "blocks", "molecules"

Source = Literal["qm9pack", "tfds"]
"""Where the molecules are from."""


def cache_folder(
  data_dir: Path | None = None,
  source: Source = "qm9pack",
  *,
  limit: int | None = None,
) -> Path:
  """Where `load`, with the same arguments, keeps what it has prepared.

  Args:
    data_dir: Folder of the cache, as for `load`.
    source: As for `load`.
    limit: As for `load`.

  Returns:
    The folder, whether it is there or not.

  Example:
    >>> cache_folder(Path("/data"), limit=100).as_posix()
    '/data/igb_qm9/qm9pack-limit100'
  """
  config = source if limit is None else f"{source}-limit{limit}"
  return _once.cache_root(data_dir) / "igb_qm9" / config


def load(
  data_dir: Path | None = None,
  source: Source = "qm9pack",
  *,
  limit: int | None = None,
  progress: bool = True,
) -> QM9:
  """Reads QM9 from the cache, which the first call prepares.

  The cache lies in the folder `igb_qm9` of `data_dir`, one folder for each source
  and limit. One that is damaged, half-written or of another version is prepared
  again. Processes that call this at once take turns.

  Args:
    data_dir: Folder of the cache; by default the environment variable
      `IGB_JAX_DATA`, or else the cache folder of the platform.
    source: `qm9pack`, a package with the data, or `tfds`, which is `qm9/original`
      of the TFDS catalogue, prepared beforehand in `data_dir` or where TFDS keeps
      its data.
    limit: Number of molecules to take, the first ones; None for all.
    progress: Whether to show how far the preparation is.

  Returns:
    The data set, validated.

  Raises:
    ValueError: If the source is unknown, the limit is not positive, or the source
      holds something other than molecules; names file, row and field, or the
      molecule.
    FileNotFoundError: If the source is not installed or not prepared.
    OSError: If the folder cannot be written; names the folder.
  """
  if source not in _READERS:
    raise ValueError(f"unknown source {source!r}, expected one of {list(_READERS)}")
  if limit is not None and limit < 1:
    raise ValueError(f"limit must be positive, got {limit}")
  root = _once.cache_root(data_dir)
  folder = cache_folder(data_dir, source, limit=limit)

  def prepare(folder: Path) -> QM9:
    records = sorted(_READERS[source](root, limit), key=lambda record: record.index)
    dataset = _write(folder, featurise_all(records, progress))
    if progress:
      counts = [f"{count} by {route}" for route, count in dataset.route_counts.items()]
      say(f"Found the bonds of {len(dataset)} molecules: {', '.join(counts)}")
    return dataset

  return _once.prepared_once(folder, _KIND, _read, prepare, progress=progress)


def _read(folder: Path) -> QM9:
  from igb_jax.data import _tfds

  (source,) = _tfds.open_records(folder, _NAME, [_PART])
  blocks = [source[i] for i in range(len(source))]
  fields = [field.name for field in dataclasses.fields(QM9)]
  dataset = QM9(**{name: np.concatenate([b[name] for b in blocks]) for name in fields})
  dataset.validate()
  return dataset


def _write(folder: Path, blocks: list[Block]) -> QM9:
  """Replaces the cache in a folder and reads it back."""
  from igb_jax.data import _tfds

  # A record is a block, not a molecule, since each takes some 50 microseconds to read.
  fields = {
    name: ((None, *array.shape[1:]), array.dtype) for name, array in blocks[0].items()
  }
  with _once.emptied(folder, _KIND):
    _tfds.write_records(folder, _NAME, fields, {_PART: blocks})
    # Read before the manifest is there, so that a failed write is never complete.
    dataset = _read(folder)
    _once.write_manifest(folder, _KIND)
  return dataset


_READERS: dict[str, Callable[[Path, int | None], list[Record]]] = {
  "qm9pack": lambda root, limit: read_qm9pack(limit),
  "tfds": read_catalogue,
}
