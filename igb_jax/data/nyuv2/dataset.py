"""The scenes of NYUv2, read from their cache when they are asked for."""

import dataclasses
import itertools
import json
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
  _records: tuple[Sequence[dict[str, np.ndarray]], ...] = dataclasses.field(repr=False)
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
    index = position
    for records in self._records:
      if index < len(records):
        try:
          return decode(records[index])
        except Exception as error:  # of the reader, of TFDS or of zlib
          raise OSError(
            f"{self.folder}: scene {position} is damaged; remove the folder, so that "
            f"it is prepared again ({error})"
          ) from error
      index -= len(records)
    raise AssertionError

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
      if len(positions) and all(self._lacks(position, field) for position in positions)
    ]
    if problems:
      raise ValueError(
        f"the split {name} with the seed {seed} cannot be used: {'; '.join(problems)}. "
        "Take another seed of the split, more scenes (a larger `limit`, if there is "
        "one), or the split standard."
      )
    return parts

  def _lacks(self, position: int, field: str) -> bool:
    return field in self._lacking.get(self.names[position], ())


class Manifest(NamedTuple):
  """What a cache holds.

  Attributes:
    version: Version of the cache.
    fingerprint: Of the source.
    files: relative path -> bytes of each file.
    description: Of the source.
    size: Rows and columns.
    exact_depth: Whether depth is f32.
    names: part -> names of its scenes.
    lacking: name -> of label, depth and normal those that no pixel of the scene has;
      scenes that lack none are left out.
  """

  version: int
  fingerprint: str
  files: dict[str, int]
  description: str
  size: tuple[int, int]
  exact_depth: bool
  names: dict[str, list[str]]
  # older caches lack it; its default leaves them to the check of the version
  lacking: Mapping[str, Sequence[str]] = types.MappingProxyType({})


def read_manifest(folder: Path) -> Manifest:
  """Reads the manifest of a cache, and checks it."""
  manifest = Manifest(**json.loads((folder / _once.MANIFEST).read_text()))
  rows, columns = manifest.size
  if not isinstance(manifest.names, dict) or not {"train", "test"} <= {*manifest.names}:
    raise ValueError("parts are missing")
  if not isinstance(manifest.lacking, Mapping):
    raise ValueError("it does not say what scenes lack")
  return manifest._replace(size=(rows, columns))


def open_cache(folder: Path) -> NYUv2:
  """Opens a cache that is complete."""
  from igb_jax.data import _tfds

  manifest = read_manifest(folder)
  names = manifest.names
  return NYUv2(
    description=manifest.description,
    folder=folder,
    names=tuple(itertools.chain.from_iterable(names.values())),
    size=manifest.size,
    num_train=len(names["train"]),
    num_validation=len(names.get("validation", ())),
    num_test=len(names["test"]),
    _records=tuple(_tfds.open_records(folder, TFDS_NAME, names)),
    _lacking=manifest.lacking,
  )
