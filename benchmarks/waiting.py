"""How much of an epoch is spent waiting for batches.

    python -m benchmarks.waiting

Runs each experiment for two epochs at the sizes of the paper (fewer examples, EW, the
cheapest step) and reads its metrics: seconds that the loop waited for a batch, over
seconds of the epoch's steps. The first epoch, which compiles, is left out.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

from benchmarks.timing import machine

# name -> module and arguments
CASES = {
  "qm9, batch 120": (
    "experiments.qm9",
    ["--train-size=12000", "--validation-size=1000", "--test-size=1000"],
  ),
  "nyuv2, rooms, 288 x 384, batch 2": (
    "experiments.nyuv2",
    ["--rooms", "24", "2", "2"],
  ),
}


@dataclasses.dataclass(frozen=True)
class Options:
  """Measures how long the loop waits for data."""

  data_dir: Path | None = None
  """Folder of the prepared QM9, as for the experiment."""


def main() -> None:
  """Runs the experiments and prints the table."""
  options = tyro.cli(Options, description=__doc__)
  print(f"{machine()}\n")
  print("| epoch | steps, s | waiting, s | share |\n|---|---|---|---|")
  for name, (module, arguments) in CASES.items():
    with tempfile.TemporaryDirectory() as folder:
      command = [sys.executable, "-m", module, "--preset=paper", "--balancer=ew"]
      command += ["--epochs=2", f"--out={folder}/run", *arguments]
      if module == "experiments.qm9" and options.data_dir:
        command += [f"--data-dir={options.data_dir}"]
      subprocess.run(command, check=True, capture_output=True)
      lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    total, waiting = last["steps_seconds"], last["data_seconds"]
    print(f"| {name} | {total:.1f} | {waiting:.2f} | {waiting / total:.1%} |")


if __name__ == "__main__":
  main()
