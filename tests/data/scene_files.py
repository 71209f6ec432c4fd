"""NYUv2 in its three formats, made here, and what tests ask of it."""

import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from igb_jax.data import nyuv2

HEIGHT, WIDTH = 24, 32
REAL = Path(
  os.environ.get("IGB_JAX_NYUV2", Path(__file__).parents[3] / "shared" / "nyuv2")
)


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


def load(path, **options):
  return nyuv2.load(path, progress=False, **options)


def problems_of(path, **options):
  """Lines of the error about what is wrong with a source."""
  with pytest.raises(ValueError, match="problem") as caught:
    load(path, **options)
  first, *lines = str(caught.value).split("\n  ")
  matched = re.fullmatch(rf"{re.escape(str(path))}: (\d+) problems?", first)
  assert matched
  return int(matched[1]), lines


def degrees(found, expected):
  sine = np.linalg.norm(np.cross(found, expected), axis=-1)
  return np.degrees(np.arctan2(sine, np.sum(found * expected, axis=-1)))


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


def save(path, change):
  np.save(path, change(np.load(path)))


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill(source, files, value):
  for path in source.glob(files):
    with Image.open(path) as image:
      Image.fromarray(np.full_like(np.array(image), value)).save(path)


def cache_folder(cache):
  (folder,) = (path for path in (cache / "igb_nyuv2").iterdir() if path.is_dir())
  return folder
