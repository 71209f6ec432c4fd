"""Records of arrays as array_record files, written and read by TFDS.

Importing tensorflow_datasets takes a second, which the processes that prepare data
need not spend: import this module only where a cache is read or written.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Record = dict[str, np.ndarray]
Fields = Mapping[str, tuple[tuple[int | None, ...], Any]]
"""Name -> shape, None where it varies, and type of each array of a record."""

_VERSION = "1.0.0"


class _LocalInfo(tfds.core.DatasetInfo):
  """Information on a data set that is in no catalogue."""

  def initialize_from_bucket(self) -> None:
    """Does nothing: the inherited method asks a server that cannot know us."""


class _Records(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Stores the records of some parts, in order."""

  VERSION = tfds.core.Version(_VERSION)
  # TFDS would look beside the code for checksums of downloads, and for that needs
  # importlib_resources, which it does not require.
  code_path = None  # pyright: ignore[reportAssignmentType]

  def __init__(
    self, folder: Path, name: str, fields: Fields, parts: Mapping[str, Iterable[Record]]
  ) -> None:
    self.name = name  # pyright: ignore[reportAttributeAccessIssue]
    self._fields = fields
    self._parts = parts
    super().__init__(data_dir=folder, file_format="array_record")

  def _info(self) -> tfds.core.DatasetInfo:
    arrays = {
      name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")
      for name, (shape, dtype) in self._fields.items()
    }
    return _LocalInfo(
      builder=self,
      description="A cache of igb_jax.data.",
      features=tfds.features.FeaturesDict(arrays),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager
    return {part: self._generate_examples(part) for part in self._parts}

  def _generate_examples(self, part: str) -> Iterator[tuple[int, Record]]:
    yield from enumerate(self._parts[part])


def write_records(
  folder: Path, name: str, fields: Fields, parts: Mapping[str, Iterable[Record]]
) -> None:
  """Writes records as a TFDS data set, in a folder of its name.

  The parts are taken in turn; none of them may be empty.
  """
  tfds.disable_progress_bar()  # The caller shows one.
  builder = _Records(folder, name, fields, parts)
  with contextlib.redirect_stdout(io.StringIO()):  # Or TFDS reports a download.
    builder.download_and_prepare()


def open_records(
  folder: Path, name: str, parts: Iterable[str]
) -> list[Sequence[Record]]:
  """Opens parts that `write_records` wrote; records are read when asked for."""
  builder = tfds.builder_from_directory(folder / name / _VERSION)
  return [
    builder.as_data_source(part)  # pyright: ignore[reportCallIssue, reportReturnType]
    for part in parts
  ]
