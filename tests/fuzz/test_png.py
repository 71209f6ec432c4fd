"""Damaged image folders: refused by name, or images in their ranges."""

import dataclasses
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from igb_jax.data import _processes
from igb_jax.data.nyuv2 import _checking, _files, cache
from igb_jax.data.nyuv2.sources import recognise
from tests.fuzz import scenes
from tests.fuzz.survey import Reader, assert_survives

HEADER = slice(16, 29)  # of a PNG: width, height, depth, colour type, and three more


def build(folder):
  for seed, part in enumerate(scenes.PARTS):
    fields = scenes.fields(seed)
    fields["label"] = np.where(fields["label"] < 0, 255, fields["label"]).astype("u1")
    fields["depth"] = np.rint(1000 * fields["depth"]).astype("u2")
    fields["normal"] = np.rint(255 * (fields["normal"] + 1) / 2).astype("u1")
    for field, values in fields.items():
      (folder / part / field).mkdir(parents=True)
      Image.fromarray(values).save(folder / part / field / "0001.png")


def chunk(kind, content):
  check = zlib.crc32(kind + content)
  return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def with_header(content, header):
  """With another header, whose checksum is right."""
  return content[:8] + chunk(b"IHDR", header) + content[33:]


def size_replaced(content, rng):
  sizes = (0, 1, 8, 31, 32, 33, 4097, 20_000, 2**31 - 1, 2**32 - 1)
  size = struct.pack(">II", *(sizes[i] for i in rng.integers(len(sizes), size=2)))
  return with_header(content, size + content[HEADER][8:])


def mode_replaced(content, rng):
  depth, colour = rng.choice((1, 2, 4, 8, 16)), rng.choice((0, 2, 3, 4, 6))
  rest = bytes([depth, colour, 0, 0, rng.integers(2)])
  return with_header(content, content[HEADER][:8] + rest)


def bomb_put_in(content, rng):
  """A compressed text or colour profile of 64 MiB."""
  bomb = zlib.compress(bytes(64 << 20))
  kind = (b"zTXt", b"iCCP")[rng.integers(2)]
  return content[:33] + chunk(kind, b"a\0\0" + bomb) + content[33:]


def other_format(content, rng):
  """Some of what Pillow would open, which for some of it starts programs."""
  formats = ("BMP", "GIF", "TIFF", "EPS", "PPM", "JPEG", "PDF")
  with Image.open(io.BytesIO(content)) as image:
    file = io.BytesIO()
    image.convert("RGB").save(file, formats[rng.integers(len(formats))])
  return file.getvalue()


READER = Reader(
  build=build,
  read=scenes.read,
  check=scenes.check,
  attacks=(size_replaced, mode_replaced, bomb_put_in, other_format),
)


def test_some_faults():
  assert_survives("png", 30)


@pytest.mark.slow
def test_a_thousand_faults():
  assert_survives("png", 1000)


@pytest.mark.parametrize("field", ["image", "label"])
def test_no_program_is_started(tmp_path, monkeypatch, field):
  """Which Pillow does for PostScript, whatever the file is called."""
  build(tmp_path)
  path = tmp_path / "train" / field / "0001.png"
  Image.new("RGB", (32, 24)).save(path, "EPS")
  monkeypatch.setattr("subprocess.check_call", None)
  (scene,) = recognise(tmp_path).scenes["train"]
  (problem,) = scene.read().problems
  assert problem.startswith(f"train/{field}/0001.png: cannot be read (cannot identify")


def test_large_images_are_not_decoded(tmp_path):
  build(tmp_path)
  path = tmp_path / "train" / "label" / "0001.png"
  header = struct.pack(">II", 2**12 + 1, 2**12) + path.read_bytes()[24:29]
  path.write_bytes(with_header(path.read_bytes(), header))
  (scene,) = recognise(tmp_path).scenes["train"]
  assert scene.read().problems == (
    "train/label/0001.png: cannot be read "
    f"(4096 x 4097, at most {_files._MOST_PIXELS} pixels)",
  )


def test_a_file_that_ends_its_reader(tmp_path, monkeypatch):
  build(tmp_path)
  monkeypatch.setattr(_processes, "_start_worker", os.abort)
  source = recognise(tmp_path)
  many = dataclasses.replace(source, scenes={"train": source.scenes["train"] * 13})
  with pytest.raises(
    ValueError, match=f"^{tmp_path}: while its files were checked, a data-p"
  ):
    _checking.check_all(many, progress=False)


def test_names_in_another_encoding(tmp_path):
  build(tmp_path)
  for path in list(tmp_path.rglob("0001.png")):
    path.rename(os.fsdecode(os.fsencode(path.parent) + b"/\xff\xfe.png"))
  (scene,) = recognise(tmp_path).scenes["train"]
  assert scene.read().problems == ()
  assert cache._fingerprint(recognise(tmp_path))
