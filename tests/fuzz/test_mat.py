"""The official file, damaged: refused by name, or images in their ranges."""

import h5py
import numpy as np
import pytest

from igb_jax.data.nyuv2 import CLASS_NAMES
from igb_jax.data.nyuv2.sources import recognise
from tests.fuzz.survey import Reader, assert_survives

IMAGES = 3  # of which the official split has some to train and some to test
NAME = "nyu.mat"


def write(path, **options):
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 895, (IMAGES, 16, 12))
  whole = np.repeat(np.repeat(blocks, 40, 1), 40, 2)
  fields = {
    "images": np.stack([whole % 256] * 3, 1).astype(np.uint8),
    "depths": (1 + whole / 100).astype(np.float32),
    "labels": whole.astype(np.uint16),
  }
  with h5py.File(path, "w") as file:
    for key, values in fields.items():
      file.create_dataset(key, data=values, compression="gzip", **options)


def build(folder):
  write(folder / NAME)


def read(folder):
  """What `nyuv2.load` does of it, but for deriving normals and the cache."""
  source = recognise(folder / NAME)
  problems = list(source.problems)
  found = {}
  for scenes in source.scenes.values():
    for scene in scenes:
      raw, reasons = scene.read()
      problems += reasons
      if raw is not None:
        for field in ("image", "label", "depth"):
          found[f"{scene.name} {field}"] = getattr(raw, field)
  if problems:
    raise ValueError("\n".join(problems))
  return found


def check(found):
  assert found
  for name, values in found.items():
    field = name.rpartition(" ")[2]
    assert values.shape[:2] == (288, 384)
    if field == "label":
      assert -1 <= values.min() <= values.max() < len(CLASS_NAMES)
    elif field == "depth":
      assert np.isfinite(values).all()
      assert 0 <= values.min() <= values.max() < 65.6


def metadata_damaged(content, rng):
  """What is not the pixels: HDF5 has few checksums there."""
  damaged = bytearray(content)
  for _ in range(rng.integers(1, 9)):
    damaged[rng.integers(8000)] = rng.integers(256)
  return bytes(damaged)


def addresses_swapped(content, rng):
  """Two words of eight bytes, which most often are addresses and sizes."""
  damaged = bytearray(content)
  first, second = (8 * int(i) for i in rng.integers(1000, size=2))
  damaged[first : first + 8] = content[second : second + 8]
  return bytes(damaged)


def word_replaced(content, rng):
  """A size, number or address by a huge one, none, or its own place."""
  place = 8 * int(rng.integers(1000))
  values = (2**64 - 1, 2**63, 2**40, 2**32 - 1, 0, 96, place, len(content))
  value = values[rng.integers(len(values))]
  return content[:place] + value.to_bytes(8, "little") + content[place + 8 :]


READER = Reader(
  build=build,
  read=read,
  check=check,
  named=lambda path: path.name,
  attacks=(metadata_damaged, addresses_swapped, word_replaced) * 2,
)


def test_some_faults():
  assert_survives("mat", 30)


def problems_of(path):
  return recognise(path).problems


def test_links_out_of_the_file_are_not_followed(tmp_path):
  write(tmp_path / "other.mat")
  for key in ("images", "depths", "labels"):
    write(tmp_path / NAME)
    with h5py.File(tmp_path / NAME, "r+") as file:
      del file[key]
      file[key] = h5py.ExternalLink(str(tmp_path / "other.mat"), key)
    assert problems_of(tmp_path / NAME) == (
      f"{NAME}: {key} is a link, which is not followed",
    )


def test_huge_chunks_are_not_read(tmp_path):
  write(tmp_path / NAME)
  with h5py.File(tmp_path / NAME, "r+") as file:
    del file["depths"]
    shape = (1449, 640, 480)
    file.create_dataset("depths", shape, "f4", chunks=(400, 640, 480))
  assert problems_of(tmp_path / NAME) == (
    f"{NAME}: depths has chunks of more than {2**28} bytes",
  )


def test_a_part_that_is_not_there_is_no_part_of_zeros(tmp_path):
  write(tmp_path / NAME)
  with h5py.File(tmp_path / NAME, "r+") as file:
    del file["depths"]
    depths = file.create_dataset(
      "depths", (IMAGES, 640, 480), "f4", chunks=(1, 320, 480)
    )
    depths[0], depths[1, :320], depths[2] = 1, 1, 1
  with pytest.raises(ValueError, match=r"image 2: .* no part \(1, 320, 0\) of depths"):
    read(tmp_path)


@pytest.mark.slow
def test_a_thousand_faults():
  assert_survives("mat", 1000)
