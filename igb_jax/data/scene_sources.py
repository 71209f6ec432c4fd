"""NYUv2 as people have it: three formats, recognised by what is in a folder.

* Array folders, the pre-processed form that the literature shares: `train/` and `val/`
  with `image`, `label`, `depth` and `normal`, a file `0.npy`, `1.npy`, ... each. Image
  H x W x 3 in [0, 1], label H x W with -1 ignored, depth H x W (x 1) in metres, normal
  H x W x 3, all floating point. In those data `val` holds the 654 official test images.
* The official `nyu_depth_v2_labeled.mat`, cropped to its valid region, resized to
  288 x 384 and split officially here.
* Image folders: `train/` and `test/` with `image` (JPEG or PNG), `label` (PNG of 8
  bits, 255 ignored), `depth` (PNG of 16 bits, millimetres) and perhaps `normal` (PNG,
  red, green, blue = (x, y, z + 1) / 2 * 255).

In both kinds of folders `train` is the training part. Of `val` and `test` one is
enough, and whichever it is becomes the test part; where there are both, `val` is the
validation part. Without `normal`, normals are to be derived from depth. Normals that
there are must have the axes of `igb_jax.data.normals`; those shorter than 0.5 or longer
than 1.5 are unknown, all others are brought to length 1.
"""

import collections
import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from igb_jax.data.normals import Intrinsics

_TABLES: dict[str, Any] = json.loads(
  Path(__file__).with_name("nyuv2_tables.json").read_text()
)

CLASS_NAMES: tuple[str, ...] = tuple(_TABLES["class_names"])
"""The 13 classes, in the order of the labels."""

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

MAT_NAME = "nyu_depth_v2_labeled.mat"
NUM_IMAGES = 1449
"""Images of the official file, 795 for training and 654 for testing."""

_MAT_SIZE = (480, 640)
_MAT_RESIZED = (288, 384)
_MAX_DEPTH = 65.535  # metres, the most that 16 bits of millimetres hold.
_LEAST_DEPTH = 1e-6  # metres, if not unknown; bytes in the wrong order are less.
_LEAST_SIDE = 8  # of an image, in pixels.
_MOST_PIXELS = 2**24


class RawScene(NamedTuple):
  """A scene as its source has it, checked.

  Attributes:
    image: u8[H, W, 3].
    label: i32[H, W], -1 ignored.
    depth: f32[H, W], metres, 0 unknown.
    normal: f32[H, W, 3], of the source's lengths, see
      `igb_jax.data.normals.unit_normals`; None if it is to be derived from depth.
  """

  image: np.ndarray
  label: np.ndarray
  depth: np.ndarray
  normal: np.ndarray | None


class Reading(NamedTuple):
  """What came of reading a scene.

  Attributes:
    scene: None if there are problems.
    problems: What is wrong, each beginning with the name of the file.
  """

  scene: RawScene | None
  problems: tuple[str, ...]


class SceneFile(Protocol):
  """Where a scene is; picklable, so that any process can read it."""

  @property
  def name(self) -> str:
    """Part and name, such as `train/0003`."""
    ...

  def read(self) -> Reading:
    """Reads and checks the scene, without raising for what is wrong with it."""
    ...


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


def recognise(path: Path) -> SceneSource:
  """Finds out which of the three formats a folder or file has.

  Only names are looked at, and the header of the official file.

  Args:
    path: Folder, or the official file itself.

  Returns:
    The source, with the problems that its names show.

  Raises:
    FileNotFoundError: If there is nothing, or nothing that has one of the formats.
  """
  given = Path(path).expanduser()
  path = given.resolve()
  if not path.exists():
    raise FileNotFoundError(f"{path}: there is no such file or folder")
  if path.is_file() and given.suffix == ".mat":
    return _recognise_mat(path)
  if path.is_dir():
    for kind in ("arrays", "images"):
      files = (file for folder in _FOLDERS for file in _list(path / folder / "image"))
      if any(file.suffix.lower() in _SUFFIXES[kind]["image"] for file in files):
        return _recognise_folders(path, kind)
    if (path / MAT_NAME).is_file():
      return _recognise_mat((path / MAT_NAME).resolve())
  raise FileNotFoundError(
    f"{path}: no NYUv2 data there ({_contents(path)}). Expected one of\n"
    "  a folder with train/ and val/ of image|label|depth|normal/*.npy\n"
    f"  the official file {MAT_NAME}, or its folder\n"
    "  a folder with train/ and test/ of image|label|depth[|normal]/*.jpg or .png"
  )


_NORMALS_FROM_DEPTH = (
  "normals from depth, assuming images of 480 x 640 to be whole and others to be the "
  "valid region (rows 44 to 470, columns 40 to 600) resized"
)


def scaled_intrinsics(height: int, width: int) -> Intrinsics:
  """Intrinsics of NYUv2's colour camera for images of a size.

  Images of 480 x 640 are taken to be whole, others to be the valid region (rows 44 to
  470, columns 40 to 600) resized.

  Args:
    height: Rows of the images.
    width: Columns of the images.

  Returns:
    fx, fy, cx, cy in pixels.

  Example:
    >>> [round(value, 2) for value in scaled_intrinsics(288, 384)]
    [355.15, 350.37, 195.48, 141.46]
  """
  fx, fy, cx, cy = (
    float(_TABLES["intrinsics_480x640"][name]) for name in ("fx", "fy", "cx", "cy")
  )
  if (height, width) == _MAT_SIZE:
    return fx, fy, cx, cy
  top, bottom = _TABLES["valid_rows"]
  left, right = _TABLES["valid_columns"]
  x, y = width / (right - left), height / (bottom - top)
  return fx * x, fy * y, (cx - left) * x, (cy - top) * y


def classes_of_names(label: np.ndarray) -> np.ndarray:
  """Maps the 894 names of the official labels to the 13 classes.

  Args:
    label: Integers, 0 to 894, 0 unlabelled.

  Returns:
    i32 of the same shape, 0 to 12, -1 unlabelled.

  Raises:
    ValueError: If there are other labels.

  Example:
    >>> [CLASS_NAMES[i] for i in classes_of_names(np.array([5, 21]))]
    ['chair', 'wall']
  """
  label13 = np.array([0, *_TABLES["label13"]], np.int32) - 1
  classes = label13[np.array([0, *_TABLES["label40"]])]
  if label.size and (label.min() < 0 or label.max() >= len(classes)):
    raise ValueError(
      f"labels {label.min()} to {label.max()}, expected 0 to {len(classes) - 1}"
    )
  return classes[label]


# Checks that all formats share. Errors are reasons; whoever reads adds the file.


def _check_image(image: np.ndarray) -> np.ndarray:
  """Checks an image of [0, 1] and returns it as u8[H, W, 3]."""
  _check_floats(image)
  if image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(f"shape {image.shape}, expected height x width x 3")
  if image.size and (image.min() < -1e-3 or image.max() > 1 + 1e-3):
    raise ValueError(
      f"values {image.min():.4g} to {image.max():.4g}, expected 0 to 1; if they are "
      "bytes, divide by 255"
    )
  return np.rint(255 * image.clip(0, 1)).astype(np.uint8)


def _check_label(label: np.ndarray) -> np.ndarray:
  """Checks labels with -1 ignored and returns them as i32[H, W]."""
  if label.ndim == 3 and label.shape[2] == 1:
    label = label[..., 0]
  if label.ndim != 2:
    raise ValueError(f"shape {label.shape}, expected height x width")
  if label.dtype.kind not in "iu":
    _check_floats(label)
    if (label != np.rint(label)).any():
      raise ValueError("labels that are not whole numbers")
  last = len(CLASS_NAMES) - 1
  if label.size and (label.min() < -1 or label.max() > last):
    raise ValueError(
      f"labels {label.min():g} to {label.max():g}, expected -1 (ignored) to {last}"
      f"{_from_one(label, -1)}"
    )
  return label.astype(np.int32)


def _from_one(label: np.ndarray, ignored: int) -> str:
  """What to do if labels count the classes from 1; nothing if they cannot."""
  count = len(CLASS_NAMES)
  if label.min() < 0 or label.max() != count:
    return ""
  return (
    f"; are they 1 to {count} with 0 for unlabelled: store label - 1, and {ignored} "
    "for 0"
  )


def _check_depth(depth: np.ndarray) -> np.ndarray:
  """Checks depth in metres and returns it as f32[H, W]."""
  _check_floats(depth)
  if depth.ndim == 3 and depth.shape[2] == 1:
    depth = depth[..., 0]
  if depth.ndim != 2:
    raise ValueError(f"shape {depth.shape}, expected height x width (x 1)")
  if (depth < 0).any():
    raise ValueError(f"negative depth ({depth.min():.4g})")
  if ((depth > 0) & (depth < _LEAST_DEPTH)).any():
    raise ValueError(
      f"depth of {depth[depth > 0].min():.4g} m, expected 0 (unknown) or at least "
      f"{_LEAST_DEPTH:g}"
    )
  if (depth > _MAX_DEPTH).any():
    raise ValueError(
      f"depth of {depth.max():.4g} m, expected at most {_MAX_DEPTH}; is it in metres? "
      "Of millimetres store a thousandth"
    )
  return depth.astype(np.float32)


def _check_normal(normal: np.ndarray) -> np.ndarray:
  """Checks normals and returns them as f32[H, W, 3]."""
  _check_floats(normal)
  if normal.ndim != 3 or normal.shape[2] != 3:
    raise ValueError(f"shape {normal.shape}, expected height x width x 3")
  if normal.size and np.abs(normal).max() > 1 + 1e-2:
    raise ValueError(
      f"values {normal.min():.4g} to {normal.max():.4g}, expected -1 to 1; are they "
      "bytes? Then store n / 127.5 - 1"
    )
  return normal.astype(np.float32)


def _check_floats(values: np.ndarray) -> None:
  if not np.issubdtype(values.dtype, np.floating):
    raise ValueError(f"type {values.dtype}, expected floating point")
  if not np.isfinite(values).all():
    raise ValueError("values that are not finite")


# Folders of arrays and of images.

_FOLDERS = ("train", "val", "test")
_FIELDS = ("image", "label", "depth", "normal")
_LITTER = ("thumbs.db", "desktop.ini")
_SUFFIXES = {
  "arrays": dict.fromkeys(_FIELDS, (".npy",)),
  "images": {**dict.fromkeys(_FIELDS, (".png",)), "image": (".jpg", ".jpeg", ".png")},
}


@dataclasses.dataclass(frozen=True)
class _FolderScene:
  """A scene of one file for each field.

  Attributes:
    root: Folder of the source.
    name: Part and name.
    kind: Format.
    files: field -> path relative to the root.
  """

  root: Path
  name: str
  kind: Literal["arrays", "images"]
  files: dict[str, str]

  def read(self) -> Reading:
    fields: dict[str, np.ndarray] = {}
    problems = []
    for field, file in self.files.items():
      try:
        fields[field] = _FIELD_READERS[self.kind, field](self.root / file)
      except ValueError as error:
        problems.append(f"{file}: {error}")
    if "image" in fields:
      size = fields["image"].shape[:2]
      if min(size) < _LEAST_SIDE:
        problems.append(
          f"{self.files['image']}: {_by(size)}, expected {_LEAST_SIDE} x {_LEAST_SIDE} "
          "at least"
        )
      for field, values in fields.items():
        if values.shape[:2] != size:
          problems.append(
            f"{self.files[field]}: {_by(values.shape)}, but its image is {_by(size)} "
            f"({self.files['image']})"
          )
    if problems or not set(_FIELDS[:3]) <= set(fields):  # or files are missing.
      return Reading(None, tuple(problems))
    scene = RawScene(
      fields["image"], fields["label"], fields["depth"], fields.get("normal")
    )
    return Reading(scene, ())


def _by(shape: tuple[int, ...]) -> str:
  return f"{shape[0]} x {shape[1]}"


def _read_npy(path: Path, check: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
  _check_is_file(path)
  try:
    with path.open("rb") as file:
      version = np.lib.format.read_magic(file)
      if version not in _NPY_HEADERS:
        raise ValueError(f"version {version} of the format")
      shape, _, dtype = _NPY_HEADERS[version](file)
      # Compared before anything of the size that the header tells is allocated.
      expected = file.tell() + math.prod(shape) * dtype.itemsize
      size = os.fstat(file.fileno()).st_size
      if size != expected:
        raise ValueError(f"{size} bytes, {expected} by its header")
      file.seek(0)
      values = np.lib.format.read_array(file, allow_pickle=False)
  except Exception as error:  # there are many ways to be damaged
    raise ValueError(f"cannot be read ({error})") from error
  return check(values)


_NPY_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


def _decode(
  path: Path, modes: dict[str, str], formats: tuple[str, ...] = ("PNG",)
) -> np.ndarray:
  """Reads an image file.

  Args:
    path: The file.
    modes: Pillow's modes that will do -> what to call them.
    formats: Pillow's formats that will do; for others it may start programs.

  Raises:
    ValueError: If it is damaged, too large, or has another format or mode.
  """
  from PIL import Image

  _check_is_file(path)
  try:
    with Image.open(path, formats=formats) as image:
      if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{_by(image.size[::-1])}, at most {_MOST_PIXELS} pixels")
      image.verify()  # of a PNG the checksums and the end, which decoding does not
    with Image.open(path, formats=formats) as image:
      mode = image.mode
      pixels = np.array(image)
  except Exception as error:  # there are many ways to be damaged
    raise ValueError(f"cannot be read ({error})") from error
  if mode not in modes:
    raise ValueError(f"mode {mode}, expected {next(iter(modes.values()))}")
  return pixels


def _check_is_file(path: Path) -> None:
  """Refuses pipes, which are waited for, and devices, which may have no end."""
  if path.exists() and not path.is_file():
    raise ValueError("is not a file")


_COLOUR = {"RGB": "RGB, 8 bits each"}
_BYTES = {"L": "L, one channel of 8 bits", "P": ""}
_WORDS = {"I;16": "I;16, one channel of 16 bits", "I;16B": "", "I": ""}


def _read_label_png(path: Path) -> np.ndarray:
  pixels = _decode(path, _BYTES)
  last = len(CLASS_NAMES) - 1
  wrong = (pixels > last) & (pixels != 255)
  if wrong.any():
    raise ValueError(
      f"label {pixels[wrong].max()}, expected 0 to {last}, or 255 (ignored)"
      f"{_from_one(pixels[pixels != 255], 255)}"
    )
  return np.where(pixels == 255, -1, pixels.astype(np.int32))


def _read_depth_png(path: Path) -> np.ndarray:
  return _check_depth(_decode(path, _WORDS).astype(np.float32) / np.float32(1000))


def _read_normal_png(path: Path) -> np.ndarray:
  pixels = _decode(path, _COLOUR)
  return _check_normal(pixels.astype(np.float32) / np.float32(127.5) - 1)


_FIELD_READERS: dict[tuple[str, str], Callable[[Path], np.ndarray]] = {
  ("arrays", "image"): functools.partial(_read_npy, check=_check_image),
  ("arrays", "label"): functools.partial(_read_npy, check=_check_label),
  ("arrays", "depth"): functools.partial(_read_npy, check=_check_depth),
  ("arrays", "normal"): functools.partial(_read_npy, check=_check_normal),
  ("images", "image"): functools.partial(
    _decode, modes=_COLOUR, formats=("JPEG", "PNG")
  ),
  ("images", "label"): _read_label_png,
  ("images", "depth"): _read_depth_png,
  ("images", "normal"): _read_normal_png,
}


def _list(folder: Path) -> list[Path]:
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


def _recognise_folders(root: Path, kind: Literal["arrays", "images"]) -> SceneSource:
  present = [folder for folder in _FOLDERS if (root / folder).is_dir()]
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
    found: dict[str, dict[str, Path]] = {}
    for field in fields:
      place = root / folder / field
      suffixes = _SUFFIXES[kind][field]
      listed = _list(place)
      paths = [path for path in listed if path.suffix.lower() in suffixes]
      files += listed
      found[field] = {path.stem: path for path in paths}
      where = f"{folder}/{field}"
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
      f"{folder}/{field}/{name}{_SUFFIXES[kind][field][0]}: is missing"
      for field in fields
      if found[field]
      for name in names
      if name not in found[field]
    ]
    scenes[part_of[folder]] = tuple(
      _FolderScene(
        root=root,
        name=f"{folder}/{name}",
        kind=kind,
        files={
          field: found[field][name].relative_to(root).as_posix()
          for field in fields
          if name in found[field]
        },
      )
      for name in names
    )
  return SceneSource(
    path=root,
    kind=kind,
    description=_describe(
      f"{'array' if kind == 'arrays' else 'image'} folders in {root}",
      scenes,
      "normals as they are" if with_normals else _NORMALS_FROM_DEPTH,
    ),
    scenes=scenes,
    files=tuple(files),
    exact_depth=kind == "arrays",
    problems=tuple(problems),
  )


def _describe(
  where: str, scenes: dict[Part, tuple[SceneFile, ...]], *notes: str
) -> str:
  counts = [f"{len(scenes[part])} {part}" for part in PARTS if scenes.get(part)]
  return f"{where}: {', '.join(counts)} scenes; {'; '.join(notes)}"


def _contents(path: Path) -> str:
  """What is there, also where images are looked for."""
  if path.is_file():
    return "it is a file"
  places = {f"{folder}/image": path / folder / "image" for folder in _FOLDERS}
  contents = [f"the folder {_names(path)}"]
  contents += [
    f"{name} {_names(place)}" for name, place in places.items() if place.is_dir()
  ]
  return "; ".join(contents)


def _names(folder: Path) -> str:
  names = [path.name for path in _list(folder)]
  if not names:
    return "is empty"
  more = f" and {len(names) - 8} more" if len(names) > 8 else ""
  return f"has {', '.join(names[:8])}{more}"


# The official file. HDF5 has its axes in reverse, as MATLAB writes them.

_LARGEST_CHUNK = 2**28  # bytes, all of which are read for any image of a chunk.
_MAT_FIELDS = {
  "images": (np.uint8, (3, *_MAT_SIZE[::-1])),
  "depths": (np.float32, _MAT_SIZE[::-1]),
  "labels": (np.uint16, _MAT_SIZE[::-1]),
}


@dataclasses.dataclass(frozen=True)
class _MatScene:
  """A scene of the official file.

  Attributes:
    path: The file.
    index: Official index, from 1.
    part: Its part.
  """

  path: Path
  index: int
  part: Part

  @property
  def name(self) -> str:
    return f"{self.part}/{self.index:04d}"

  def read(self) -> Reading:
    import h5py

    fields: dict[str, np.ndarray] = {}
    problems = []
    try:
      with h5py.File(self.path, "r") as file:
        for key in _MAT_FIELDS:
          fields[key] = _read_image(_field(file, key), self.index - 1)
    except Exception as error:  # there are many ways to be damaged
      reason = f"{self.path.name}, image {self.index}: cannot be read ({error})"
      return Reading(None, (reason,))
    for key, check in (("labels", classes_of_names), ("depths", _check_depth)):
      try:
        fields[key] = check(fields[key])
      except ValueError as error:
        problems.append(f"{self.path.name}, {key} of image {self.index}: {error}")
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

  dtype, shape = _MAT_FIELDS[key]
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
  return values[slice(*_TABLES["valid_rows"]), slice(*_TABLES["valid_columns"])]


def _resize_nearest(values: np.ndarray) -> np.ndarray:
  """The valid region of [480, 640] at 288 x 384, every pixel the nearest one's."""
  region = _crop(values)
  rows, columns = (
    ((np.arange(new) + 0.5) * old / new).astype(np.int64)
    for new, old in zip(_MAT_RESIZED, region.shape, strict=True)
  )
  return region[np.ix_(rows, columns)]


def _resize_image(image: np.ndarray) -> np.ndarray:
  """The valid region of u8[480, 640, 3] at 288 x 384, bilinear."""
  from PIL import Image

  region = Image.fromarray(np.ascontiguousarray(_crop(image)))
  size = (_MAT_RESIZED[1], _MAT_RESIZED[0])
  return np.array(region.resize(size, Image.Resampling.BILINEAR))


def _recognise_mat(path: Path) -> SceneSource:
  count, problems = _look_at_mat(path)
  scenes: dict[Part, tuple[SceneFile, ...]] = {
    part: tuple(_MatScene(path, i, part) for i in _TABLES[part] if i <= count)
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
    description=_describe(
      f"official file {path}", scenes, *notes, "normals from depth"
    ),
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
      for key in _MAT_FIELDS:
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
