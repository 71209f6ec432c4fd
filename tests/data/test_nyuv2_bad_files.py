"""Files of NYUv2 that are damaged, or hold what they should not, are named."""

import re

import h5py
import numpy as np
import pytest
from PIL import Image

from igb_jax.data.nyuv2 import _mat
from igb_jax.data.nyuv2.sources import recognise
from tests.data.scene_files import (
  HEIGHT,
  problems_of,
  save,
  truncate,
  write_arrays,
  write_images,
  write_mat,
)


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
