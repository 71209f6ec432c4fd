"""How long a user waits for the first step: tracing, compilation, the step itself.

    python -m benchmarks.first_step

Each measurement is a process of its own, first with an empty persistent cache, then
with what the first one left there. Timed is from the experiment that is ready to train
to the end of its first step, and apart from that how long it took to make the
experiment (data at hand; the net's initial parameters are compiled there).
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import tyro

from benchmarks.timing import machine
from experiments import nyuv2, qm9
from igb_jax.training.experiment import Experiment
from igb_jax.training.main import use_compilation_cache

# name -> arguments of the experiment
CASES = {
  "qm9, ew": ["--preset=paper", "--balancer=ew"],
  "qm9, nashmtl": ["--preset=paper", "--balancer=nashmtl"],
  "nyuv2, segnet, ew": ["--preset=paper", "--balancer=ew", "--rooms", "4", "1", "1"],
  "nyuv2, segnet, nashmtl": [
    "--preset=paper", "--balancer=nashmtl", "--rooms", "4", "1", "1",
  ],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
  """Times the first step."""

  case: str | None = None
  """Measure this case in this very process; None for all, each in its own."""
  data_dir: Path | None = None
  """Folder of the prepared QM9, as for the experiment."""


def measure(case: str, data_dir: Path | None) -> None:
  """Prints seconds of the experiment and of its first step.

  Args:
    case: a key of `CASES`.
    data_dir: of QM9.
  """
  use_compilation_cache()
  arguments = list(CASES[case])
  start = time.perf_counter()
  if case.startswith("qm9"):
    arguments += [f"--data-dir={data_dir}"] if data_dir else []
    experiment = Experiment(qm9.make_problem, qm9.parse_config(arguments))
  else:
    experiment = Experiment(nyuv2.make_problem, nyuv2.parse_config(arguments))
  state = experiment.init_state()
  batches = experiment.epoch_batches(0)
  batch = jax.device_put(next(iter(batches)))
  ready = time.perf_counter()
  jax.block_until_ready(experiment.step(state, batch))
  end = time.perf_counter()
  experiment.close()
  print(f"{ready - start:.1f} {end - ready:.1f}")


def main() -> None:
  """Measures and prints the table."""
  options = tyro.cli(Options, description=__doc__)
  if options.case:
    measure(options.case, options.data_dir)
    return
  print(f"{machine()}\n")
  print(
    "| first step | cache | experiment made, s | first step, s |\n|---|---|---|---|"
  )
  for case in CASES:
    with tempfile.TemporaryDirectory() as cache:
      for state in ("empty", "filled"):
        command = [sys.executable, "-m", "benchmarks.first_step", f"--case={case}"]
        command += [f"--data-dir={options.data_dir}"] if options.data_dir else []
        result = subprocess.run(
          command,
          env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
          check=True,
          capture_output=True,
          text=True,
        )
        made, first = result.stdout.split()[-2:]
        print(f"| {case} | {state} | {made} | {first} |", flush=True)


if __name__ == "__main__":
  main()
