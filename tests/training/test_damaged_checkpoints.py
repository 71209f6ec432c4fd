"""Checkpoints that are damaged: they are named, and the one before is used."""

import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from igb_jax.training.checkpoint import CheckpointError, Checkpoints

from .saved_states import ORBAX_LEAVES, TEMPLATE, names, state_after, write
from .saved_states import collect_garbage as collect_garbage

pytestmark = ORBAX_LEAVES


def files_of(folder: Path) -> list[Path]:
  """The files whose damage can be told, the largest first."""
  files = [path for path in folder.rglob("*") if path.is_file()]
  top = [path for path in files if path.parent == folder and path.suffix != ".json"]
  return sorted(set(files) - set(top), key=lambda path: -path.stat().st_size)


def truncate(folder: Path) -> None:
  path = files_of(folder)[0]
  path.write_bytes(path.read_bytes()[:-1])


def remove_a_file(folder: Path) -> None:
  files_of(folder)[-1].unlink()


def remove_the_state(folder: Path) -> None:
  shutil.rmtree(folder / "state")


def remove_the_checksums(folder: Path) -> None:
  (folder / "checksums.json").unlink()


def empty_the_checksums(folder: Path) -> None:
  (folder / "checksums.json").write_text("[]")


def flip_a_byte(folder: Path, number: int = 0) -> None:
  path = files_of(folder)[number]
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0x10
  path.write_bytes(content)


DAMAGES = [
  truncate,
  remove_a_file,
  remove_the_state,
  remove_the_checksums,
  empty_the_checksums,
  flip_a_byte,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(damage, tmp_path):
  write(tmp_path, 4, 8)
  damage(tmp_path / "8")
  with Checkpoints(tmp_path) as checkpoints:
    assert list(checkpoints.damaged) == [8]
    state, progress = checkpoints.restore_newest(TEMPLATE)
    assert progress == {"n": 4}
    jax.tree.map(np.testing.assert_array_equal, state, state_after(4))
    assert names(tmp_path) == ["4"]
    checkpoints.save(8, state_after(8), {"n": 9})
  with Checkpoints(tmp_path) as checkpoints:
    assert not checkpoints.damaged
    assert checkpoints.restore_newest(TEMPLATE)[1] == {"n": 9}


def test_a_flipped_byte_in_any_file_is_seen(tmp_path):
  write(tmp_path / "good", 4)
  for number, path in enumerate(files_of(tmp_path / "good" / "4")):
    shutil.rmtree(tmp_path / "bad", ignore_errors=True)
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    flip_a_byte(tmp_path / "bad" / "4", number)
    with Checkpoints(tmp_path / "bad") as checkpoints:
      assert list(checkpoints.damaged) == [4], path


def test_what_orbax_writes_for_itself_does_not_matter(tmp_path):
  write(tmp_path, 4)
  for path in (tmp_path / "4").iterdir():
    if path.is_file() and path.suffix != ".json":
      path.write_bytes(os.urandom(50))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore_newest(TEMPLATE)[1] == {"n": 4}


def test_says_so_if_every_checkpoint_is_damaged(tmp_path):
  write(tmp_path, 4, 8)
  flip_a_byte(tmp_path / "4")
  truncate(tmp_path / "8")
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(
      CheckpointError, match=r"every checkpoint in .*; 8: state/.* changed"
    ),
  ):
    checkpoints.restore_newest(TEMPLATE)
  assert names(tmp_path) == ["4", "8"]


def test_a_damaged_best_checkpoint_gives_way_to_the_next(tmp_path):
  write(tmp_path, 4, 8, 12, scores={4: 2.0, 8: 1.0, 12: 3.0})
  flip_a_byte(tmp_path / "8")
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore_best(TEMPLATE)[1] == {"n": 4}
    assert checkpoints.is_best(1.5)
    assert not checkpoints.is_best(2.0)
