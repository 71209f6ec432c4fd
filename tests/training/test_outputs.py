"""What a run writes: its folder and its plots."""

import _pyio
import json
import os
from pathlib import Path

import jax
import numpy as np
import platformdirs
import pytest

from igb_jax.training.main import use_compilation_cache
from igb_jax.training.plots import plot_run
from igb_jax.training.records import GradientRecord
from igb_jax.training.run_folder import RunFolder, write_whole


def test_writes_json_whole(tmp_path):
  folder = RunFolder(tmp_path / "a" / "run")
  path = folder.write_json("summary.json", {"x": 1})
  assert json.loads(path.read_text()) == {"x": 1}
  with pytest.raises(ValueError, match="not JSON compliant"):
    folder.write_json("summary.json", {"x": float("nan")})
  assert json.loads(path.read_text()) == {"x": 1}


def test_keeps_line_ends_on_every_platform(tmp_path, monkeypatch):
  monkeypatch.setattr(os, "linesep", "\r\n")  # which Python's own open looks up
  monkeypatch.setattr(
    Path, "open", lambda path, *given, **options: _pyio.open(path, *given, **options)
  )
  path = tmp_path / "metrics.csv"
  write_whole(path, "epoch,loss\r\n0,1\n")
  monkeypatch.undo()
  assert path.read_bytes() == b"epoch,loss\r\n0,1\n"


def test_appends_lines(tmp_path):
  folder = RunFolder(tmp_path / "run")
  for epoch in range(3):
    folder.append_metrics({"epoch": epoch})
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2]


def test_never_overwrites_a_run(tmp_path):
  RunFolder(tmp_path / "run")
  with pytest.raises(FileExistsError, match="is not empty; choose another --out"):
    RunFolder(tmp_path / "run")
  (tmp_path / "file").write_text("")
  with pytest.raises(FileExistsError, match="file is not empty"):
    RunFolder(tmp_path / "file")
  (tmp_path / "empty").mkdir()
  RunFolder(tmp_path / "empty")


@pytest.mark.parametrize("num_epochs", [1, 2, 40])
def test_plots(tmp_path, num_epochs):
  values = np.linspace(0.1, 1, num_epochs * 12).reshape(num_epochs, 12)
  paths = plot_run(
    tmp_path,
    task_names=[f"task {k}" for k in range(12)],
    losses=values,
    weights=values,
    title="a run",
  )
  names = ["losses.png", "weights.png", "gaps.png"]
  assert [path.name for path in paths] == names[: 2 + (num_epochs > 1)]
  for path in paths:
    assert path.read_bytes().startswith(b"\x89PNG")


def test_plots_of_a_gradient_balancer(tmp_path):
  record = GradientRecord(
    weights=np.ones(3),
    cosines=np.eye(3),
    conflict_share=0.5,
    condition_number=2.0,
    residual=0.0,
    worst_residual=0.0,
  )
  paths = plot_run(
    tmp_path,
    task_names=["a", "b", "c"],
    losses=np.ones((2, 3)),
    weights=np.ones((2, 3)),
    gradients=[record, record],
    title="a run",
  )
  names = ["gradient_weights.png", "conflicts.png", "cosines.png"]
  assert [path.name for path in paths[3:]] == names
  for path in paths:
    assert path.read_bytes().startswith(b"\x89PNG")


def test_compiled_steps_are_kept_unless_told_where(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  before = jax.config.jax_compilation_cache_dir
  try:
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before  # the tests set it
    jax.config.update("jax_compilation_cache_dir", None)
    use_compilation_cache()
    expected = platformdirs.user_cache_path("igb_jax") / "compiled"
    assert jax.config.jax_compilation_cache_dir == str(expected)
  finally:
    jax.config.update("jax_compilation_cache_dir", before)
