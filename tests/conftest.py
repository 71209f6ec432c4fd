"""What several tests use: the first molecules of QM9, prepared once."""

import os
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from igb_jax.data import qm9

MOLECULES = 500


def made_once(
  name: str, make: Callable[[Path], Path], factory: pytest.TempPathFactory
) -> Path:
  """A folder that one of the test processes makes for all of them, in this run."""
  base = factory.getbasetemp()
  folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
  with filelock.FileLock(f"{folder}.lock"):
    if not folder.exists():
      make(factory.mktemp(f"making-{name}")).rename(folder)
  return folder


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
