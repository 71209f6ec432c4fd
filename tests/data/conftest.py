"""The molecules that tests here use, and the folders of scenes."""

import pytest

from tests.molecules import molecules as molecules
from tests.molecules import qm9_dir as qm9_dir


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """The folder of the caches."""
  folder = tmp_path / "cache"
  monkeypatch.setenv("IGB_JAX_DATA", str(folder))
  return folder


@pytest.fixture
def source(tmp_path):
  """A folder for a source."""
  folder = tmp_path / "source"
  folder.mkdir()
  return folder
