"""Both experiments on many devices, virtual ones, in processes of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import qm9
from igb_jax.training.devices import initialize
from tests.experiments.running import exit_code, read_metrics
from tests.experiments.test_qm9 import small

EIGHT = Path(__file__).with_name("eight_devices.py")


def run_on_eight_devices(*options: str) -> subprocess.CompletedProcess[str]:
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
  command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EIGHT)]
  return subprocess.run(
    [*command, *options],
    env=os.environ | {"XLA_FLAGS": flags},
    cwd=EIGHT.parents[2],
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(
  "marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)]
)
def test_eight_devices_equal_one(marked):
  result = run_on_eight_devices("-m", marked)
  assert result.returncode == 0, result.stdout + result.stderr


def start(*arguments: str) -> subprocess.Popen[str]:
  return subprocess.Popen(
    [sys.executable, "-m", "experiments.qm9", *arguments],
    cwd=EIGHT.parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_two_processes_equal_one(qm9_dir, tmp_path):
  options = "--balancer=igbv1+nashmtl", "--epochs=2"
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  processes = [
    start(
      *small(qm9_dir, tmp_path / "two", *options),
      f"--coordinator=127.0.0.1:{port}",
      "--num-processes=2",
      f"--process-id={number}",
    )
    for number in range(2)
  ]
  outputs = [process.communicate(timeout=400) for process in processes]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output
  assert "test of epoch" in outputs[0][0]
  assert outputs[1][0].count("epoch") == 0  # the second process is silent

  alone = start(*small(qm9_dir, tmp_path / "one", *options))
  _, errors = alone.communicate(timeout=400)
  assert alone.returncode == 0, errors
  two, one = (read_metrics(tmp_path / name) for name in ("two", "one"))
  assert len(two) == len(one) == 2
  for ours, expected in zip(two, one, strict=True):
    for key in ("losses", "weights", "validation"):
      np.testing.assert_allclose(
        list(ours[key].values()), list(expected[key].values()), 1e-4
      )
    np.testing.assert_allclose(
      ours["gradient_weights"], expected["gradient_weights"], 1e-3
    )


@pytest.mark.parametrize("option", ["--num-processes=2", "--process-id=0"])
def test_processes_that_cannot_find_each_other(qm9_dir, tmp_path, capsys, option):
  assert exit_code(qm9.main, small(qm9_dir, tmp_path / "run", option)) == 2
  assert "need --coordinator" in capsys.readouterr().err


def test_the_environments_numbers_must_be_numbers(qm9_dir, tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
  monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
  config = qm9.parse_config(small(qm9_dir, tmp_path / "run"))
  with pytest.raises(ValueError, match="JAX_NUM_PROCESSES must be a number, got 'two'"):
    initialize(config)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ([], "several processes need one --out"),
    (["--out=RUN", "--checkpoint-every=10min"], "the clocks of several differ"),
  ],
)
def test_what_several_processes_cannot_have(
  tmp_path, monkeypatch, capsys, options, message
):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  options = [option.replace("RUN", str(tmp_path / "run")) for option in options]
  assert exit_code(qm9.main, options) == 2
  assert message in " ".join(capsys.readouterr().err.split())
