"""NYUv2 from its three formats, with files made here, and its cache."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from igb_jax.data import _once, nyuv2
from igb_jax.data.loader import prefetch
from igb_jax.data.normals import normals_from_depth
from igb_jax.data.nyuv2 import _folders, _mat, _records, tables
from igb_jax.data.nyuv2.sources import recognise
from igb_jax.data.nyuv2.tables import scaled_intrinsics
from igb_jax.data.scene_batches import TrainBatches

HEIGHT, WIDTH = 24, 32
REAL = Path(
  os.environ.get("IGB_JAX_NYUV2", Path(__file__).parents[3] / "shared" / "nyuv2")
)


# Files in the three formats.


def make_fields(seed, height=HEIGHT, width=WIDTH):
  """A scene as arrays: image u8, label with -1, depth in whole mm, unit normals."""
  rng = np.random.default_rng(seed)
  depth = 2 + 0.01 * np.arange(width) + 0.02 * np.arange(height)[:, None] + seed % 3
  depth = np.rint(1000 * depth) / 1000
  depth[0, :3] = 0
  normal = rng.normal(size=(height, width, 3))
  normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
  normal[1, :4] = 0
  return {
    "image": rng.integers(0, 256, (height, width, 3), np.uint8),
    "label": rng.integers(-1, 13, (height, width)),
    "depth": depth,
    "normal": normal,
  }


def write_arrays(root, parts=(("train", 3), ("val", 2)), fields_of=make_fields):
  """Array folders as the literature shares them; returns part/name -> fields."""
  written = {}
  for part, count in parts:
    for i in range(count):
      fields = fields_of(100 * len(written) + i)
      stored = {
        "image": fields["image"] / 255.0,
        "label": fields["label"].astype(np.float64),
        "depth": fields["depth"][..., None],
        "normal": fields["normal"],
      }
      for field, values in stored.items():
        (root / part / field).mkdir(parents=True, exist_ok=True)
        np.save(root / part / field / f"{i}.npy", values)
      written[f"{part}/{i}"] = fields
  return written


def write_images(root, parts=(("train", 3), ("test", 2)), normals=False):
  """Image folders; returns part/name -> fields."""
  written = {}
  for part, count in parts:
    for i in range(count):
      fields = make_fields(100 * len(written) + i)
      label = np.where(fields["label"] < 0, 255, fields["label"]).astype(np.uint8)
      depth = np.rint(1000 * fields["depth"]).astype(np.uint16)
      normal = np.rint(255 * (fields["normal"] + 1) / 2).astype(np.uint8)
      stored = {"image": fields["image"], "label": label, "depth": depth}
      if normals:
        stored["normal"] = normal
      for field, values in stored.items():
        (root / part / field).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / part / field / f"{i + 1:04d}.png")
      written[f"{part}/{i + 1:04d}"] = fields
  return written


def write_mat(path, count=4, **changed):
  """The official file with fewer images; returns its fields."""
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 895, (count, 16, 12), np.uint16)
  fields = {
    "images": np.repeat(np.repeat(blocks[:, None] % 256, 40, 2), 40, 3)
    * np.ones((1, 3, 1, 1), np.uint8),
    "depths": np.broadcast_to(
      2 + np.arange(640.0)[:, None] / 500 + np.arange(480.0) / 900, (count, 640, 480)
    ),
    "labels": np.repeat(np.repeat(blocks, 40, 1), 40, 2),
  }
  types = {"images": np.uint8, "depths": np.float32, "labels": np.uint16}
  fields = {key: values.astype(types[key]) for key, values in fields.items()}
  fields.update(changed)
  with h5py.File(path, "w") as file:
    for key, values in fields.items():
      if values is not None:
        file.create_dataset(key, data=values, compression="gzip")
  return fields


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """The folder of the caches."""
  folder = tmp_path / "cache"
  monkeypatch.setenv("IGB_JAX_DATA", str(folder))
  return folder


@pytest.fixture
def source(tmp_path):
  """A folder for a source."""
  folder = tmp_path / "source"
  folder.mkdir()
  return folder


def load(path, **options):
  return nyuv2.load(path, progress=False, **options)


def degrees(found, expected):
  sine = np.linalg.norm(np.cross(found, expected), axis=-1)
  return np.degrees(np.arctan2(sine, np.sum(found * expected, axis=-1)))


def problems_of(path, **options):
  """Lines of the error about what is wrong with a source."""
  with pytest.raises(ValueError, match="problem") as caught:
    load(path, **options)
  first, *lines = str(caught.value).split("\n  ")
  matched = re.fullmatch(rf"{re.escape(str(path))}: (\d+) problems?", first)
  assert matched
  return int(matched[1]), lines


# What is stored comes back.


def check_scene(scene, fields):
  """Compares all but the normals."""
  assert [values.dtype for values in scene] == [
    np.float32,
    np.int32,
    np.float32,
    np.float32,
  ]
  np.testing.assert_allclose(scene.image, fields["image"] / 255, atol=1e-7)
  np.testing.assert_array_equal(scene.label, fields["label"])
  np.testing.assert_allclose(scene.depth, fields["depth"], rtol=1e-6)
  length = np.linalg.norm(scene.normal, axis=-1)
  assert np.all((length == 0) | (np.abs(length - 1) < 1e-5))


def test_array_folders(source, cache):
  written = write_arrays(source)
  dataset = load(source)
  assert dataset.names == ("train/0", "train/1", "train/2", "val/0", "val/1")
  assert (dataset.num_train, dataset.num_validation, dataset.num_test) == (3, 0, 2)
  assert dataset.size == (HEIGHT, WIDTH)
  assert f"array folders in {source}: 3 train, 2 test" in dataset.description
  for position, name in enumerate(dataset.names):
    scene, fields = dataset[position], written[name]
    check_scene(scene, fields)
    known = np.any(fields["normal"] != 0, axis=-1)
    assert not scene.normal[~known].any()
    assert degrees(scene.normal, fields["normal"])[known].max() < 0.1


def test_depth_of_arrays_is_as_it_is(source, cache):
  def fields_of(seed):
    return {**make_fields(seed), "depth": np.full((HEIGHT, WIDTH), 2.00012345)}

  write_arrays(source, fields_of=fields_of)
  assert load(source)[0].depth[3, 3] == np.float32(2.00012345)


def test_arrays_are_in_order_of_their_numbers(source, cache):
  written = write_arrays(source, (("train", 12), ("val", 1)))
  dataset = load(source)
  assert dataset.names[:12] == tuple(f"train/{i}" for i in range(12))
  for position, name in enumerate(dataset.names):  # and prepared by processes
    check_scene(dataset[position], written[name])


def test_arrays_of_other_types_and_shapes(source, cache):
  written = write_arrays(source)
  for path in source.glob("*/label/*.npy"):
    np.save(path, np.load(path).astype(np.int64)[..., None])
  for path in source.glob("*/depth/*.npy"):
    np.save(path, np.load(path).astype(np.float32)[..., 0])
  for path in source.glob("*/image/*.npy"):
    np.save(path, np.load(path).astype(np.float16))
  check_scene(load(source)[4], written["val/1"])


def test_lengths_of_normals_of_arrays(source, cache):
  write_arrays(source)
  normal = np.zeros((HEIGHT, WIDTH, 3))
  normal[..., 2] = 1
  normal[0, :3] = (0, 0, 0.4), (0, 0.6, 0), (1, 1, 1)
  np.save(source / "train" / "normal" / "0.npy", normal)
  np.testing.assert_array_equal(
    load(source)[0].normal[0, :4], [(0, 0, 0), (0, 1, 0), (0, 0, 0), (0, 0, 1)]
  )


def test_image_folders_with_normals_from_depth(source, cache):
  written = write_images(source)
  dataset = load(source)
  assert dataset.names[-2:] == ("test/0001", "test/0002")
  assert dataset.description.endswith(
    "normals from depth, assuming images of 480 x 640 to be whole and others to be the "
    "valid region (rows 44 to 470, columns 40 to 600) resized"
  )
  for position, name in enumerate(dataset.names):
    scene = dataset[position]
    check_scene(scene, written[name])
    expected = normals_from_depth(scene.depth, scaled_intrinsics(HEIGHT, WIDTH))
    known = np.any(expected != 0, axis=-1)
    assert known.any()
    np.testing.assert_array_equal(np.any(scene.normal != 0, axis=-1), known)
    assert degrees(scene.normal, expected)[known].max() < 0.1


def test_image_folders_with_normals(source, cache):
  written = write_images(source, normals=True)
  dataset = load(source)
  assert "normals as they are" in dataset.description
  for position, name in enumerate(dataset.names):
    check_scene(dataset[position], written[name])
    expected = written[name]["normal"]
    known = np.any(expected != 0, axis=-1)
    assert not dataset[position].normal[~known].any()
    assert degrees(dataset[position].normal, expected)[known].max() < 0.5


def test_jpeg_images(source, cache):
  write_images(source)
  for path in source.glob("*/image/*.png"):
    flat = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    Image.fromarray(flat).save(path.with_suffix(".JPG"), quality=95)
    path.unlink()
  np.testing.assert_allclose(load(source)[0].image, 100 / 255, atol=0.01)


def test_hidden_files_do_not_matter(source, cache):
  write_images(source)
  (source / ".DS_Store").write_text("")
  (source / "train" / "image" / "._0001.png").write_text("")
  (source / "train" / "image" / "Thumbs.db").write_text("")
  assert len(load(source)) == 5


def test_official_file(source, cache):
  fields = write_mat(source / _mat.MAT_NAME)
  dataset = load(source)
  # The first images of the official split: 1 and 2 are for testing.
  assert dataset.names == ("train/0003", "train/0004", "test/0001", "test/0002")
  assert "the first 4 of 1449 images" in dataset.description
  assert dataset.size == (288, 384)
  for position, name in enumerate(dataset.names):
    scene = dataset[position]
    index = int(name[-4:]) - 1
    # Row 100 and column 200 of the result are those of the original, nearest.
    row, column = 44 + int(100.5 * 427 / 288), 40 + int(200.5 * 561 / 384)
    name894 = fields["labels"][index, column, row]
    assert scene.label[100, 200] == tables.classes_of_names(name894)
    assert scene.depth[100, 200] == pytest.approx(
      fields["depths"][index, column, row], abs=0.51e-3
    )
    # Within a block of one colour, bilinear gives this colour.
    expected = fields["images"][index, :, 300, 220] / 255
    row, column = round((220 - 44) * 288 / 427), round((300 - 40) * 384 / 561)
    np.testing.assert_allclose(scene.image[row, column], expected, atol=1e-6)
    assert (scene.normal[..., 2] > 0).all()


def test_official_file_by_its_own_path(source, cache):
  write_mat(source / "nyu.mat")
  assert len(load(source / "nyu.mat")) == 4


def test_links_to_the_official_file(source, tmp_path, cache):
  write_mat(tmp_path / "blob")
  (source / _mat.MAT_NAME).symlink_to(tmp_path / "blob")
  folders = {load(path).folder for path in (source, source / _mat.MAT_NAME)}
  assert len(folders) == 1


def test_official_split_and_classes():
  train, test = tables.TABLES["train"], tables.TABLES["test"]
  assert (len(train), len(test)) == (795, 654)
  assert sorted(train + test) == list(range(1, 1450))
  assert len(nyuv2.CLASS_NAMES) == 13
  # Chair, floor, wall, bed, television, window and door among the 894 names.
  names = np.array([[5, 11, 21], [157, 172, 59]])
  classes = tables.classes_of_names(names)
  assert [nyuv2.CLASS_NAMES[i] for i in classes.ravel()] == [
    "chair",
    "floor",
    "wall",
    "bed",
    "tv",
    "window",
  ]
  assert tables.classes_of_names(np.array(0)) == -1


def test_intrinsics_of_whole_images():
  assert scaled_intrinsics(480, 640) == pytest.approx(
    (518.86, 519.47, 325.58, 253.74), abs=0.01
  )


# Parts and splits.


def test_own_validation_scenes(source, cache):
  write_arrays(source, (("train", 2), ("val", 1), ("test", 3)))
  dataset = load(source)
  assert (dataset.num_train, dataset.num_validation, dataset.num_test) == (2, 1, 3)
  standard, paper = dataset.split("standard"), dataset.split("paper")
  assert standard.validation.tolist() == []
  assert standard.test.tolist() == [2, 3, 4, 5]
  assert paper.validation.tolist() == [2]
  assert paper.test.tolist() == [3, 4, 5]


def test_standard_split():
  parts = nyuv2.split(795, 0, 654)
  assert parts.train.tolist() == list(range(795))
  assert parts.validation.tolist() == []
  assert parts.test.tolist() == list(range(795, 1449))


def test_papers_split_depends_on_the_seed_alone():
  first, again, other = (nyuv2.split(795, 0, 654, "paper", seed=s) for s in (0, 0, 1))
  for parts in (first, other):
    assert parts.train.tolist() == list(range(795))
    assert (len(parts.validation), len(parts.test)) == (197, 457)
    both = np.concatenate([parts.validation, parts.test])
    assert sorted(both.tolist()) == list(range(795, 1449))
  np.testing.assert_array_equal(first.test, again.test)
  assert set(first.test.tolist()) != set(other.test.tolist())


def test_split_of_few_scenes():
  parts = nyuv2.split(1, 0, 2, "paper")
  assert (len(parts.validation), len(parts.test)) == (1, 1)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((2, 0, 2, "other"), r"unknown split 'other', expected one of \['standard', 'pap"),
    ((0, 0, 2), "must be training and test scenes, got 0 train, 0 val"),
    ((2, 0, 1, "paper"), "test scenes .* needs at least 2 of them, got 1; .* `limit`"),
  ],
)
def test_split_errors(arguments, message):
  with pytest.raises(ValueError, match=message):
    nyuv2.split(*arguments)


@pytest.mark.parametrize("position", [-1, 5])
def test_positions(source, cache, position):
  write_images(source)
  with pytest.raises(IndexError, match=f"no scene {position}, there are 5"):
    load(source)[position]


def test_limit(source, cache):
  write_images(source)
  dataset = load(source, limit=2)
  assert dataset.names == ("train/0001", "train/0002", "test/0001", "test/0002")
  assert "the first 2 at most" in dataset.description
  assert len(load(source)) == 5  # which has a cache of its own
  with pytest.raises(ValueError, match="limit must be positive, got 0"):
    load(source, limit=0)


# What is wrong with a source.


def test_nothing_there(source, cache):
  with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such file"):
    load(source / "nowhere")
  with pytest.raises(FileNotFoundError, match="the folder is empty"):
    load(source)
  (source / "photo.png").write_text("")
  with pytest.raises(FileNotFoundError, match=r"the folder has photo.png\). Expected"):
    load(source)
  with pytest.raises(FileNotFoundError, match="it is a file"):
    load(source / "photo.png")
  (source / "train" / "image").mkdir(parents=True)
  (source / "val" / "image").mkdir(parents=True)
  (source / "val" / "image" / "0001.tif").write_text("")
  with pytest.raises(
    FileNotFoundError,
    match=r"the folder has photo.png, train, val; train/image is empty; "
    r"val/image has 0001.tif\)",
  ):
    load(source)
  for i in range(10):
    (source / f"a{i}").mkdir()
  with pytest.raises(FileNotFoundError, match="and 5 more"):
    load(source)
  assert not cache.exists()


def save(path, change):
  np.save(path, change(np.load(path)))


def put(values, value):
  values = values.copy()
  values[2, 2] = value
  return values


ARRAY_PROBLEMS = {
  "image in bytes": ("image", lambda a: 255 * a, r"values 0 to 255, expected 0 to 1"),
  "image of integers": ("image", lambda a: a.astype(int), "type int64, expected float"),
  "image, channels first": (
    "image",
    lambda a: a.transpose(2, 0, 1),
    r"shape \(3, 24, 32\), expected height x width x 3",
  ),
  "image not finite": ("image", lambda a: put(a, np.nan), "values that are not finite"),
  "label above 12": ("label", lambda a: put(a, 13), "labels -1 to 13, expected -1"),
  "label below -1": ("label", lambda a: put(a, -2), "labels -2 to 12, expected -1"),
  "label of fractions": ("label", lambda a: put(a, 0.5), "not whole numbers"),
  "label not finite": ("label", lambda a: put(a, np.inf), "not finite"),
  "label of strings": ("label", lambda a: a.astype(str), "type <U32, expected float"),
  "label of channels": (
    "label",
    lambda a: np.stack([a, a], -1),
    r"shape \(24, 32, 2\), expected height x width",
  ),
  "depth negative": ("depth", lambda a: put(a, -1), r"negative depth \(-1\)"),
  "depth not finite": ("depth", lambda a: put(a, np.nan), "not finite"),
  "depth in millimetres": ("depth", lambda a: 1000 * a, "is it in metres"),
  "depth of integers": ("depth", lambda a: a.astype(int), "type int64"),
  "depth flat": ("depth", lambda a: a.ravel(), r"shape \(768,\)"),
  "depth of another size": ("depth", lambda a: a[2:], "22 x 32, but its image is 24 x"),
  "normal not finite": ("normal", lambda a: put(a, np.nan), "not finite"),
  "normal too long": ("normal", lambda a: put(a, 2), "expected -1 to 1"),
  "normal of two": ("normal", lambda a: a[..., :2], r"shape \(24, 32, 2\)"),
}


@pytest.mark.parametrize("case", ARRAY_PROBLEMS)
def test_bad_arrays(source, cache, case):
  field, change, reason = ARRAY_PROBLEMS[case]
  write_arrays(source)
  save(source / "val" / field / "1.npy", change)
  count, (line,) = problems_of(source)
  assert count == 1
  assert line.startswith(f"val/{field}/1.npy: ")
  assert re.search(reason, line)
  assert not list(cache.rglob("*array_record*"))


@pytest.mark.parametrize(("height", "width"), [(0, 0), (7, 32), (24, 7)])
def test_images_too_small(source, cache, height, width):
  write_arrays(source)
  for field in ("image", "label", "depth", "normal"):
    save(source / "val" / field / "1.npy", lambda a: a[:height, :width])
  _, lines = problems_of(source)
  expected = f"{height} x {width}, expected 8 x 8 at least"
  assert lines == [f"val/image/1.npy: {expected}"]


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_all_damaged_files_are_named_at_once(source, cache):
  write_arrays(source)
  truncate(source / "train" / "image" / "0.npy")
  (source / "train" / "depth" / "0.npy").write_bytes(b"")
  (source / "val" / "label" / "1.npy").write_bytes(b"something else")
  with (source / "val" / "normal" / "1.npy").open("wb") as file:
    np.savez(file, a=np.zeros(3))
  np.save(source / "val" / "image" / "0.npy", np.array([{}]), allow_pickle=True)
  count, lines = problems_of(source)
  assert count == len(lines) == 5
  assert [line.split(": ")[0] for line in lines] == [
    "train/image/0.npy",
    "train/depth/0.npy",
    "val/image/0.npy",
    "val/label/1.npy",
    "val/normal/1.npy",
  ]
  assert all("cannot be read (" in line for line in lines)


def test_more_problems_than_are_printed(source, cache):
  write_arrays(source, (("train", 10), ("val", 1)))
  for field in ("image", "depth", "normal"):
    for i in range(10):
      save(source / "train" / field / f"{i}.npy", lambda a: a + 100)
  count, lines = problems_of(source)
  assert count == 30
  assert len(lines) == 21
  assert lines[-1] == "and 10 more"


def test_missing_files_and_bad_ones_are_named_together(source, cache):
  write_arrays(source)
  (source / "train" / "image" / "1.npy").unlink()
  (source / "train" / "depth" / "2.npy").unlink()
  (source / "val" / "normal" / "0.npy").unlink()
  save(source / "val" / "depth" / "0.npy", lambda a: -a - 1)
  count, lines = problems_of(source)
  assert count == 4
  assert lines[:3] == [
    "train/image/1.npy: is missing",
    "train/depth/2.npy: is missing",
    "val/normal/0.npy: is missing",
  ]
  assert lines[3].startswith("val/depth/0.npy: negative depth")


def test_unexpected_files_are_named_with_the_rest(source, cache):
  write_images(source)
  load(source)
  shutil.copy(
    source / "train" / "depth" / "0001.png", source / "train" / "depth" / "0009.tif"
  )
  (source / "test" / "image" / "older").mkdir()
  truncate(source / "test" / "label" / "0001.png")
  count, lines = problems_of(source)
  assert count == 3
  assert lines[:2] == [
    "train/depth/0009.tif: is not *.png",
    "test/image/older: is not *.jpg or *.jpeg or *.png",
  ]
  assert lines[2].startswith("test/label/0001.png: cannot be read")


def test_links_to_nowhere_are_named_with_the_rest(source, cache):
  write_images(source)
  label = source / "train" / "label" / "0002.png"
  label.unlink()
  label.symlink_to(source / "nowhere.png")
  truncate(source / "test" / "depth" / "0001.png")
  count, lines = problems_of(source)
  assert count == 2
  assert lines[0].startswith("train/label/0002.png: cannot be read")
  assert lines[1].startswith("test/depth/0001.png: cannot be read")
  write_images(source)
  label.unlink()
  (source / "nowhere.png").rename(label)
  assert len(load(source)) == 5


def fill(source, files, value):
  for path in source.glob(files):
    with Image.open(path) as image:
      Image.fromarray(np.full_like(np.array(image), value)).save(path)


def test_parts_without_anything_of_a_task(source, cache):
  write_images(source, normals=True)
  fill(source, "train/label/*", 255)
  fill(source, "test/normal/*", 127)
  fill(source, "test/depth/*", 0)
  truncate(source / "train" / "image" / "0001.png")
  count, lines = problems_of(source)
  assert count == 3  # The damaged scene of the training part might have labels.
  assert lines[0].startswith("train/image/0001.png: cannot be read")
  assert lines[1:] == [
    "test: no pixel has a depth, which the task depth needs",
    "test: no pixel has a normal, which the task normal needs",
  ]
  write_images(source, (("train", 1),), normals=True)
  fill(source, "train/label/*", 255)
  _, lines = problems_of(source)
  assert lines[0] == "train: no pixel has a label, which the task segmentation needs"


def test_parts_whose_depth_gives_no_normals(source, cache):
  written = write_images(source)
  depth = np.zeros((HEIGHT, WIDTH), np.uint16)
  depth[5, 5] = 2000
  for path in source.glob("train/depth/*"):
    Image.fromarray(depth).save(path)
  assert problems_of(source) == (
    1,
    ["train: no pixel has a normal, which the task normal needs"],
  )
  fill(source, "train/depth/0003.png", 2000)  # One scene that does will do.
  assert len(load(source)) == len(written)


@pytest.mark.parametrize(
  ("files", "value", "found"),
  [
    ("label", 255, "label, which the task segmentation needs"),
    ("depth", 0, "depth, which the task depth needs; none of its .* with a normal, wh"),
    ("normal", 127, "normal, which the task normal needs"),
  ],
)
@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_split_without_anything_of_a_task_is_refused(
  source, cache, files, value, found, part
):
  write_images(source, (("train", 1), ("test", 4)), normals=files == "normal")
  paper = nyuv2.split(1, 0, 4, "paper")
  for position in getattr(paper, part):
    fill(source, f"test/{files}/{position:04d}.png", value)
  for dataset in (load(source), load(source)):  # prepared, and from the cache
    number = len(getattr(paper, part))
    with pytest.raises(
      ValueError,
      match=f"split paper with the seed 0 .*: none of its {number} {part} scenes has "
      f"a pixel with a {found}.* Take another seed of the split, more scenes",
    ):
      dataset.split("paper")
    dataset.split("standard")
    others = [nyuv2.split(1, 0, 4, "paper", seed=seed) for seed in range(9)]
    seed = next(s for s, o in enumerate(others) if list(o.test) != list(paper.test))
    if part == "validation":  # a single scene, which the tests have with this seed
      dataset.split("paper", seed=seed)


def test_missing_folders(source, cache):
  write_images(source, (("test", 2),))
  shutil.rmtree(source / "test" / "depth")
  for path in (source / "test" / "label").iterdir():
    path.unlink()
  assert problems_of(source) == (
    3,
    [
      "train: there is no such folder",
      "test/label: there is no *.png",
      "test/depth: there is no such folder",
    ],
  )


def test_nothing_held_out(source, cache):
  write_images(source, (("train", 2),))
  assert problems_of(source) == (1, ["val, test: there is neither of these folders"])


def test_normals_in_one_part_alone(source, cache):
  write_arrays(source)
  shutil.rmtree(source / "val" / "normal")
  assert problems_of(source) == (1, ["val/normal: there is no such folder"])


def test_two_files_of_one_name(source, cache):
  write_images(source)
  shutil.copy(
    source / "train" / "image" / "0001.png", source / "train" / "image" / "0001.jpg"
  )
  assert problems_of(source) == (
    1,
    ["train/image/0001: there are 2 files of this name"],
  )


def test_images_of_different_sizes(source, cache):
  write_images(source)
  for field in ("image", "label", "depth"):
    path = source / "train" / field / "0002.png"
    with Image.open(path) as image:
      image.crop((0, 0, 30, 20)).save(path)
  assert problems_of(source) == (1, ["train/0002: 20 x 30, but most are 24 x 32"])


def save_image(values):
  return lambda path: Image.fromarray(values).save(path, format="PNG")


IMAGE_PROBLEMS = {
  "image grey": (
    "image",
    save_image(np.zeros((24, 32), np.uint8)),
    "mode L, exp.* RGB",
  ),
  "image with alpha": (
    "image",
    save_image(np.zeros((24, 32, 4), np.uint8)),
    "mode RGBA",
  ),
  "image truncated": ("image", truncate, "cannot be read"),
  "image empty": ("image", lambda path: path.write_bytes(b""), "cannot be read"),
  "image of text": ("image", lambda path: path.write_text("hello"), "cannot be read"),
  "label of 40": (
    "label",
    save_image(np.full((24, 32), 40, np.uint8)),
    "label 40, exp",
  ),
  "label in colour": (
    "label",
    save_image(np.zeros((24, 32, 3), np.uint8)),
    "mode RGB, ",
  ),
  "label without its end": (
    "label",
    lambda path: path.write_bytes(path.read_bytes()[:-12]),
    "cannot be read",
  ),
  "label truncated": ("label", truncate, "cannot be read"),
  "depth of 8 bits": (
    "depth",
    save_image(np.ones((24, 32), np.uint8)),
    "mode L, .* 16",
  ),
  "depth truncated": ("depth", truncate, "cannot be read"),
  "depth of another size": (
    "depth",
    save_image(np.ones((24, 30), np.uint16)),
    "24 x 30, but its image is 24 x 32",
  ),
  "normal grey": ("normal", save_image(np.zeros((24, 32), np.uint8)), "mode L"),
}


@pytest.mark.parametrize("case", IMAGE_PROBLEMS)
def test_bad_images(source, cache, case):
  field, damage, reason = IMAGE_PROBLEMS[case]
  write_images(source, normals=True)
  damage(source / "test" / field / "0002.png")
  count, (line,) = problems_of(source)
  assert count == 1
  assert line.startswith(f"test/{field}/0002.png: ")
  assert re.search(reason, line)


@pytest.mark.parametrize(("field", "dtype"), [("label", "uint8"), ("depth", "uint16")])
def test_any_flipped_byte_of_a_png_is_noticed(source, cache, field, dtype):
  write_images(source)
  path = source / "test" / field / "0002.png"
  Image.fromarray(np.tile(np.arange(8, dtype=dtype), (HEIGHT, 4))).save(path)
  scene = recognise(source).scenes["test"][1]
  assert scene.read().problems == ()
  content = path.read_bytes()
  for position in range(content.index(b"IDAT") + 4, content.index(b"IEND") - 8):
    flipped = bytearray(content)
    flipped[position] ^= 1
    path.write_bytes(flipped)
    (problem,) = scene.read().problems
    assert problem.startswith(f"test/{field}/0002.png: cannot be read (")


def test_bad_official_images(source, cache):
  path = source / "nyu.mat"
  fields = write_mat(path)
  labels, depths = fields["labels"].copy(), fields["depths"].copy()
  labels[1] = 0
  labels[1, 5, 5] = 895
  depths[1, 5, 5] = np.nan
  depths[3, 5, 5] = -1
  write_mat(path, labels=labels, depths=depths)
  assert problems_of(path) == (
    3,
    [
      "nyu.mat, depths of image 4: negative depth (-1)",
      "nyu.mat, labels of image 2: labels 0 to 895, expected 0 to 894",
      "nyu.mat, depths of image 2: values that are not finite",
    ],
  )


MAT_PROBLEMS = {
  "no labels": ({"labels": None}, "there is no labels in it"),
  "depth of float64": ({"depths": np.ones((4, 640, 480))}, r"depths is float64\[4, 64"),
  "images turned": (
    {"images": np.ones((4, 3, 480, 640), np.uint8)},
    r"images is uint8\[4, 3, 480, 640\], expected uint8\[N, 3, 640, 480\]",
  ),
  "fewer labels": (
    {"labels": np.ones((3, 640, 480), np.uint16)},
    "numbers differ: 4 images, 4 depths, 3 labels",
  ),
}


@pytest.mark.parametrize("case", MAT_PROBLEMS)
def test_not_the_official_file(source, cache, case):
  changed, reason = MAT_PROBLEMS[case]
  write_mat(source / "nyu.mat", **changed)
  count, (line,) = problems_of(source / "nyu.mat")
  assert count == 1
  assert re.search(f"^nyu.mat: {reason}", line)


def test_truncated_official_file(source, cache):
  write_mat(source / "nyu.mat")
  truncate(source / "nyu.mat")
  count, (line,) = problems_of(source / "nyu.mat")
  assert count == 1
  assert line.startswith("nyu.mat: cannot be read (")


def test_damaged_image_of_the_official_file(source, cache):
  write_mat(source / "nyu.mat")
  content = bytearray((source / "nyu.mat").read_bytes())
  with h5py.File(source / "nyu.mat") as file:
    info = file["depths"].id.get_chunk_info(0)
  content[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
  (source / "nyu.mat").write_bytes(content)
  _, lines = problems_of(source / "nyu.mat")
  assert lines[-1].startswith("nyu.mat, image 1: cannot be read (")


def test_official_file_of_too_few_and_too_many(source, cache):
  write_mat(source / "nyu.mat", count=2)
  _, lines = problems_of(source / "nyu.mat")
  assert lines == ["nyu.mat: its 2 images include none of the train split"]
  with h5py.File(source / "nyu.mat", "w") as file:
    for key, (dtype, shape) in _mat.MAT_FIELDS.items():
      file.create_dataset(key, (1450, *shape), dtype, chunks=(1, *shape))
  _, lines = problems_of(source / "nyu.mat")
  assert lines == ["nyu.mat: 1450 images, expected 1449 at most"]


# The cache.


@pytest.fixture
def no_reading(monkeypatch):
  """Makes it an error to read the files of a source."""

  def read(self):
    raise AssertionError("the source was read")

  monkeypatch.setattr(_folders.FolderScene, "read", read)
  monkeypatch.setattr(_mat.MatScene, "read", read)


def cache_folder(cache):
  (folder,) = (path for path in (cache / "igb_nyuv2").iterdir() if path.is_dir())
  return folder


def test_second_call_reads_the_cache(source, cache, request, capsys):
  written = write_images(source)
  nyuv2.load(source)
  shown = capsys.readouterr().err
  assert f"Preparing the NYUv2 cache in {cache_folder(cache)}, once" in shown
  assert f"Found image folders in {source}: 3 train, 2 test scenes" in shown
  assert "Checking: 5 of 5 scenes" in shown
  assert "Preparing: 5 of 5 scenes" in shown
  request.getfixturevalue("no_reading")
  dataset = nyuv2.load(source)
  assert capsys.readouterr().err == ""
  check_scene(dataset[1], written["train/0002"])


def test_sources_have_caches_of_their_own(tmp_path, cache):
  write_images(tmp_path / "a" / "nyu", (("train", 1), ("test", 1)))
  write_images(tmp_path / "b" / "nyu", (("train", 2), ("test", 1)))
  assert [len(load(tmp_path / name / "nyu")) for name in "abab"] == [2, 3, 2, 3]
  folders = [path for path in (cache / "igb_nyuv2").iterdir() if path.is_dir()]
  assert len(folders) == 2
  assert all(folder.name.startswith("nyu-") for folder in folders)


def test_ways_to_one_source_have_one_cache(source, tmp_path, cache, monkeypatch):
  write_images(source)
  (tmp_path / "x").mkdir()
  (tmp_path / "link").symlink_to(source)
  monkeypatch.chdir(source)
  ways = [source, tmp_path / "x" / ".." / source.name, tmp_path / "link", Path(".")]
  datasets = [load(way) for way in ways]
  assert {dataset.folder for dataset in datasets} == {cache_folder(cache)}
  unusual = load(tmp_path / "x" / ".." / source.name, limit=1)
  assert unusual.description.startswith(f"image folders in {source}: ")


def assert_same(found, expected):
  for values, others in zip(found, expected, strict=True):
    np.testing.assert_array_equal(values, others, strict=True)


def test_pickled(source, cache):
  write_images(source)
  dataset = load(source)
  again = pickle.loads(pickle.dumps(dataset))
  assert repr(again) == repr(dataset)
  assert again.names == dataset.names
  for position in range(len(dataset)):
    assert_same(again[position], dataset[position])


def test_loader_reads_in_processes(source, cache):
  write_images(source)
  dataset = load(source)
  batches = TrainBatches(
    dataset, dataset.split().train, 2, dataset.size, seed=0, num_epochs=4
  )
  expected = list(prefetch(batches, workers=0))
  assert len(expected) == 4
  for found, batch in zip(prefetch(batches, workers=1), expected, strict=True):
    assert_same(found, batch)


def test_given_folder_of_the_cache(source, tmp_path, cache):
  write_images(source)
  assert load(source, cache_dir=tmp_path / "other").folder.is_relative_to(
    tmp_path / "other"
  )
  assert not cache.exists()


def change_a_file(source):
  fields = make_fields(77)
  Image.fromarray(fields["image"]).save(source / "train" / "image" / "0001.png")


def touch_a_file(source):
  os.utime(source / "train" / "label" / "0001.png", ns=(1, 1))


def add_a_scene(source):
  for field in ("image", "label", "depth"):
    folder = source / "test" / field
    shutil.copy(folder / "0001.png", folder / "0003.png")


@pytest.mark.parametrize("change", [change_a_file, touch_a_file, add_a_scene])
def test_changed_source_is_prepared_anew(source, cache, change, capsys):
  write_images(source)
  load(source)
  capsys.readouterr()
  change(source)
  dataset = load(source)
  assert capsys.readouterr().err == (
    f"Rebuilding the NYUv2 cache in {dataset.folder}: the source has changed\n"
  )
  assert len(dataset) == (6 if change is add_a_scene else 5)
  if change is change_a_file:
    expected = make_fields(77)["image"] / np.float32(255)
    np.testing.assert_array_equal(dataset[0].image, expected)
  load(source)
  assert capsys.readouterr().err == ""


def test_changed_official_file_is_prepared_anew(source, cache):
  write_mat(source / "nyu.mat")
  assert len(load(source / "nyu.mat")) == 4
  write_mat(source / "nyu.mat", count=3)
  assert len(load(source / "nyu.mat")) == 3


def record_file(cache):
  return sorted(cache_folder(cache).rglob("*array_record*"))[0]


def remove_manifest(cache):
  (cache_folder(cache) / "manifest.json").unlink()


def garble_manifest(cache):
  (cache_folder(cache) / "manifest.json").write_text('{"version":')


def empty_manifest(cache):
  (cache_folder(cache) / "manifest.json").write_text("{}")


def manifest_without_a_part(cache):
  path = cache_folder(cache) / "manifest.json"
  path.write_text(path.read_text().replace('"train": [', '"trbin": ['))


def older_manifest(cache):
  path = cache_folder(cache) / "manifest.json"
  manifest = json.loads(path.read_text())
  del manifest["lacking"]  # as in all that are older
  path.write_text(json.dumps({**manifest, "version": 0}))


def truncate_records(cache):
  truncate(record_file(cache))


def remove_records(cache):
  record_file(cache).unlink()


@pytest.mark.parametrize(
  ("damage", "reason"),
  [
    (remove_manifest, "it is not complete"),
    (garble_manifest, "manifest.json is damaged"),
    (empty_manifest, "manifest.json is damaged"),
    (manifest_without_a_part, "manifest.json is damaged"),
    (older_manifest, "it has version 0, not 4"),
    (truncate_records, "files are missing or damaged"),
    (remove_records, "files are missing or damaged"),
  ],
)
def test_rebuilds_a_damaged_cache(source, cache, damage, reason, capsys):
  written = write_images(source)
  load(source)
  damage(cache)
  capsys.readouterr()
  dataset = load(source)
  assert capsys.readouterr().err == (
    f"Rebuilding the NYUv2 cache in {cache_folder(cache)}: {reason}\n"
  )
  check_scene(dataset[4], written["test/0002"])


def test_damage_within_a_record_is_named(source, cache):
  write_images(source)
  load(source)
  path = record_file(cache)
  content = bytearray(path.read_bytes())
  middle = len(content) // 2
  content[middle : middle + 64] = bytes(64)
  path.write_bytes(content)
  dataset = load(source)
  first = 3 if "test" in path.name else 0
  with pytest.raises(OSError, match=r"scene \d is damaged; remove the folder"):
    list(map(dataset.__getitem__, range(first, len(dataset))))


def test_failed_preparation_leaves_nothing_that_looks_complete(
  source, cache, monkeypatch
):
  written = write_images(source)

  def fail(*args):
    raise ValueError("no normals today")

  with monkeypatch.context() as patch:
    patch.setattr(_records, "normals_from_depth", fail)
    with pytest.raises(ValueError, match="no normals today"):
      load(source)
  check_scene(load(source)[0], written["train/0001"])


def test_failed_rename_leaves_nothing_that_looks_complete(source, cache, monkeypatch):
  write_images(source)

  def fail(*args):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match=r"NYUv2 cache \(No space left") as caught:
      load(source)
  assert caught.value.filename == str(cache_folder(cache))
  assert len(load(source)) == 5


def test_unwritable_folder_is_named(source, tmp_path):
  write_images(source)
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match=r"cannot write the NYUv2 cache .*file/igb_nyuv2"):
    load(source, cache_dir=tmp_path / "file")


def test_reads_without_a_lock_where_nothing_can_be_written(source, cache, monkeypatch):
  write_images(source)
  load(source)
  monkeypatch.setattr(_once.os, "access", lambda path, mode: False)
  monkeypatch.setattr(_once, "locked", None)
  assert len(load(source)) == 5


def start(source, cache):
  """Starts a process that loads a source."""
  code = (
    "import sys, pathlib\n"
    "from igb_jax.data import nyuv2\n"
    "if __name__ == '__main__':\n"
    "  dataset = nyuv2.load(*map(pathlib.Path, sys.argv[1:]))\n"
    "  print(len(dataset), dataset[3].image.sum())\n"
    "  assert 'tensorflow' not in sys.modules\n"
  )
  return subprocess.Popen(
    [sys.executable, "-c", code, str(source), str(cache)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
  )


def test_two_processes_prepare_once(source, cache):
  write_images(source, (("train", 20), ("test", 4)))
  processes = [start(source, cache) for _ in range(2)]
  outputs, errors = zip(*(p.communicate(timeout=120) for p in processes), strict=True)
  assert [process.returncode for process in processes] == [0, 0], errors
  assert outputs[0] == outputs[1]
  assert outputs[0].startswith("24 ")
  together = "".join(errors)
  assert together.count("Preparing the NYUv2 cache") == 1
  assert "Preparing: 24 of 24 scenes" in together


# The real images, where they are.


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real images in {REAL}")
def test_real_images(cache):
  dataset = load(REAL, limit=2)
  assert dataset.names == ("train/0003", "train/0004", "test/0001", "test/0002")
  assert dataset.size == (288, 384)
  assert {part: len(scenes) for part, scenes in recognise(REAL).scenes.items()} == {
    "train": 795,
    "test": 654,
  }
  for position in range(len(dataset)):
    scene = dataset[position]
    assert scene.image.min() >= 0
    assert 0.2 < scene.image.mean() < 0.8
    assert scene.label.min() >= -1
    assert scene.label.max() <= 12
    assert 0.5 < scene.depth.min() < scene.depth.max() < 10
    length = np.linalg.norm(scene.normal, axis=-1)
    np.testing.assert_allclose(length[length > 0], 1, atol=1e-5)
    assert (length > 0).mean() > 0.8
    floor = (scene.label == nyuv2.CLASS_NAMES.index("floor")) & (length > 0)
    if floor.sum() > 1000:
      assert np.median(scene.normal[floor], axis=0)[1] > 0.7
