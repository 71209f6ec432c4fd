"""The cache of NYUv2 is made anew where it is damaged or was never finished."""

import json
from pathlib import Path

import pytest

from igb_jax.data.nyuv2 import _records
from tests.data.scene_files import (
  cache_folder,
  check_scene,
  load,
  truncate,
  write_images,
)


def record_file(cache):
  return sorted(cache_folder(cache).rglob("*array_record*"))[0]


def remove_manifest(cache):
  (cache_folder(cache) / "manifest.json").unlink()


def garble_manifest(cache):
  (cache_folder(cache) / "manifest.json").write_text('{"version":')


def empty_manifest(cache):
  (cache_folder(cache) / "manifest.json").write_text("{}")


def manifest_without_a_part(cache):
  path = cache_folder(cache) / "manifest.json"
  path.write_text(path.read_text().replace('"train": [', '"trbin": ['))


def older_manifest(cache):
  path = cache_folder(cache) / "manifest.json"
  manifest = json.loads(path.read_text())
  del manifest["lacking"]  # as in all that are older
  path.write_text(json.dumps({**manifest, "version": 0}))


def truncate_records(cache):
  truncate(record_file(cache))


def remove_records(cache):
  record_file(cache).unlink()


@pytest.mark.parametrize(
  ("damage", "reason"),
  [
    (remove_manifest, "it is not complete"),
    (garble_manifest, "manifest.json is damaged"),
    (empty_manifest, "manifest.json is damaged"),
    (manifest_without_a_part, "manifest.json is damaged"),
    (older_manifest, "it has version 0, not 4"),
    (truncate_records, "files are missing or damaged"),
    (remove_records, "files are missing or damaged"),
  ],
)
def test_rebuilds_a_damaged_cache(source, cache, damage, reason, capsys):
  written = write_images(source)
  load(source)
  damage(cache)
  capsys.readouterr()
  dataset = load(source)
  assert capsys.readouterr().err == (
    f"Rebuilding the NYUv2 cache in {cache_folder(cache)}: {reason}\n"
  )
  check_scene(dataset[4], written["test/0002"])


def test_damage_within_a_record_is_named(source, cache):
  write_images(source)
  load(source)
  path = record_file(cache)
  content = bytearray(path.read_bytes())
  middle = len(content) // 2
  content[middle : middle + 64] = bytes(64)
  path.write_bytes(content)
  dataset = load(source)
  first = 3 if "test" in path.name else 0
  with pytest.raises(OSError, match=r"scene \d is damaged; remove the folder"):
    list(map(dataset.__getitem__, range(first, len(dataset))))


def test_failed_preparation_leaves_nothing_that_looks_complete(
  source, cache, monkeypatch
):
  written = write_images(source)

  def fail(*args):
    raise ValueError("no normals today")

  with monkeypatch.context() as patch:
    patch.setattr(_records, "normals_from_depth", fail)
    with pytest.raises(ValueError, match="no normals today"):
      load(source)
  check_scene(load(source)[0], written["train/0001"])


def test_failed_rename_leaves_nothing_that_looks_complete(source, cache, monkeypatch):
  write_images(source)

  def fail(*args):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match=r"NYUv2 cache \(No space left") as caught:
      load(source)
  assert caught.value.filename == str(cache_folder(cache))
  assert len(load(source)) == 5


def test_unwritable_folder_is_named(source, tmp_path):
  write_images(source)
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match=r"cannot write the NYUv2 cache .*file/igb_nyuv2"):
    load(source, cache_dir=tmp_path / "file")
