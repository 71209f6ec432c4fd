"""The cache of NYUv2: one a source, prepared once, and anew where that changes."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igb_jax.data import _once, nyuv2
from igb_jax.data.loader import prefetch
from igb_jax.data.nyuv2 import _folders, _mat
from igb_jax.data.scene_batches import TrainBatches
from tests.data.scene_files import (
  cache_folder,
  check_scene,
  load,
  make_fields,
  write_images,
  write_mat,
)


@pytest.fixture
def no_reading(monkeypatch):
  """Makes it an error to read the files of a source."""

  def read(*args):
    raise AssertionError("the source was read")

  monkeypatch.setattr(_folders, "read_scene", read)
  monkeypatch.setattr(_mat, "read_scene", read)


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


@pytest.mark.slow  # as of QM9, which is faster
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
