"""Checkpoints on disk: what is kept, what is damaged, and a disk that is full."""

import errno
import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.training import checkpoint
from igb_jax.training.checkpoint import (
  CheckpointError,
  Checkpoints,
)
from igb_jax.training.interval import Interval, parse_interval

from . import problem

TEMPLATE = problem.make("rlw")[1]

# Where a checkpoint cannot be read or written orbax leaves coroutines behind.
pytestmark = [
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
  return sorted(path.name for path in folder.iterdir())


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


@pytest.mark.parametrize(
  ("params", "difference"),
  [({"x": jnp.zeros(3)}, r"Requested shape: \(3,\) is"), ({}, r"params\.x:\n")],
)
def test_another_net_is_an_error(params, difference, tmp_path):
  write(tmp_path, 4)
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(
      CheckpointError, match=rf"(?s)/4 could not be read: .*{difference}"
    ) as e,
  ):
    checkpoints.restore_newest(TEMPLATE._replace(params=params))
  assert "Another net or version of igb_jax has written it" in str(e.value)
  assert "partial_restore" not in str(e.value)
  assert "Truncating" not in str(e.value)
  assert names(tmp_path) == ["4"]


@pytest.mark.parametrize(
  ("keep", "scores", "kept"),
  [
    (1, {4: 1.0, 8: 2.0, 16: 3.0}, [4, 12, 16]),
    (1, {4: 3.0, 8: 2.0, 16: 1.0}, [12, 16]),  # the best and the one before
    (1, {}, [12, 16]),
    (1, {4: 2.0, 8: 2.0, 16: 2.0}, [4, 12, 16]),
    (2, {4: 2.0, 8: 1.0}, [8, 12, 16]),
    (3, {}, [8, 12, 16]),
  ],
)
def test_keeps_the_newest_and_the_best_and_two_at_least(keep, scores, kept, tmp_path):
  write(tmp_path, 4, 8, 12, keep=keep, scores=scores)
  write(tmp_path, 16, keep=keep, scores=scores)  # by another process
  assert names(tmp_path) == sorted(str(steps) for steps in kept)


def test_a_checkpoint_that_is_older_than_the_newest_is_an_error(tmp_path):
  write(tmp_path, 16, scores={16: 2.0})
  with pytest.raises(CheckpointError, match="there is one after 16 steps, this is"):
    write(tmp_path, 4, scores={4: 1.0})
  with Checkpoints(tmp_path) as checkpoints:
    restored = checkpoints.restore_best(TEMPLATE)
  assert restored is not None
  assert names(tmp_path) == ["16"]


def test_the_same_steps_are_saved_once(tmp_path):
  write(tmp_path, 4, 4)
  write(tmp_path, 4)
  assert names(tmp_path) == ["4"]


def test_what_a_killed_run_was_writing_is_cleared_away(tmp_path):
  write(tmp_path, 4)
  shutil.copytree(tmp_path / "4", tmp_path / "8.orbax-checkpoint-tmp")
  write(tmp_path, 8)
  assert names(tmp_path) == ["4", "8"]
  with Checkpoints(tmp_path) as checkpoints:
    assert not checkpoints.damaged
    assert checkpoints.restore_newest(TEMPLATE)[1] == {"n": 8}


def test_a_failing_write_is_reported_and_the_last_checkpoint_stays(
  tmp_path, monkeypatch
):
  write(tmp_path, 4)

  def fail(folder):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(checkpoint, "checksums", fail)
  with pytest.raises(CheckpointError, match=r"No space left on device.* intact"):
    write(tmp_path, 8)
  monkeypatch.undo()
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore_newest(TEMPLATE)[1] == {"n": 4}


LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from igb_jax.training.checkpoint import CheckpointError, Checkpoints

folder = Path(sys.argv[1])
large = {"x": np.random.default_rng(0).normal(size=100_000).astype(np.float32)}
with Checkpoints(folder) as checkpoints:
  checkpoints.save(4, large, {"n": 4})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
try:
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(8, large, {"n": 8})
except CheckpointError as error:
  print(error)
"""


def test_files_that_cannot_grow_are_reported_and_the_last_checkpoint_stays(tmp_path):
  # in a process of its own: orbax leaves coroutines behind that were never awaited
  result = subprocess.run(
    [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True
  )
  assert "could not be written" in result.stdout, result.stderr
  large = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
  with Checkpoints(tmp_path) as checkpoints:
    assert not checkpoints.damaged
    state, progress = checkpoints.restore_newest({"x": np.zeros_like(large)})  # pyright: ignore[reportArgumentType]
  assert progress == {"n": 4}
  np.testing.assert_array_equal(state["x"], large)  # pyright: ignore[reportArgumentType, reportCallIssue]


RESHARD = """
import sys
import jax, numpy as np
from pathlib import Path
from jax.sharding import NamedSharding, PartitionSpec
from igb_jax.training.checkpoint import Checkpoints

folder = Path(sys.argv[1])
four = NamedSharding(jax.make_mesh((4,), ("model",)), PartitionSpec("model"))
one = jax.sharding.SingleDeviceSharding(jax.devices()[2])
values = np.arange(8, dtype=np.float32)
for steps, (saved, wanted) in enumerate([(four, one), (one, four)]):
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(steps, {"x": jax.device_put(values, saved)}, {})
    template = {"x": jax.device_put(0 * values, wanted)}
    state, _ = checkpoints.restore_newest(template)
  assert state["x"].sharding == wanted, state["x"].sharding
  np.testing.assert_array_equal(state["x"], values)
"""


def test_restores_to_other_devices_than_it_was_saved_from(tmp_path):
  flags = "--xla_force_host_platform_device_count=4"
  subprocess.run(
    [sys.executable, "-c", RESHARD, str(tmp_path)],
    env=os.environ | {"XLA_FLAGS": flags},
    check=True,
    timeout=120,
  )


def test_when_it_is_time(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
  with Checkpoints(tmp_path / "a", every=Interval(epochs=3)) as checkpoints:
    due = [epochs for epochs in range(1, 8) if checkpoints.is_due(epochs)]
    assert due == [3, 6]
    assert not checkpoints.is_due()
  with Checkpoints(tmp_path / "b", every=Interval(seconds=60)) as checkpoints:
    now[0] = 159
    assert not checkpoints.is_due()
    now[0] = 160
    assert checkpoints.is_due()
    assert checkpoints.is_due(1)
    checkpoints.save(4, state_after(4), {})
    assert not checkpoints.is_due()


@pytest.mark.parametrize("text", ["1epoch", "1 epoch", "1epochs"])
def test_reads_epochs(text):
  assert parse_interval(text) == Interval(epochs=1)


@pytest.mark.parametrize(
  ("text", "seconds"), [("30s", 30.0), ("10min", 600.0), ("2h", 7200.0)]
)
def test_reads_times(text, seconds):
  assert parse_interval(text) == Interval(seconds=seconds)


@pytest.mark.parametrize(
  "text", ["", "5", "0epochs", "-1s", "1.5h", "min", "10 days", "1epochs2", "٣min"]
)
def test_refuses_what_is_no_interval(text):
  with pytest.raises(ValueError, match="--checkpoint-every must be a positive whole"):
    parse_interval(text)
