"""Runs of the QM9 experiment that take seconds, on real molecules."""

import subprocess
import sys
import time
from pathlib import Path

from experiments import qm9 as experiment
from tests.experiments.running import exit_code
from tests.molecules import MOLECULES


def small(qm9_dir, out, *more: str) -> list[str]:
  """Arguments of a run that takes seconds."""
  return [
    f"--data-dir={qm9_dir}", f"--molecules={MOLECULES}", f"--out={out}",
    "--train-size=100", "--validation-size=50", "--test-size=75", "--batch-size=24",
    "--dim=8", "--size-groups=1", "--epochs=3", "--learning-rate=0.01",
    "--schedule=plateau", *more,
  ]  # fmt: skip


def run(arguments: list[str]) -> int:
  """Runs the experiment and returns its exit code."""
  return exit_code(experiment.main, arguments)


def start(arguments: list[str]) -> subprocess.Popen[str]:
  """Starts the experiment in a process of its own."""
  return subprocess.Popen(
    [sys.executable, "-m", "experiments.qm9", *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=Path(__file__).parents[2],
  )


def wait_for(process: subprocess.Popen[str], condition) -> None:
  """Waits until something is the case, as long as the process runs."""
  deadline = time.monotonic() + 120
  while not condition():
    assert time.monotonic() < deadline
    assert process.poll() is None, process.stdout and process.stdout.read()
    time.sleep(0.002)


def names(out: Path) -> list[str]:
  """Names of what is in the folder of the checkpoints."""
  folder = out / "checkpoints"
  return [path.name for path in folder.iterdir()] if folder.exists() else []


def saved(out: Path) -> list[int]:
  """Numbers of steps of the checkpoints."""
  return [int(name) for name in names(out) if name.isdecimal()]
