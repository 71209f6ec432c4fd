"""What is wrong with a source of NYUv2 as a whole is told, all at once."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data.scene_files import (
  HEIGHT,
  WIDTH,
  fill,
  load,
  problems_of,
  save,
  truncate,
  write_arrays,
  write_images,
)


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
