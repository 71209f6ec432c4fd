"""Folders that are made once for all test processes."""

import os
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest


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
