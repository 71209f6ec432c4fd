"""What several tests use: the first molecules of QM9, prepared once."""

from pathlib import Path

import filelock
import pytest

from igb_jax.data import qm9

MOLECULES = 500


@pytest.fixture(scope="session")
def qm9_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with the first 500 molecules of QM9, shared by all test processes."""
  root = tmp_path_factory.getbasetemp().parent
  folder = root / "qm9"
  with filelock.FileLock(root / "qm9.lock"):
    qm9.load(folder, limit=MOLECULES, progress=False)
  return folder


@pytest.fixture(scope="session")
def molecules(qm9_dir: Path) -> qm9.QM9:
  """The first 500 molecules of QM9."""
  return qm9.load(qm9_dir, limit=MOLECULES, progress=False)
