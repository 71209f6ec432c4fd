"""The folders that the command `igb-jax` is given: what it puts there or refuses."""

import errno
import os
import re
from pathlib import Path

import pytest

from experiments import cli, qm9
from igb_jax.data.errors import PreparationError
from igb_jax.training.run_folder import RunFolder
from tests.experiments.molecule_runs import small as small_molecules
from tests.experiments.running import exit_code
from tests.experiments.test_nyuv2 import write_images
from tests.molecules import MOLECULES


def test_prepares_molecules_and_says_where(qm9_dir, capsys):
  cli.main(["prepare", "qm9", f"--data-dir={qm9_dir}", f"--molecules={MOLECULES}"])
  shown = capsys.readouterr().out.strip()
  where = f"{MOLECULES} molecules of QM9 from qm9pack are in "
  assert shown.startswith(where)
  folder = Path(shown.removeprefix(where))
  assert folder.is_relative_to(qm9_dir)
  assert any(folder.iterdir())


def test_prepares_scenes_and_says_where(tmp_path, capsys):
  write_images(tmp_path / "scenes")
  given = [f"--data-dir={tmp_path / 'scenes'}", f"--cache-dir={tmp_path / 'cache'}"]
  cli.main(["prepare", "nyuv2", *given])
  shown = capsys.readouterr().out.strip()
  assert shown.startswith("7 scenes (")
  folder = Path(shown.rpartition(" are in ")[2])
  assert folder.is_relative_to(tmp_path / "cache")
  assert any(folder.iterdir())


def test_a_wrong_data_folder_is_told_with_what_was_looked_for(tmp_path, capsys):
  (tmp_path / "notes.txt").write_text("no scenes")
  for command in ("prepare", "train"):
    given = [command, "nyuv2", f"--data-dir={tmp_path}"]
    assert exit_code(cli.main, given) == 2
    error = capsys.readouterr().err
    assert f"error: {tmp_path}: no NYUv2 data there (the folder has notes" in error
    assert "image|label|depth|normal/*.npy" in error
    assert "nyu_depth_v2_labeled.mat" in error
  given = ["prepare", "nyuv2", f"--data-dir={tmp_path / 'nowhere'}"]
  assert exit_code(cli.main, given) == 2
  assert "nowhere: there is no such file or folder" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_told(tmp_path, capsys):
  (tmp_path / "file").write_text("in the way")
  given = ["prepare", "qm9", f"--data-dir={tmp_path / 'file'}", "--molecules=5"]
  assert exit_code(cli.main, given) == 2
  assert "cannot write the QM9 cache" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), PreparationError("has died")])
def test_too_little_memory_to_prepare(error, monkeypatch, capsys):
  def load(*_, **__):
    raise error

  monkeypatch.setattr("igb_jax.data.qm9.load", load)
  assert exit_code(cli.main, ["prepare", "qm9"]) == 1
  assert re.search("error: (too little memory|has died)", capsys.readouterr().err)


def test_a_folder_in_a_file_is_refused_before_the_data_are_prepared(tmp_path, capsys):
  (tmp_path / "file").write_text("in the way")
  out = tmp_path / "file" / "run"
  assert exit_code(qm9.main, small_molecules(tmp_path / "data", out)) == 2
  shown = capsys.readouterr().err
  assert f"{out} cannot be a folder: {tmp_path / 'file'} is a file" in shown
  assert not (tmp_path / "data").exists()
  given = ["compare", "--dataset=rooms", f"--out={out}"]
  assert exit_code(cli.main, given) == 2
  assert f"{out} cannot be a folder" in capsys.readouterr().err


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_without_permission_is_refused_before_the_data_are_prepared(
  named, tmp_path, monkeypatch, capsys
):
  # root may write anywhere
  access = os.access
  monkeypatch.setattr(
    os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode)
  )
  monkeypatch.chdir(tmp_path)
  out = tmp_path / "new" / "run"
  given = small_molecules(tmp_path / "data", out)
  assert exit_code(qm9.main, given if named else given[:2] + given[3:]) == 2
  shown = capsys.readouterr().err
  assert f"{out if named else 'runs'} cannot be written: you have no permi" in shown
  assert f"in {tmp_path}; choose another --out" in shown
  assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
  def read_only(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(Path, "mkdir", read_only)
  message = f"{tmp_path / 'run'} could not be written: Read-only file system"
  with pytest.raises(OSError, match=re.escape(message)):
    RunFolder(tmp_path / "run")
