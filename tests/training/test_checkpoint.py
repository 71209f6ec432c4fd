"""Checkpoints on disk: what is kept, when one is due, and a disk that is full."""

import errno
import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.training import checkpoint
from igb_jax.training.checkpoint import CheckpointError, Checkpoints
from igb_jax.training.interval import Interval, parse_interval

from .saved_states import ORBAX_LEAVES, TEMPLATE, names, state_after, write
from .saved_states import collect_garbage as collect_garbage

pytestmark = ORBAX_LEAVES


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
