"""NYUv2 from its three formats, with files made here, and the real one."""

import numpy as np
import pytest
from PIL import Image

from igb_jax.data import nyuv2
from igb_jax.data.normals import normals_from_depth
from igb_jax.data.nyuv2 import _mat, tables
from igb_jax.data.nyuv2.sources import recognise
from igb_jax.data.nyuv2.tables import scaled_intrinsics
from tests.data.scene_files import (
  HEIGHT,
  REAL,
  WIDTH,
  check_scene,
  degrees,
  load,
  make_fields,
  write_arrays,
  write_images,
  write_mat,
)


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


@pytest.mark.slow
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
