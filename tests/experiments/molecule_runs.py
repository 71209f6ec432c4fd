"""Runs of the QM9 experiment that take seconds, on real molecules."""

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
