"""Damaged checkpoints: refused by name, and never other numbers."""

import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.training.checkpoint import CheckpointError, Checkpoints
from tests.fuzz.survey import Reader, assert_survives

STEPS = 3


def make_state():
  params = {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.ones(4)}
  return {"params": params, "step": jnp.array(STEPS)}


def build(folder):
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(STEPS, make_state(), {"epoch": 1}, score=0.5)


def read(folder):
  """From a copy, since damaged checkpoints are removed."""
  with tempfile.TemporaryDirectory() as temporary:
    copy = Path(temporary, "checkpoints")
    shutil.copytree(folder, copy)
    with Checkpoints(copy) as checkpoints:
      restored = checkpoints.restore_newest(make_state())
  assert restored is not None
  state, progress = restored
  leaves = jax.tree_util.tree_leaves_with_path({"state": state, "progress": progress})
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def check(found):
  expected = {"state": make_state(), "progress": {"epoch": 1}}
  leaves = jax.tree_util.tree_leaves_with_path(expected)
  assert len(found) == len(leaves)
  for path, leaf in leaves:
    np.testing.assert_array_equal(found[jax.tree_util.keystr(path)], leaf)


def named(path):
  """The file; a wrong checksum only the checkpoint, since the file may be at fault."""
  name = path.relative_to(str(STEPS)).as_posix()
  return f"is damaged: {STEPS}: " if name == "checksums.json" else name


READER = Reader(
  build=build,
  read=read,
  check=check,
  errors=(CheckpointError,),
  named=named,
)


def test_some_faults():
  assert_survives("checkpoint", 30)


@pytest.mark.slow
def test_a_thousand_faults():
  assert_survives("checkpoint", 1000)
