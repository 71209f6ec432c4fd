"""Damaged JPEG images, which have no checksums: refused by name, or some image."""

import pytest
from PIL import Image

from tests.fuzz import scenes, test_png
from tests.fuzz.survey import Reader, assert_survives


def build(folder):
  test_png.build(folder)
  for path in list(folder.glob("*/image/*.png")):
    with Image.open(path) as image:
      image.save(path.with_suffix(".jpg"), quality=95)
    path.unlink()


def size_replaced(content, rng):
  """In the header of the frame."""
  start = content.index(b"\xff\xc0") + 5
  sizes = (0, 1, 8, 31, 33, 4097, 65_535)
  size = b"".join(sizes[i].to_bytes(2) for i in rng.integers(len(sizes), size=2))
  return content[:start] + size + content[start + 4 :]


READER = Reader(
  build=build,
  read=scenes.read,
  check=scenes.check,
  attacks=(size_replaced,),
  only="*.jpg",
)


def test_some_faults():
  assert_survives("jpeg", 30)


@pytest.mark.slow
def test_a_thousand_faults():
  assert_survives("jpeg", 1000)
