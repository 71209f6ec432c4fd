"""The scenes of a run: NYUv2, or generated rooms in its place."""

import dataclasses
from typing import Any

from igb_jax.data import nyuv2
from igb_jax.data.rooms import Rooms
from igb_jax.data.scene_batches import Scenes


@dataclasses.dataclass(frozen=True)
class Source:
  """The scenes of a run.

  Attributes:
    name: the name of the data set.
    description: what they are and where they come from.
    scenes: all of them.
    split: which of them are for training, validation and testing.
    notice: what a reader of the results must know, or None.
  """

  name: str
  description: str
  scenes: Scenes
  split: nyuv2.Split
  notice: str | None


def load_scenes(config: Any) -> Source:
  """NYUv2 from its folder, or generated rooms where none is given.

  Args:
    config: the configuration of the run, with the options of `experiments.nyuv2`.

  Raises:
    ValueError: an option or a file is wrong.
    FileNotFoundError, OSError: the data cannot be obtained or stored.
  """
  if config.data_dir is None:
    train, validation, test = config.rooms
    count, (height, width) = sum(config.rooms), config.resolution
    return Source(
      "rooms",
      f"{count} generated rooms",
      Rooms(count, seed=config.split_seed, height=height, width=width),
      nyuv2.split(train, validation, test, config.split),
      "These are generated rooms, not NYUv2: the numbers are not comparable with "
      "published ones. --data-dir trains on NYUv2.",
    )
  data = nyuv2.load(config.data_dir, config.cache_dir, limit=config.limit)
  split = data.split(config.split, seed=config.split_seed)
  return Source("nyuv2", data.description, data, split, _what_differs(config, data))


def _what_differs(config: Any, data: nyuv2.NYUv2) -> str | None:
  differences = []
  if config.resolution != data.size:
    old, new = (
      f"{rows} x {columns}" for rows, columns in (data.size, config.resolution)
    )
    differences.append(f"scenes of {old} are resized to {new}")
  if config.limit is not None:
    differences.append(f"only {config.limit} scenes of each part are used")
  if "normals from depth" in data.description:
    differences.append("normals are derived from depth")
  if config.width != 1:
    differences.append(f"the network has {config.width:g} times the channels")
  if not differences:
    return None
  listed = ", ".join(differences)
  return f"The numbers are not comparable with published ones: {listed}."
