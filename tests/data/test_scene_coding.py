"""Scenes whose numbers have another coding: refused, or told, before training."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igb_jax.data import nyuv2
from tests.data.scene_files import (
  HEIGHT,
  REAL,
  WIDTH,
  degrees,
  load,
  problems_of,
  save,
  write_arrays,
  write_images,
  write_mat,
)


def change(source, field, function):
  """Changes every npy file of a field."""
  for path in source.glob(f"*/{field}/*.npy"):
    save(path, function)


# ------------------------------------------------------------------------- normals


def coded(normal):
  """Normals as pictures have them."""
  return (normal + 1) / 2


def test_normals_coded_as_pictures_are_refused(source, cache):
  write_arrays(source)
  change(source, "normal", coded)
  count, (line,) = problems_of(source)
  assert count == 1
  assert line == (
    "*/normal/*.npy: no component of any normal is negative, and their lengths are not "
    "1, expected unit vectors with components of -1 to 1; if n is stored as "
    "(n + 1) / 2, store 2 * n - 1"
  )
  assert not list(cache.rglob("*array_record*"))
  change(source, "normal", lambda n: 2 * n - 1)  # as it says
  assert len(load(source)) == 5


def test_coded_normals_that_face_the_camera_are_refused(source, cache):
  def flat(normal):
    return coded(np.broadcast_to([0.0, 0.0, 1.0], normal.shape))

  write_arrays(source)
  change(source, "normal", flat)
  _, (line,) = problems_of(source)
  assert "no component of any normal is negative" in line


def test_coded_normals_are_refused_whatever_rounding_left_of_them(source, cache):
  write_arrays(source)
  change(source, "normal", lambda n: coded(n) - 1e-6)
  _, (line,) = problems_of(source)
  assert "no component of any normal is negative" in line


def test_one_file_with_a_negative_component_shows_that_all_are_normals(source, cache):
  """A scene may well have none, such as a corner seen from the left."""
  written = write_arrays(source)
  for path in sorted(source.glob("*/normal/*.npy"))[1:]:
    save(path, np.abs)
  dataset = load(source)
  for position, name in enumerate(dataset.names[1:], 1):
    expected = np.abs(written[name]["normal"])
    known = expected.any(-1)
    assert degrees(dataset[position].normal, expected)[known].max() < 0.1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unit_vectors_are_normals_without_a_negative_component(source, cache, dtype):
  written = write_arrays(source)
  change(source, "normal", lambda n: np.abs(n).astype(dtype))
  expected = np.abs(written["train/0"]["normal"])
  known = expected.any(-1)
  assert degrees(load(source)[0].normal, expected)[known].max() < 0.1


def test_unknown_normals_say_nothing_of_the_coding(source, cache):
  write_arrays(source)
  change(source, "normal", coded)
  save(source / "train" / "normal" / "0.npy", np.zeros_like)
  _, (line,) = problems_of(source)
  assert "no component of any normal is negative" in line


def test_normals_of_pictures_are_coded_as_they_should_be(source, cache):
  write_images(source, normals=True)
  assert len(load(source)) == 5


def test_caches_made_before_the_check_are_made_anew(source, cache):
  """Or normals that were read wrongly once would stay in use."""
  write_arrays(source)
  folder = load(source).folder
  manifest = json.loads((folder / "manifest.json").read_text())
  (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 3}))
  change(source, "normal", coded)
  assert problems_of(source)[0] == 1


# -------------------------------------------------------------------------- labels


def notices(source, capsys, **options):
  """What the first call says, and the description that later calls have too."""
  nyuv2.load(source, **options)
  said = capsys.readouterr().err
  description = nyuv2.load(source, **options).description
  assert capsys.readouterr().err == ""
  return said, description


def labels_of(low, high):
  rng = np.random.default_rng(0)

  def label(old):
    values = rng.integers(low, high + 1, old.shape)
    values.flat[:2] = low, high
    return values.astype(old.dtype)

  return label


@pytest.mark.parametrize(
  ("low", "high", "missing"),
  [
    (0, 12, "no pixel is -1"),  # or 0 unlabelled, 1 to 12 of 13
    (1, 12, "no pixel is 0 or -1"),
    (3, 12, "no pixel is 0 or -1"),
  ],
)
def test_labels_that_may_be_1_to_13_are_told(source, cache, capsys, low, high, missing):
  write_arrays(source)
  change(source, "label", labels_of(low, high))
  said, description = notices(source, capsys)
  expected = (
    f"labels taken as 0 (bed) to 12 (window), -1 ignored, though {missing}; if they "
    "count the classes from 1, store label - 1, and -1 where there is none"
  )
  assert expected in said
  assert description.endswith(expected)


def test_labels_without_the_first_class_are_told(source, cache, capsys):
  write_arrays(source)
  change(source, "label", lambda old: np.where(old == 0, 5, old))
  said, description = notices(source, capsys)
  assert "-1 ignored, though no pixel is 0;" in said
  assert "-1 ignored, though no pixel is 0;" in description


def test_labels_of_pictures_are_told(source, cache, capsys):
  write_images(source)
  for path in source.glob("*/label/*"):
    with Image.open(path) as image:
      values = np.array(image)
    Image.fromarray(values % 13).save(path)
  said, _ = notices(source, capsys)
  assert "255 ignored, though no pixel is 255;" in said


def test_labels_that_can_have_no_other_coding_are_not_told(source, cache, capsys):
  """They need not be in one file, nor in one part."""
  write_arrays(source)
  change(source, "label", lambda old: np.where(old < 1, 5, old))
  save(source / "train" / "label" / "1.npy", lambda old: np.where(old == 5, 0, old))
  save(source / "val" / "label" / "0.npy", lambda old: np.where(old == 5, -1, old))
  said, description = notices(source, capsys)
  assert "taken as" not in said + description


def test_labels_of_the_official_file_are_not_told(source, cache, capsys):
  write_mat(source / "nyu.mat", labels=np.full((4, 640, 480), 21, np.uint16))
  said, description = notices(source / "nyu.mat", capsys)
  assert "taken as" not in said + description


@pytest.mark.parametrize("write", [write_arrays, write_images])
def test_labels_of_1_to_13_are_refused_with_what_to_do(source, cache, write):
  write(source)
  for path in source.glob("*/label/*"):
    if path.suffix == ".npy":
      save(path, labels_of(0, 13))
    else:
      Image.fromarray(labels_of(0, 13)(np.zeros((HEIGHT, WIDTH), np.uint8))).save(path)
  count, lines = problems_of(source)
  assert count == 5
  ignored = "-1" if write is write_arrays else "255"
  assert all(
    f"{ignored} (ignored)" in line
    and f"1 to 13 with 0 for unlabelled: store label - 1, and {ignored} for 0" in line
    for line in lines
  )


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real images in {REAL}")
def test_real_images_without_the_first_class_are_taken(cache, capsys):
  said, _ = notices(Path(REAL), capsys, limit=2)  # four rooms without a bed
  assert "255 ignored, though no pixel is 0;" in said


# --------------------------------------------------------- other codings, refused


def test_images_divided_twice_are_refused(source, cache):
  write_arrays(source)
  change(source, "image", lambda image: image / 255)
  assert problems_of(source) == (
    1,
    [
      "*/image/*.npy: no value is above 1 / 255, expected 0 to 1; if they were divided "
      "by 255 twice, multiply by 255"
    ],
  )


def test_one_dark_image_is_no_other_coding(source, cache):
  write_arrays(source)
  save(source / "train" / "image" / "0.npy", np.zeros_like)
  assert not load(source)[0].image.any()


@pytest.mark.parametrize(
  ("field", "function", "advice"),
  [
    ("image", lambda a: 255 * a, "expected 0 to 1; if they are bytes, divide by 255"),
    ("normal", lambda n: 255 * coded(n), "are they bytes? Then store n / 127.5 - 1"),
    ("depth", lambda d: 1000 * d, "is it in metres? Of millimetres store a thousandth"),
    ("label", lambda a: np.where(a < 0, 255, a), "expected -1 (ignored) to 12"),
  ],
)
def test_other_units_are_refused_with_what_to_do(
  source, cache, field, function, advice
):
  write_arrays(source)
  change(source, field, function)
  count, lines = problems_of(source)
  assert count == 5
  assert all(advice in line for line in lines)
