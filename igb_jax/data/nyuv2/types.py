"""What a source of scenes is, whatever its format."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from igb_jax.data.scene import RawScene

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Reading(NamedTuple):
  """What came of reading a scene.

  Attributes:
    scene: None if there are problems.
    problems: What is wrong, each beginning with the name of the file.
  """

  scene: RawScene | None
  problems: tuple[str, ...]


class SceneFile(NamedTuple):
  """A scene in its source; picklable, so that any process can read it.

  Attributes:
    name: Part and name, such as `train/0003`.
    read: Reads and checks the scene, without raising for what is wrong with it.
  """

  name: str
  read: Callable[[], Reading]


@dataclasses.dataclass(frozen=True)
class SceneSource:
  """Scenes that were recognised.

  Attributes:
    path: Folder or file.
    kind: Format.
    description: What was found, for the user.
    scenes: part -> its scenes, in order.
    files: Every file that they are made of or that lies among those.
    exact_depth: Whether depth is floating point in the source, not millimetres.
    problems: What is wrong already, before a scene is read.
  """

  path: Path
  kind: Literal["arrays", "mat", "images"]
  description: str
  scenes: dict[Part, tuple[SceneFile, ...]]
  files: tuple[Path, ...]
  exact_depth: bool
  problems: tuple[str, ...]


def describe(where: str, scenes: dict[Part, tuple[SceneFile, ...]], *notes: str) -> str:
  """Describes what was found, for the user."""
  counts = [f"{len(scenes[part])} {part}" for part in PARTS if scenes.get(part)]
  return f"{where}: {', '.join(counts)} scenes; {'; '.join(notes)}"
