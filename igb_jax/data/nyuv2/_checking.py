"""Checks of all scenes of a source, in processes of their own."""

import collections
from typing import NamedTuple

from igb_jax.data import _processes
from igb_jax.data.nyuv2._files import by
from igb_jax.data.nyuv2._records import prepare
from igb_jax.data.nyuv2.types import PARTS, SceneFile, SceneSource
from igb_jax.data.scene_coding import Sign, misread, signs_of

TASK_OF_FIELD = {"label": "segmentation", "depth": "depth", "normal": "normal"}

_MOST_PROBLEMS = 20  # that are printed.


def in_order(source: SceneSource) -> list[SceneFile]:
  """All scenes of a source, part by part."""
  return [scene for part in PARTS for scene in source.scenes.get(part, ())]


class _Checked(NamedTuple):
  """What came of checking a scene.

  Attributes:
    size: Rows and columns, None if there are problems.
    signs: What some pixel has; not a normal, if normals are to be derived.
    problems: What is wrong, each beginning with the name of the file.
  """

  size: tuple[int, int] | None
  signs: frozenset[Sign]
  problems: tuple[str, ...]


def _check(scene: SceneFile) -> _Checked:
  raw, problems = scene.read()
  if raw is None:
    return _Checked(None, frozenset(), problems)
  rows, columns = raw.depth.shape
  return _Checked((rows, columns), signs_of(raw), problems)


def check_all(
  source: SceneSource, progress: bool
) -> tuple[tuple[int, int], frozenset[Sign]]:
  """Checks all scenes and returns their size, and the signs of how they are coded.

  Raises:
    ValueError: If something is wrong with any, sizes differ, a part has nothing of a
      task, all have another coding, or a process that checks them dies.
  """
  scenes = in_order(source)
  results = _processes.on_all_cores(_check, scenes)
  if progress:
    results = _processes.shown(results, "Checking", len(scenes), "scenes")
  try:
    checked = dict(zip((scene.name for scene in scenes), results, strict=True))
  except RuntimeError as error:
    raise ValueError(
      f"{source.path}: while its files were checked, {error} A damaged file may also "
      "have crashed its reader."
    ) from error
  problems = list(source.problems)
  for result in checked.values():
    problems += result.problems
  sizes = {name: c.size for name, c in checked.items() if c.size}
  usual = collections.Counter(sizes.values()).most_common(1)
  problems += [
    f"{name}: {by(size)}, but most are {by(usual[0][0])}"
    for name, size in sizes.items()
    if size != usual[0][0]
  ]
  for part in source.scenes.values():
    if part and all(scene.name in sizes for scene in part):
      problems += _find_unknown(part, checked)
  signs = frozenset[Sign]().union(*(result.signs for result in checked.values()))
  if len(sizes) == len(scenes):
    problems += misread(source.kind, signs)
  if problems:
    listed = problems[:_MOST_PROBLEMS]
    if len(problems) > len(listed):
      listed.append(f"and {len(problems) - len(listed)} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise ValueError("\n  ".join([f"{source.path}: {count}", *listed]))
  return usual[0][0], signs


def _find_unknown(
  part: tuple[SceneFile, ...], checked: dict[str, _Checked]
) -> list[str]:
  """Which tasks the scenes of a part, all of them readable, have nothing of."""
  known = frozenset[str]().union(*(checked[scene.name].signs for scene in part))
  # The first scene most often has normals, so that no others are derived twice.
  if "depth" in known and "normal" not in known and any(map(_has_normals, part)):
    known |= {"normal"}
  folder = part[0].name.partition("/")[0]
  return [
    f"{folder}: no pixel has a {field}, which the task {task} needs"
    for field, task in TASK_OF_FIELD.items()
    if field not in known
  ]


def _has_normals(scene: SceneFile) -> bool:
  return bool(prepare(scene, exact_depth=True)["normal"].any())
