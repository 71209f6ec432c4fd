"""Checkpoints of the small problem, each with a state that no other has."""

import gc
from pathlib import Path

import numpy as np
import pytest

from igb_jax.training.checkpoint import Checkpoints

from . import problem

TEMPLATE = problem.make("rlw")[1]

# Where a checkpoint cannot be read or written orbax leaves coroutines behind.
ORBAX_LEAVES = [
  pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
  pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def collect_garbage():
  """Finds them here, and not in whatever test comes later."""
  yield
  gc.collect()


def state_after(steps: int):
  """A state that only checkpoint number `steps` has."""
  return TEMPLATE._replace(params={"x": np.full(2, steps, np.float32)})


def write(folder: Path, *steps: int, keep: int = 9, scores=None) -> None:
  """Saves some checkpoints."""
  scores = scores or {}
  with Checkpoints(folder, keep=keep) as checkpoints:
    for each in steps:
      checkpoints.save(each, state_after(each), {"n": each}, scores.get(each))


def names(folder: Path) -> list[str]:
  """What is in a folder."""
  return sorted(path.name for path in folder.iterdir())
