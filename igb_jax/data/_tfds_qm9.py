"""The TFDS side of QM9: our array_record cache, and the catalogue's `qm9`.

Kept apart from `igb_jax.data.qm9`, since importing tensorflow_datasets takes a
second, which the processes that featurise need not spend.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_Block = dict[str, np.ndarray]


class _LocalInfo(tfds.core.DatasetInfo):
  """Information on a data set that is in no catalogue."""

  def initialize_from_bucket(self) -> None:
    """Does nothing: the inherited method asks a server that cannot know us."""


class QM9Blocks(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Stores blocks of featurised molecules as array_record files.

  One record holds a block, not a molecule: reading a record costs some 50
  microseconds whatever its size, and everything is read at once.

  Attributes:
    blocks: What `download_and_prepare` writes, in this order; set it before.
  """

  name = "blocks"
  VERSION = tfds.core.Version("1.0.0")
  # TFDS would look beside the code for checksums of downloads, and for that needs
  # importlib_resources, which it does not require.
  code_path = None  # pyright: ignore[reportAssignmentType]

  blocks: Iterable[_Block] = ()

  def _info(self) -> tfds.core.DatasetInfo:
    def array(shape: tuple[int | None, ...], dtype: Any) -> tfds.features.Tensor:
      return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")

    return _LocalInfo(
      builder=self,
      description="QM9 molecules with bonds, see igb_jax.data.qm9.QM9.",
      features=tfds.features.FeaturesDict(
        {
          "index": array((None,), np.int32),
          "num_atoms": array((None,), np.int32),
          "nodes": array((None, 11), np.uint8),
          "positions": array((None, 3), np.float32),
          "bonds": array((None,), np.uint8),
          "targets": array((None, 11), np.float32),
          "routes": array((None,), np.uint8),
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager
    return {"molecules": self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, _Block]]:
    yield from enumerate(self.blocks)


def write_blocks(folder: Path, blocks: Iterable[_Block]) -> None:
  """Writes blocks as a TFDS data set of its own into a folder."""
  tfds.disable_progress_bar()  # It counts blocks; the caller shows molecules.
  builder = QM9Blocks(data_dir=folder, file_format="array_record")
  builder.blocks = blocks
  with contextlib.redirect_stdout(io.StringIO()):  # Or TFDS tells of a download.
    builder.download_and_prepare()


def read_blocks(folder: Path) -> list[_Block]:
  """Reads back what `write_blocks` wrote, in the same order."""
  builder = QM9Blocks(data_dir=folder)
  source = builder.as_data_source("molecules")  # pyright: ignore[reportCallIssue]
  return [source[i] for i in range(len(source))]


def read_catalogue(root: Path, limit: int | None) -> list[dict[str, Any]]:
  """Reads `qm9/original` of the TFDS catalogue, prepared by the user.

  Args:
    root: Folder to look in before TFDS's own.
    limit: Number of examples, None for all.

  Returns:
    Examples as the catalogue documents them.

  Raises:
    FileNotFoundError: If it is not prepared, or not as array_record files.
  """
  data_dir = root if (root / "qm9" / "original").is_dir() else None
  builder = tfds.builder("qm9/original", data_dir=data_dir)
  try:
    source = builder.as_data_source("train")  # pyright: ignore[reportCallIssue]
  except (AssertionError, NotImplementedError, ValueError) as error:
    raise FileNotFoundError(
      f"the TFDS data set qm9/original is not prepared as array_record files in "
      f"{builder.data_path}. Prepare it with:\n"
      "  pip install importlib_resources\n"
      '  python -c "import tensorflow_datasets as tfds; '
      "tfds.builder('qm9/original', file_format='array_record')"
      '.download_and_prepare()"\n'
      "or use the source qm9pack, which needs no preparation."
    ) from error
  count = len(source) if limit is None else min(limit, len(source))
  return [source[i] for i in range(count)]
