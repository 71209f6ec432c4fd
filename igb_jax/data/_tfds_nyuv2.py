"""The TFDS side of NYUv2: scenes as array_record files, for reading at random.

Kept apart from `igb_jax.data.nyuv2`, since importing tensorflow_datasets takes a
second, which the processes that prepare scenes need not spend.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Record = dict[str, np.ndarray]
"""image u8[H, W, 3], label u8[H, W], depth u16 or f32[H, W], normal i16[H, W, 3]."""


class _LocalInfo(tfds.core.DatasetInfo):
  """Information on a data set that is in no catalogue."""

  def initialize_from_bucket(self) -> None:
    """Does nothing: the inherited method asks a server that cannot know us."""


class SceneRecords(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Stores one scene a record.

  Attributes:
    parts: part -> what `download_and_prepare` writes, in this order; set it before.
  """

  name = "scenes"
  VERSION = tfds.core.Version("1.0.0")
  # TFDS would look beside the code for checksums of downloads, and for that needs
  # importlib_resources, which it does not require.
  code_path = None  # pyright: ignore[reportAssignmentType]

  def __init__(self, folder: Path, size: tuple[int, int], exact_depth: bool) -> None:
    self._size = size
    self._depth_dtype = np.float32 if exact_depth else np.uint16
    self.parts: Mapping[str, Iterable[Record]] = {}
    super().__init__(data_dir=folder, file_format="array_record")

  def _info(self) -> tfds.core.DatasetInfo:
    def array(channels: tuple[int, ...], dtype: Any) -> tfds.features.Tensor:
      shape = (*self._size, *channels)
      return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")

    return _LocalInfo(
      builder=self,
      description="Scenes of NYUv2, see igb_jax.data.nyuv2.",
      features=tfds.features.FeaturesDict(
        {
          "image": array((3,), np.uint8),
          "label": array((), np.uint8),
          "depth": array((), self._depth_dtype),
          "normal": array((3,), np.int16),
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager
    return {part: self._generate_examples(part) for part in self.parts}

  def _generate_examples(self, part: str) -> Iterator[tuple[int, Record]]:
    yield from enumerate(self.parts[part])


def write_scenes(
  folder: Path,
  size: tuple[int, int],
  exact_depth: bool,
  parts: Mapping[str, Iterable[Record]],
) -> None:
  """Writes scenes as a TFDS data set of its own into a folder.

  Args:
    folder: Where to write.
    size: Rows and columns.
    exact_depth: Whether depth is f32, not u16.
    parts: part -> its records, none of the parts empty; taken one after the other.
  """
  tfds.disable_progress_bar()  # The caller shows one.
  builder = SceneRecords(folder, size, exact_depth)
  builder.parts = parts
  with contextlib.redirect_stdout(io.StringIO()):  # Or TFDS tells of a download.
    builder.download_and_prepare()


def open_scenes(
  folder: Path, size: tuple[int, int], exact_depth: bool, parts: Iterable[str]
) -> dict[str, Sequence[Record]]:
  """Opens what `write_scenes` wrote.

  Returns:
    part -> its records, read when they are asked for.
  """
  builder = SceneRecords(folder, size, exact_depth)
  return {
    part: builder.as_data_source(part)  # pyright: ignore[reportCallIssue, reportReturnType]
    for part in parts
  }
