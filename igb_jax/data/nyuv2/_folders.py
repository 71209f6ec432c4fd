"""Folders of arrays and of images, a file for each field of a scene."""

import collections
import functools
from pathlib import Path
from typing import Literal

import numpy as np

from igb_jax.data.nyuv2._files import by, read_array, read_image
from igb_jax.data.nyuv2.types import Part, Reading, SceneFile, SceneSource, describe
from igb_jax.data.scene import RawScene

_LEAST_SIDE = 8  # of an image, in pixels.
_NORMALS_FROM_DEPTH = (
  "normals from depth, assuming images of 480 x 640 to be whole and others to be the "
  "valid region (rows 44 to 470, columns 40 to 600) resized"
)

Format = Literal["arrays", "images"]
FOLDERS = ("train", "val", "test")
_FIELDS = ("image", "label", "depth", "normal")
_LITTER = ("thumbs.db", "desktop.ini")
SUFFIXES = {
  "arrays": dict.fromkeys(_FIELDS, (".npy",)),
  "images": {**dict.fromkeys(_FIELDS, (".png",)), "image": (".jpg", ".jpeg", ".png")},
}


def read_scene(root: Path, kind: Format, files: dict[str, str]) -> Reading:
  """Reads a scene of a file for each field, with a path relative to the root."""
  fields: dict[str, np.ndarray] = {}
  problems = []
  read_file = read_array if kind == "arrays" else read_image
  for field, file in files.items():
    try:
      fields[field] = read_file(root / file, field)
    except ValueError as error:
      problems.append(f"{file}: {error}")
  if "image" in fields:
    size = fields["image"].shape[:2]
    if min(size) < _LEAST_SIDE:
      problems.append(
        f"{files['image']}: {by(size)}, expected {_LEAST_SIDE} x {_LEAST_SIDE} at least"
      )
    problems += [
      f"{files[field]}: {by(values.shape)}, but its image is {by(size)} "
      f"({files['image']})"
      for field, values in fields.items()
      if values.shape[:2] != size
    ]
  if problems or not set(_FIELDS[:3]) <= set(fields):  # or files are missing.
    return Reading(None, tuple(problems))
  scene = RawScene(
    fields["image"], fields["label"], fields["depth"], fields.get("normal")
  )
  return Reading(scene, ())


def visible(folder: Path) -> list[Path]:
  """What is in a folder, but for what is hidden and what Windows leaves there."""
  if not folder.is_dir():
    return []
  return sorted(
    path
    for path in folder.iterdir()
    if not path.name.startswith(".") and path.name.lower() not in _LITTER
  )


def _in_order(name: str) -> tuple[bool, int, str]:
  """Sorts numbers by value, before everything else."""
  return (False, int(name), name) if name.isdecimal() else (True, 0, name)


def recognise_folders(root: Path, kind: Format) -> SceneSource:
  present = [folder for folder in FOLDERS if (root / folder).is_dir()]
  problems = [] if "train" in present else ["train: there is no such folder"]
  if present in ([], ["train"]):
    problems.append("val, test: there is neither of these folders")
  with_normals = [f for f in present if (root / f / "normal").is_dir()]
  fields = _FIELDS if with_normals else _FIELDS[:3]
  part_of: dict[str, Part] = {"train": "train", "val": "test", "test": "test"}
  if "test" in present:
    part_of["val"] = "validation"
  scenes: dict[Part, tuple[SceneFile, ...]] = {}
  files: list[Path] = []
  for folder in present:
    found: dict[str, dict[str, str]] = {}  # field -> name -> path relative to the root
    for field in fields:
      place = root / folder / field
      suffixes = SUFFIXES[kind][field]
      listed = visible(place)
      paths = [path for path in listed if path.suffix.lower() in suffixes]
      files += listed
      where = f"{folder}/{field}"
      found[field] = {path.stem: f"{where}/{path.name}" for path in paths}
      expected = " or ".join(f"*{suffix}" for suffix in suffixes)
      if not place.is_dir():
        problems.append(f"{where}: there is no such folder")
      elif not paths:
        problems.append(f"{where}: there is no {expected}")
      problems += [
        f"{where}/{path.name}: is not {expected}"
        for path in listed
        if path.suffix.lower() not in suffixes
      ]
      twice = collections.Counter(path.stem for path in paths)
      problems += [
        f"{where}/{name}: there are {count} files of this name"
        for name, count in twice.items()
        if count > 1
      ]
    names = sorted(set().union(*found.values()), key=_in_order)
    problems += [
      f"{folder}/{field}/{name}{SUFFIXES[kind][field][0]}: is missing"
      for field in fields
      if found[field]
      for name in names
      if name not in found[field]
    ]
    scenes[part_of[folder]] = tuple(
      SceneFile(
        f"{folder}/{name}",
        functools.partial(
          read_scene,
          root,
          kind,
          {field: paths[name] for field, paths in found.items() if name in paths},
        ),
      )
      for name in names
    )
  return SceneSource(
    path=root,
    kind=kind,
    description=describe(
      f"{'array' if kind == 'arrays' else 'image'} folders in {root}",
      scenes,
      "normals as they are" if with_normals else _NORMALS_FROM_DEPTH,
    ),
    scenes=scenes,
    files=tuple(files),
    exact_depth=kind == "arrays",
    problems=tuple(problems),
  )
