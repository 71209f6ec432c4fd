"""Several virtual devices, of which JAX must be told before it starts."""

import os
import subprocess
import sys
from pathlib import Path


def run_tests_on(
  count: int, file: Path, *options: str
) -> subprocess.CompletedProcess[str]:
  """Runs the tests of a file in a process with so many devices."""
  devices = f"--xla_force_host_platform_device_count={count}"
  flags = f"{os.environ.get('XLA_FLAGS', '')} {devices}"
  command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
  return subprocess.run(
    [*command, *options],
    env=os.environ | {"XLA_FLAGS": flags},
    cwd=Path(__file__).parents[1],
    capture_output=True,
    text=True,
  )
