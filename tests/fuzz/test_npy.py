"""Damaged array folders: refused by name, or arrays in their ranges."""

import io
import os
import re

import numpy as np
import pytest

from igb_jax.data.nyuv2.sources import recognise
from tests.fuzz import scenes
from tests.fuzz.survey import Reader, assert_survives


def build(folder):
  for seed, part in enumerate(("train", "val")):
    fields = scenes.fields(seed)
    fields["image"] = fields["image"] / 255
    fields["label"] = fields["label"].astype(np.float64)
    for field, values in fields.items():
      (folder / part / field).mkdir(parents=True)
      np.save(folder / part / field / "0.npy", values)


def header_replaced(content, rng):
  """By one of a huge, negative or wrong shape, or of another type."""
  shapes = ("(4611686018427387904,)", "(65536, 65536, 65536, 65536)", "(-24, -32, 3)")
  shapes += ("(24, 32)", "(40000, 40000, 3)", "()", "(0, 0, 3)", "(" * 150 + ")" * 150)
  types = (
    "<f8",
    ">f8",
    "<i8",
    "<m8",
    "<M8[s]",
    "|O",
    "<U2",
    "|V8",
    "<c8",
    "S" + 9 * "9",
  )
  header = content[10:128].decode()
  if rng.random() < 0.5:
    shape = shapes[rng.integers(len(shapes))]
    header = re.sub(r"'shape': \(.*?\)", f"'shape': {shape}", header)
  else:
    header = header.replace("<f8", types[rng.integers(len(types))])
  header = header.rstrip() + "\n"
  return (
    content[:8] + len(header).to_bytes(2, "little") + header.encode() + content[128:]
  )


def pickled(content, rng):
  """As an array of objects."""
  del content, rng
  file = io.BytesIO()
  np.save(file, np.array([print, {}], object), allow_pickle=True)
  return file.getvalue()


def zipped(content, rng):
  del rng
  file = io.BytesIO()
  np.savez(file, np.frombuffer(content, np.uint8))
  return file.getvalue()


READER = Reader(
  build=build,
  read=scenes.read,
  check=scenes.check,
  attacks=(header_replaced, pickled, zipped),
)


def test_some_faults():
  assert_survives("npy", 30)


@pytest.mark.slow
def test_a_thousand_faults():
  assert_survives("npy", 1000)


def problems_of(folder):
  (scene,) = recognise(folder).scenes["train"]
  return scene.read().problems


def test_a_pipe_is_not_waited_for(tmp_path):
  build(tmp_path)
  pipe = tmp_path / "train" / "depth" / "0.npy"
  pipe.unlink()
  os.mkfifo(pipe)
  assert problems_of(tmp_path) == ("train/depth/0.npy: is not a file",)


def test_a_device_without_end_is_not_read(tmp_path):
  build(tmp_path)
  device = tmp_path / "train" / "depth" / "0.npy"
  device.unlink()
  device.symlink_to("/dev/zero")
  assert problems_of(tmp_path) == ("train/depth/0.npy: is not a file",)


def test_nothing_is_allocated_that_the_file_does_not_hold(tmp_path):
  build(tmp_path)
  path = tmp_path / "train" / "depth" / "0.npy"
  content = path.read_bytes()
  path.write_bytes(content.replace(b"(24, 32)", b"(2**9,3)", 1))
  (problem,) = problems_of(tmp_path)
  assert problem.startswith("train/depth/0.npy: cannot be read (")
  path.write_bytes(content.replace(b"(24, 32)", b"(9999,9)", 1))
  assert problems_of(tmp_path) == (
    "train/depth/0.npy: cannot be read (6272 bytes, 720056 by its header)",
  )
