"""The scenes of NYUv2, read from their cache when they are asked for."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from igb_jax.data import _once
from igb_jax.data.nyuv2._checking import TASK_OF_FIELD
from igb_jax.data.nyuv2._records import decode
from igb_jax.data.nyuv2.splitting import Split, SplitName, split
from igb_jax.data.scene import Scene

TFDS_NAME = "scenes"


@dataclasses.dataclass(frozen=True, eq=False)
class NYUv2:
  """Scenes that are read when they are asked for, training scenes first.

  Pickled, it is opened anew from its folder, which must be there still.

  Attributes:
    description: What was found where, for the user.
    folder: Where they are cached.
    names: Part and name of each scene in the source, such as `train/0003`.
    size: Rows and columns of all images.
    num_train: Number of training scenes.
    num_validation: Number of the source's own validation scenes, most often 0.
    num_test: Number of test scenes.
  """

  description: str
  folder: Path
  names: tuple[str, ...] = dataclasses.field(repr=False)
  size: tuple[int, int]
  num_train: int
  num_validation: int
  num_test: int
  _places: Sequence[tuple[Sequence[dict[str, np.ndarray]], int]] = dataclasses.field(
    repr=False
  )
  _lacking: Mapping[str, Sequence[str]] = dataclasses.field(repr=False)

  def __len__(self) -> int:
    """Number of scenes."""
    return len(self.names)

  def __getitem__(self, position: int) -> Scene:
    """Reads the scene at a position, 0 to the number of scenes - 1.

    Raises:
      IndexError: If there is no such position.
      OSError: If the cache is damaged; names its folder.
    """
    if not 0 <= position < len(self):
      raise IndexError(f"no scene {position}, there are {len(self)}")
    records, index = self._places[position]
    try:
      return decode(records[index])
    except Exception as error:  # of the reader, of TFDS or of zlib
      raise OSError(
        f"{self.folder}: scene {position} is damaged; remove the folder, so that it is "
        f"prepared again ({error})"
      ) from error

  def __reduce__(self) -> tuple[Callable[[Path], "NYUv2"], tuple[Path]]:
    """Pickles the folder alone, since TFDS's readers cannot be pickled."""
    return open_cache, (self.folder,)

  def split(self, name: SplitName = "standard", *, seed: int = 0) -> Split:
    """Says which scenes are for what: `nyuv2.split` with the numbers of these.

    Raises:
      ValueError: As `nyuv2.split`, or if all scenes of a part lack the labels, depth or
        normals that a task needs.
    """
    parts = split(self.num_train, self.num_validation, self.num_test, name, seed=seed)
    problems = [
      f"none of its {len(positions)} {part} scenes has a pixel with a {field}, which "
      f"the task {task} needs"
      for part, positions in vars(parts).items()
      for field, task in TASK_OF_FIELD.items()
      if len(positions)
      and all(field in self._lacking.get(self.names[i], ()) for i in positions)
    ]
    if problems:
      raise ValueError(
        f"the split {name} with the seed {seed} cannot be used: {'; '.join(problems)}. "
        "Take another seed of the split, more scenes (a larger `limit`, if there is "
        "one), or the split standard."
      )
    return parts


def check_manifest(manifest: dict[str, Any]) -> None:
  """Raises an error for a manifest that `open_cache` cannot use."""
  names, lacking = manifest["names"], manifest["lacking"]
  if not isinstance(names, dict) or not {"train", "test"} <= {*names}:
    raise ValueError("parts are missing")
  if not isinstance(lacking, dict) or "description" not in manifest:
    raise ValueError("it does not say what the scenes are")
  if len(manifest["size"]) != 2:
    raise ValueError("the size is not of rows and columns")


def open_cache(folder: Path) -> NYUv2:
  """Opens a cache that is complete."""
  from igb_jax.data import _tfds

  manifest = _once.read_manifest(folder)
  rows, columns = manifest["size"]
  names: dict[str, list[str]] = manifest["names"]
  return NYUv2(
    description=manifest["description"],
    folder=folder,
    names=tuple(itertools.chain.from_iterable(names.values())),
    size=(rows, columns),
    num_train=len(names["train"]),
    num_validation=len(names.get("validation", ())),
    num_test=len(names["test"]),
    _places=[
      (records, index)
      for records in _tfds.open_records(folder, TFDS_NAME, names)
      for index in range(len(records))
    ],
    _lacking=manifest["lacking"],
  )
