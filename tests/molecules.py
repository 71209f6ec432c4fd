"""The first molecules of QM9, prepared once: fixtures for a folder's conftest.py."""

from pathlib import Path

import pytest

from igb_jax.data import qm9
from tests.making import made_once

MOLECULES = 500


@pytest.fixture(scope="session")
def qm9_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with the first 500 molecules of QM9, shared by all test processes."""

  def make(folder: Path) -> Path:
    qm9.load(folder, limit=MOLECULES, progress=False)
    return folder

  return made_once("qm9", make, tmp_path_factory)


@pytest.fixture(scope="session")
def molecules(qm9_dir: Path) -> qm9.QM9:
  """The first 500 molecules of QM9."""
  return qm9.load(qm9_dir, limit=MOLECULES, progress=False)
