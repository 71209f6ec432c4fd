"""NYUv2: 1449 images of rooms with 13 classes, depth and surface normals.

`load` gives random access to the scenes of a folder or file in any of three formats
(`igb_jax.data.scene_sources`). The first call checks every file, derives the normals
where there are none (`igb_jax.data.normals`) on all cores, and caches the result as
array_record files; later calls only look whether the files have changed. `split` says
which scenes are for training, validation and testing.

The cache holds images in 8 bits, depth in millimetres (within 0.5 mm; as it is where
the source has floating point) and normals within 0.05 degrees.

Reference: Silberman et al., "Indoor Segmentation and Support Inference from RGBD
Images", ECCV 2012.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
import types
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np

from igb_jax.data import _once, _processes
from igb_jax.data.normals import normals_from_depth, unit_normals
from igb_jax.data.scene import IGNORED, Scene
from igb_jax.data.scene_coding import Sign, assumed, misread, signs_of
from igb_jax.data.scene_sources import (
  CLASS_NAMES,
  PARTS,
  SceneFile,
  SceneSource,
  recognise,
  scaled_intrinsics,
)

__all__ = ["CLASS_NAMES", "NYUv2", "Split", "SplitName", "load", "split"]

SplitName = Literal["standard", "paper"]

_Item = TypeVar("_Item")

# Raise it with every change of what the cache holds, so that older ones are rebuilt.
_CACHE_VERSION = 4
_MANIFEST = "manifest.json"
_MOST_PROBLEMS = 20  # that are printed.

_PAPER_VALIDATION, _PAPER_TEST = 197, 457
_TASK_OF_FIELD = {"label": "segmentation", "depth": "depth", "normal": "normal"}
_NO_LABEL = 255
_NORMAL_SCALE = 1023  # Off by half of 1 / 1023 in x, y and z is 0.05 degrees at most.


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Positions of scenes in `NYUv2`, disjoint and in order.

  Attributes:
    train: i64[number of training scenes].
    validation: i64[number of validation scenes], which may be 0.
    test: i64[number of test scenes].
  """

  train: np.ndarray
  validation: np.ndarray
  test: np.ndarray


def split(
  num_train: int,
  num_validation: int,
  num_test: int,
  name: SplitName = "standard",
  *,
  seed: int = 0,
) -> Split:
  """Says which scenes are for what, of those in the order train, validation, test.

  `standard` is 795 for training and 654 for testing, none for validation: a source's
  own validation scenes are tested too. `paper` divides those 654 into 197 for
  validation and 457 for testing, at random, unless the source does so itself; of fewer
  scenes it takes the same share, at least one.

  Args:
    num_train: Number of training scenes.
    num_validation: Number of the source's own validation scenes.
    num_test: Number of test scenes.
    name: `standard` or `paper`.
    seed: Seed of the division.

  Returns:
    The positions.

  Raises:
    ValueError: If the name is unknown, there are no training or test scenes, or
      `paper` has fewer than two scenes to divide.

  Example:
    >>> parts = split(795, 0, 654, "paper")
    >>> len(parts.train), len(parts.validation), len(parts.test)
    (795, 197, 457)
  """
  if name not in get_args(SplitName):
    names = list(get_args(SplitName))
    raise ValueError(f"unknown split {name!r}, expected one of {names}")
  if num_train < 1 or num_validation < 0 or num_test < 1:
    raise ValueError(
      f"there must be training and test scenes, got {num_train} train, "
      f"{num_validation} validation and {num_test} test"
    )
  train = np.arange(num_train)
  held_out = np.arange(num_train, num_train + num_validation + num_test)
  if name == "standard":
    return Split(train, held_out[:0], held_out)
  if not num_validation:
    if num_test < 2:
      raise ValueError(
        "the split paper divides the test scenes for validation and needs at least 2 "
        f"of them, got {num_test}; raise `limit`, if there is one"
      )
    share = _PAPER_VALIDATION / (_PAPER_VALIDATION + _PAPER_TEST)
    num_validation = max(1, round(share * num_test))
    held_out = np.random.default_rng(seed).permutation(held_out)
  validation, test = np.split(held_out, [num_validation])
  return Split(train, np.sort(validation), np.sort(test))


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
          return _decode(records[index])
        except Exception as error:  # of the reader, of TFDS or of zlib
          raise OSError(
            f"{self.folder}: scene {position} is damaged; remove the folder, so that "
            f"it is prepared again ({error})"
          ) from error
      index -= len(records)
    raise AssertionError

  def __reduce__(self) -> tuple[Callable[[Path], "NYUv2"], tuple[Path]]:
    """Pickles the folder alone, since TFDS's readers cannot be pickled."""
    return _open, (self.folder,)

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
      for field, task in _TASK_OF_FIELD.items()
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


def load(
  source: Path,
  cache_dir: Path | None = None,
  *,
  limit: int | None = None,
  progress: bool = True,
) -> NYUv2:
  """Opens the scenes of a folder or file, which the first call prepares.

  The cache lies in the folder `igb_nyuv2` of `cache_dir`, one folder for each source
  and limit. One that is damaged, half-written, of another version, or of files whose
  names, sizes or times have changed since is prepared again. Processes that call this
  at once take turns.

  Args:
    source: Folder or file in one of the formats of `igb_jax.data.scene_sources`.
    cache_dir: Folder of the cache; by default the environment variable
      `IGB_JAX_DATA`, or else the cache folder of the platform.
    limit: Number of scenes to take of each part, the first ones; None for all.
    progress: Whether to show how far the preparation is.

  Returns:
    The scenes, all of one size.

  Raises:
    ValueError: If the limit is not positive, files are missing, damaged or hold
      something else, a part has no labels, no depth or no normals at all, or all
      files have another coding; names all of them (up to 20) with what is wrong.
    FileNotFoundError: If the source does not exist or has none of the formats.
    OSError: If the cache cannot be written; names its folder.
  """
  if limit is not None and limit < 1:
    raise ValueError(f"limit must be positive, got {limit}")
  found = recognise(source)
  if limit is not None:
    scenes = {part: files[:limit] for part, files in found.scenes.items()}
    description = f"{found.description}; of each part the first {limit} at most"
    found = dataclasses.replace(found, scenes=scenes, description=description)
  folder = _once.cache_root(cache_dir) / "igb_nyuv2" / _config(found.path, limit)
  fingerprint = _fingerprint(found)
  if _once.read_only(folder) and _find_problem(folder, fingerprint) is None:
    return _open(folder)  # Nobody can change it, so it needs no lock.
  with _once.locked(folder, "NYUv2"):
    problem = _find_problem(folder, fingerprint)
    if problem is None:
      return _open(folder)
    if folder.exists():
      _processes.say(f"Rebuilding the NYUv2 cache in {folder}: {problem}")
    elif progress:
      _processes.say(f"Preparing the NYUv2 cache in {folder}, once")
    if progress:
      _processes.say(f"Found {found.description}")
    size, signs = _check_all(found, progress)
    if note := assumed(found.kind, signs):
      _processes.say(f"{found.path}: {note}")
      found = dataclasses.replace(found, description=f"{found.description}; {note}")
    return _write(folder, found, size, fingerprint, progress)


# The cache: a folder of array_record files, complete if there is a manifest beside
# them, which is written last. Their records have checksums of their own.


class _Manifest(NamedTuple):
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


def _config(path: Path, limit: int | None) -> str:
  """Name of the folder for a source and limit."""
  digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
  name = f"{path.stem or 'source'}-{digest}"
  return name if limit is None else f"{name}-limit{limit}"


def _fingerprint(source: SceneSource) -> str:
  """SHA-256 of the names, sizes and times of all files of a source.

  Files that are not there, such as links to nowhere, are left to the checks.
  """
  digest = hashlib.sha256(source.kind.encode())
  for path in sorted(source.files):
    try:
      status = path.stat()
      state = f"{status.st_size}\0{status.st_mtime_ns}"
    except OSError:
      state = "absent"
    name = os.fsencode(path.relative_to(source.path.parent))
    digest.update(b"%b\0%b\0" % (name, state.encode()))
  return digest.hexdigest()


def _sizes(folder: Path) -> dict[str, int]:
  """Bytes of every file in the folder but the manifest, by relative path."""
  return {
    path.relative_to(folder).as_posix(): path.stat().st_size
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != _MANIFEST
  }


def _read_manifest(folder: Path) -> _Manifest:
  manifest = _Manifest(**json.loads((folder / _MANIFEST).read_text()))
  rows, columns = manifest.size
  if not isinstance(manifest.names, dict) or not {"train", "test"} <= {*manifest.names}:
    raise ValueError("parts are missing")
  if not isinstance(manifest.lacking, Mapping):
    raise ValueError("it does not say what scenes lack")
  return manifest._replace(size=(rows, columns))


def _find_problem(folder: Path, fingerprint: str) -> str | None:
  """Why the cache in a folder cannot be used for a source, None if it can."""
  try:
    manifest = _read_manifest(folder)
  except FileNotFoundError:
    return "it is not complete"
  except (ValueError, TypeError):
    return f"{_MANIFEST} is damaged"
  if manifest.version != _CACHE_VERSION:
    return f"it has version {manifest.version}, not {_CACHE_VERSION}"
  if manifest.fingerprint != fingerprint:
    return "the source has changed"
  if manifest.files != _sizes(folder):
    return "files are missing or damaged"
  return None


def _open(folder: Path) -> NYUv2:
  from igb_jax.data import _tfds_nyuv2

  manifest = _read_manifest(folder)
  names = manifest.names
  records = _tfds_nyuv2.open_scenes(
    folder, manifest.size, manifest.exact_depth, list(names)
  )
  return NYUv2(
    description=manifest.description,
    folder=folder,
    names=tuple(itertools.chain.from_iterable(names.values())),
    size=manifest.size,
    num_train=len(names["train"]),
    num_validation=len(names.get("validation", ())),
    num_test=len(names["test"]),
    _records=tuple(records[part] for part in names),
    _lacking=manifest.lacking,
  )


def _write(
  folder: Path,
  source: SceneSource,
  size: tuple[int, int],
  fingerprint: str,
  progress: bool,
) -> NYUv2:
  """Replaces the cache in a folder and opens it."""
  from igb_jax.data import _tfds_nyuv2

  scenes = _in_order(source)
  encode = functools.partial(_prepare, exact_depth=source.exact_depth)
  prepared: Iterable[dict[str, np.ndarray]] = _processes.on_all_cores(encode, scenes)
  if progress:
    prepared = _processes.shown(prepared, "Preparing", len(scenes), "scenes")
  failures: list[Exception] = []
  lacking: dict[str, list[str]] = {}
  records = _noting(prepared, failures)
  names = {
    part: [scene.name for scene in source.scenes[part]]
    for part in PARTS
    if source.scenes.get(part)
  }
  parts = {part: _noting_lacks(records, names[part], lacking) for part in names}
  try:
    with _once.naming(folder, "NYUv2"):
      if folder.exists():
        shutil.rmtree(folder)
      _tfds_nyuv2.write_scenes(folder, size, source.exact_depth, parts)
      manifest = _Manifest(
        version=_CACHE_VERSION,
        fingerprint=fingerprint,
        files=_sizes(folder),
        description=source.description,
        size=size,
        exact_depth=source.exact_depth,
        names=names,
        lacking=lacking,
      )
      unfinished = folder / f"{_MANIFEST}.unfinished"
      unfinished.write_text(json.dumps(manifest._asdict(), indent=2))
      unfinished.replace(folder / _MANIFEST)
  except Exception:
    if failures:
      raise failures[0] from None  # and not what TFDS made of it.
    raise
  finally:
    records.close()
  return _open(folder)


def _noting(
  results: Iterable[_Item], failures: list[Exception]
) -> Generator[_Item, None, None]:
  """Passes results on and keeps the error that ends them."""
  try:
    yield from results
  except Exception as error:
    failures.append(error)
    raise


def _noting_lacks(
  records: Iterable[dict[str, np.ndarray]],
  names: Iterable[str],
  lacking: dict[str, list[str]],
) -> Generator[dict[str, np.ndarray], None, None]:
  """Passes on a record a name, and keeps by name what it has nothing of."""
  nothing = {"label": _NO_LABEL, "depth": 0, "normal": 0}
  # The names come first, so that no record of the next part is taken.
  for name, record in zip(names, records, strict=False):
    lacks = [field for field, none in nothing.items() if (record[field] == none).all()]
    if lacks:
      lacking[name] = lacks
    yield record


def _in_order(source: SceneSource) -> list[SceneFile]:
  return [scene for part in PARTS for scene in source.scenes.get(part, ())]


# Checking and preparing, in processes of their own.


class _Checked(NamedTuple):
  """What came of checking a scene.

  Attributes:
    size: Rows and columns, None if there are problems.
    known: Of label, depth and normal those that some pixel has; normals that are to be
      derived are not among them.
    signs: Of how its values are coded.
    problems: What is wrong, each beginning with the name of the file.
  """

  size: tuple[int, int] | None
  known: frozenset[str]
  signs: frozenset[Sign]
  problems: tuple[str, ...]


def _check(scene: SceneFile) -> _Checked:
  raw, problems = scene.read()
  if raw is None:
    return _Checked(None, frozenset(), frozenset(), problems)
  has = {
    "label": (raw.label != IGNORED).any(),
    "depth": raw.depth.any(),
    "normal": raw.normal is not None and unit_normals(raw.normal).any(),
  }
  rows, columns = raw.depth.shape
  known = frozenset(field for field, some in has.items() if some)
  return _Checked((rows, columns), known, signs_of(raw), problems)


def _check_all(
  source: SceneSource, progress: bool
) -> tuple[tuple[int, int], frozenset[Sign]]:
  """Checks all scenes and returns their size, and the signs of how they are coded.

  Raises:
    ValueError: If something is wrong with any, sizes differ, a part has nothing of a
      task, all have another coding, or a process that checks them dies.
  """
  scenes = _in_order(source)
  results = _processes.on_all_cores(_check, scenes)
  if progress:
    results = _processes.shown(results, "Checking", len(scenes), "scenes")
  try:
    checked = dict(zip((scene.name for scene in scenes), results, strict=True))
  except RuntimeError as error:
    raise ValueError(
      f"{source.path}: while its files were checked, {error} Or is a file damaged in "
      "such a way that its reader dies?"
    ) from error
  problems = list(source.problems)
  for result in checked.values():
    problems += result.problems
  sizes = {name: c.size for name, c in checked.items() if c.size}
  usual = collections.Counter(sizes.values()).most_common(1)
  problems += [
    f"{name}: {_by(size)}, but most are {_by(usual[0][0])}"
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
  known = frozenset[str]().union(*(checked[scene.name].known for scene in part))
  # The first scene most often has normals, so that no others are derived twice.
  if "depth" in known and "normal" not in known and any(map(_has_normals, part)):
    known |= {"normal"}
  folder = part[0].name.partition("/")[0]
  return [
    f"{folder}: no pixel has a {field}, which the task {task} needs"
    for field, task in _TASK_OF_FIELD.items()
    if field not in known
  ]


def _has_normals(scene: SceneFile) -> bool:
  return bool(_prepare(scene, exact_depth=True)["normal"].any())


def _by(size: tuple[int, int]) -> str:
  return f"{size[0]} x {size[1]}"


def _prepare(scene: SceneFile, exact_depth: bool) -> dict[str, np.ndarray]:
  """Reads a scene, derives its normals if need be, and encodes it."""
  raw, problems = scene.read()
  if raw is None:  # It was all right when it was checked.
    raise ValueError("\n  ".join(problems))
  if raw.normal is None:
    normal = normals_from_depth(raw.depth, scaled_intrinsics(*raw.depth.shape))
  else:
    normal = unit_normals(raw.normal)
  depth = raw.depth if exact_depth else np.rint(1000 * raw.depth).astype(np.uint16)
  return {
    "image": raw.image,
    "label": np.where(raw.label == IGNORED, _NO_LABEL, raw.label).astype(np.uint8),
    "depth": depth,
    "normal": np.rint(_NORMAL_SCALE * normal).astype(np.int16),
  }


def _decode(record: dict[str, np.ndarray]) -> Scene:
  """Makes a scene of what `_prepare` encoded."""
  label, depth = record["label"], record["depth"]
  if depth.dtype == np.uint16:
    depth = depth.astype(np.float32) / np.float32(1000)
  normal = record["normal"].astype(np.float32)
  length = np.sqrt(np.einsum("ijk,ijk->ij", normal, normal))[..., None]
  return Scene(
    image=record["image"].astype(np.float32) / np.float32(255),
    label=np.where(label == _NO_LABEL, IGNORED, label.astype(np.int32)),
    depth=depth,
    normal=normal / np.maximum(length, 1),
  )
