"""The cache of QM9: prepared once, whatever happens to it or during it."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from igb_jax.data import _once, qm9

LIMIT = 20
CONFIG = f"qm9pack-limit{LIMIT}"


@pytest.fixture
def prepared(tmp_path):
  """A folder with a cache."""
  qm9.load(tmp_path, limit=LIMIT)
  return tmp_path


@pytest.fixture
def no_source(monkeypatch):
  """Makes it an error to read the source, so only the cache is left."""

  def read(root, limit):
    raise AssertionError("the source was read")

  monkeypatch.setitem(qm9.cache._READERS, "qm9pack", read)


def cache_folder(data_dir):
  return data_dir / "igb_qm9" / CONFIG


def problem_of(folder):
  return _once.find_problem(folder, qm9.cache._KIND)


def record_file(data_dir):
  (path,) = cache_folder(data_dir).rglob("*array_record*")
  return path


def start(data_dir, limit, before=""):
  """Starts a process that loads a data set."""
  code = (
    f"{before}\n"
    "import sys, pathlib\n"
    "from igb_jax.data import qm9\n"
    f"dataset = qm9.load(pathlib.Path(sys.argv[1]), limit={limit})\n"
    "print(len(dataset), dataset.targets.sum())\n"
  )
  return subprocess.Popen(
    [sys.executable, "-c", code, str(data_dir)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
  )


def test_second_call_reads_the_cache(prepared, no_source, capsys):
  assert len(qm9.load(prepared, limit=LIMIT)) == LIMIT
  assert capsys.readouterr().err == ""


def test_default_folder_is_of_the_environment(prepared, no_source, monkeypatch):
  monkeypatch.setenv("IGB_JAX_DATA", str(prepared))
  assert len(qm9.load(limit=LIMIT)) == LIMIT


def test_default_folder_is_the_platforms(prepared, no_source, monkeypatch):
  monkeypatch.delenv("IGB_JAX_DATA", raising=False)
  monkeypatch.setattr(_once.platformdirs, "user_cache_path", lambda name: prepared)
  assert len(qm9.load(limit=LIMIT)) == LIMIT


def test_limits_have_caches_of_their_own(prepared):
  assert len(qm9.load(prepared, limit=5)) == 5
  assert len(qm9.load(prepared, limit=LIMIT)) == LIMIT


def truncate(data_dir):
  path = record_file(data_dir)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(data_dir):
  path = record_file(data_dir)
  content = bytearray(path.read_bytes())
  content[1000] ^= 1
  path.write_bytes(content)


def remove_records(data_dir):
  record_file(data_dir).unlink()


def remove_info(data_dir):
  next(cache_folder(data_dir).rglob("dataset_info.json")).unlink()


def remove_manifest(data_dir):
  (cache_folder(data_dir) / "manifest.json").unlink()


def garble_manifest(data_dir):
  (cache_folder(data_dir) / "manifest.json").write_text('{"version":')


def empty_manifest(data_dir):
  (cache_folder(data_dir) / "manifest.json").write_text("[]")


def older_manifest(data_dir):
  path = cache_folder(data_dir) / "manifest.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))


@pytest.mark.parametrize(
  ("damage", "reason"),
  [
    (truncate, "files are missing or damaged"),
    (flip_a_byte, "files are missing or damaged"),
    (remove_records, "files are missing or damaged"),
    (remove_info, "files are missing or damaged"),
    (remove_manifest, "it is not complete"),
    (garble_manifest, "manifest.json is damaged"),
    (empty_manifest, "manifest.json is damaged"),
    (older_manifest, "it has version 0, not 1"),
  ],
)
def test_rebuilds_a_damaged_cache(prepared, damage, reason, capsys, monkeypatch):
  before = qm9.load(prepared, limit=LIMIT)
  damage(prepared)
  capsys.readouterr()
  after = qm9.load(prepared, limit=LIMIT, progress=False)
  assert capsys.readouterr().err == (
    f"Rebuilding the QM9 cache in {cache_folder(prepared)}: {reason}\n"
  )
  np.testing.assert_array_equal(before.targets, after.targets)
  np.testing.assert_array_equal(before.bonds, after.bonds)
  monkeypatch.setitem(qm9.cache._READERS, "qm9pack", None)
  assert len(qm9.load(prepared, limit=LIMIT)) == LIMIT


def test_failed_rename_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
  def fail(*args):
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match=r"QM9 cache \(No space left") as caught:
      qm9.load(tmp_path, limit=LIMIT)
  assert caught.value.errno == errno.ENOSPC
  assert caught.value.filename == str(cache_folder(tmp_path))
  assert problem_of(cache_folder(tmp_path)) == "it is not complete"
  assert len(qm9.load(tmp_path, limit=LIMIT)) == LIMIT


def test_unwritable_folder_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match=r"cannot write the QM9 cache .*file/igb_qm9"):
    qm9.load(tmp_path / "file", limit=LIMIT)


def test_reads_without_a_lock_where_nothing_can_be_written(
  prepared, no_source, monkeypatch
):
  monkeypatch.setattr(_once.os, "access", lambda path, mode: False)
  monkeypatch.setattr(_once, "locked", None)
  assert len(qm9.load(prepared, limit=LIMIT)) == LIMIT


def test_full_disk_names_the_folder(tmp_path):
  limited = (
    "import resource, signal\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
  )
  process = start(tmp_path, LIMIT * 10, limited)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 1
  assert "cannot write the QM9 cache" in errors.splitlines()[-1]
  assert str(tmp_path / "igb_qm9") in errors.splitlines()[-1]
  assert len(qm9.load(tmp_path, limit=LIMIT * 10)) == LIMIT * 10


def test_two_processes_prepare_once(tmp_path):
  processes = [start(tmp_path, 2000) for _ in range(2)]
  outputs, errors = zip(*(p.communicate(timeout=60) for p in processes), strict=True)
  assert [process.returncode for process in processes] == [0, 0], errors
  assert outputs[0] == outputs[1]
  assert outputs[0].startswith("2000 ")
  together = "".join(errors)
  assert together.count("Preparing the QM9 cache") == 1
  assert together.count("Waiting for another process") == 1
  assert "Finding bonds: 2000 of 2000 molecules" in together


def run_script(folder, limit, *more):
  """Runs a script that loads molecules as soon as it is imported."""
  script = folder / "script.py"
  lines = [
    "import multiprocessing",
    "from pathlib import Path",
    "from igb_jax.data import qm9",
    f"data = qm9.load(Path({str(folder)!r}), limit={limit})",
    *more,
  ]
  script.write_text("\n".join(lines))
  return subprocess.run(
    [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
  )


@pytest.mark.slow
def test_a_script_that_its_workers_run_again_is_told_so(tmp_path):
  done = run_script(tmp_path, 2000)
  assert done.returncode != 0
  assert 'under `if __name__ == "__main__":`' in done.stderr


def test_processes_of_the_user_may_load_what_is_prepared(prepared):
  done = run_script(
    prepared,
    LIMIT,
    "if __name__ == '__main__':",
    "  with multiprocessing.get_context('spawn').Pool(1) as pool:",
    "    print(pool.apply(len, (data.index,)))",
  )
  assert done.stdout == f"{LIMIT}\n", done.stderr


@pytest.mark.parametrize(
  "stop", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_stopped_half_way(tmp_path, stop):
  # a shell starts what it runs in the background with Ctrl-C ignored
  heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
  process = start(tmp_path, 20_000, heard)
  assert process.stderr is not None
  while "Finding bonds" not in process.stderr.readline():
    assert process.poll() is None
  children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
  workers = children.read_text().split() if children.exists() else []
  while process.poll() is None:
    process.send_signal(stop)  # again, where Python lost it within a callback
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.communicate(timeout=2)
  assert process.returncode != 0
  assert problem_of(tmp_path / "igb_qm9" / "qm9pack-limit20000") is not None
  deadline = time.monotonic() + 20
  while any(Path("/proc", worker).exists() for worker in workers):
    assert time.monotonic() < deadline, "its processes still run"
    time.sleep(0.05)
  # The lock is free again.
  assert len(qm9.load(tmp_path, limit=LIMIT)) == LIMIT
