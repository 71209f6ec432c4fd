"""The official file. HDF5 has its axes in reverse, as MATLAB writes them."""

import functools
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from igb_jax.data.nyuv2._values import check_depth
from igb_jax.data.nyuv2.tables import TABLES, WHOLE_SIZE, classes_of_names
from igb_jax.data.nyuv2.types import Part, Reading, SceneFile, SceneSource, describe
from igb_jax.data.scene import RawScene

MAT_NAME = "nyu_depth_v2_labeled.mat"
NUM_IMAGES = 1449
"""Images of the official file, 795 for training and 654 for testing."""

_RESIZED = (288, 384)
_LARGEST_CHUNK = 2**28  # bytes, all of which are read for any image of a chunk.
MAT_FIELDS = {
  "images": (np.uint8, (3, *WHOLE_SIZE[::-1])),
  "depths": (np.float32, WHOLE_SIZE[::-1]),
  "labels": (np.uint16, WHOLE_SIZE[::-1]),
}


def read_scene(path: Path, index: int) -> Reading:
  """Reads a scene of the official file by its official index, which starts from 1."""
  import h5py

  fields: dict[str, np.ndarray] = {}
  problems = []
  try:
    with h5py.File(path, "r") as file:
      for key in MAT_FIELDS:
        fields[key] = _read_image(_field(file, key), index - 1)
  except Exception as error:  # there are many ways to be damaged
    return Reading(None, (f"{path.name}, image {index}: cannot be read ({error})",))
  for key, check in (("labels", classes_of_names), ("depths", check_depth)):
    try:
      fields[key] = check(fields[key])
    except ValueError as error:
      problems.append(f"{path.name}, {key} of image {index}: {error}")
  if problems:
    return Reading(None, tuple(problems))
  label, depth = _resize_nearest(fields["labels"]), _resize_nearest(fields["depths"])
  image = _resize_image(fields["images"])
  return Reading(RawScene(image, label, depth, None), ())


def _field(file: Any, key: str) -> Any:
  """A field of the open official file, an `h5py.Dataset`.

  Raises:
    ValueError: If there is none, or it is not as expected or not in this file alone.
  """
  import h5py

  dtype, shape = MAT_FIELDS[key]
  link = file.get(key, getlink=True)
  if link is not None and not isinstance(link, h5py.HardLink):
    raise ValueError(f"{key} is a link, which is not followed")
  field = file.get(key)
  if not isinstance(field, h5py.Dataset):
    raise ValueError(f"there is no {key} in it")
  if field.dtype != dtype or field.shape[1:] != shape:
    raise ValueError(
      f"{key} is {field.dtype}{list(field.shape)}, expected "
      f"{np.dtype(dtype)}[N, {', '.join(map(str, shape))}]"
    )
  if field.external or field.is_virtual:
    raise ValueError(f"{key} lies in another file, which is not read")
  if field.chunks and math.prod(field.chunks) * field.dtype.itemsize > _LARGEST_CHUNK:
    raise ValueError(f"{key} has chunks of more than {_LARGEST_CHUNK} bytes")
  return field


def _read_image(field: Any, index: int) -> np.ndarray:
  """Reads an image of a field, its axes in reverse.

  Raises:
    ValueError: If a part of it is not in the file, which HDF5 would read as zeros.
  """
  if field.chunks:
    sides = zip(field.shape[1:], field.chunks[1:], strict=True)
    starts = [range(0, length, side) for length, side in sides]
    first = index - index % field.chunks[0]
    for start in itertools.product([first], *starts):
      if field.id.get_chunk_info_by_coord(start).byte_offset is None:
        raise ValueError(f"there is no part {start} of {field.name[1:]}")
  return np.asarray(field[index]).T


def _crop(values: np.ndarray) -> np.ndarray:
  """The valid region of [480, 640, ...]."""
  return values[slice(*TABLES["valid_rows"]), slice(*TABLES["valid_columns"])]


def _resize_nearest(values: np.ndarray) -> np.ndarray:
  """The valid region of [480, 640] at 288 x 384, every pixel the nearest one's."""
  region = _crop(values)
  rows, columns = (
    ((np.arange(new) + 0.5) * old / new).astype(np.int64)
    for new, old in zip(_RESIZED, region.shape, strict=True)
  )
  return region[np.ix_(rows, columns)]


def _resize_image(image: np.ndarray) -> np.ndarray:
  """The valid region of u8[480, 640, 3] at 288 x 384, bilinear."""
  from PIL import Image

  region = Image.fromarray(np.ascontiguousarray(_crop(image)))
  size = (_RESIZED[1], _RESIZED[0])
  return np.array(region.resize(size, Image.Resampling.BILINEAR))


def recognise_mat(path: Path) -> SceneSource:
  count, problems = _look_at_mat(path)
  scenes: dict[Part, tuple[SceneFile, ...]] = {
    part: tuple(
      SceneFile(f"{part}/{i:04d}", functools.partial(read_scene, path, i))
      for i in TABLES[part]
      if i <= count
    )
    for part in ("train", "test")
  }
  if not problems:
    problems = [
      f"{path.name}: its {count} images include none of the {part} split"
      for part in scenes
      if not scenes[part]
    ]
  notes = [] if count == NUM_IMAGES else [f"the first {count} of {NUM_IMAGES} images"]
  return SceneSource(
    path=path,
    kind="mat",
    description=describe(f"official file {path}", scenes, *notes, "normals from depth"),
    scenes=scenes,
    files=(path,),
    exact_depth=False,
    problems=tuple(problems),
  )


def _look_at_mat(path: Path) -> tuple[int, list[str]]:
  """Number of images in the official file, and what is wrong with its header."""
  import h5py

  problems = []
  counts = {}
  try:
    with h5py.File(path, "r") as file:
      for key in MAT_FIELDS:
        try:
          counts[key] = len(_field(file, key))
        except ValueError as error:
          problems.append(f"{path.name}: {error}")
  except Exception as error:  # there are many ways to be damaged
    return 0, [f"{path.name}: cannot be read ({error})"]
  if len(set(counts.values())) > 1:
    lengths = ", ".join(f"{count} {key}" for key, count in counts.items())
    problems.append(f"{path.name}: numbers differ: {lengths}")
  elif counts and max(counts.values()) > NUM_IMAGES:
    problems.append(
      f"{path.name}: {max(counts.values())} images, expected {NUM_IMAGES} at most"
    )
  return (0, problems) if problems else (counts["images"], [])
