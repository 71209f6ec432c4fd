"""What the timings have in common: turns, the machine, the table of seconds."""

import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "torch_geometric", "cvxpy")


def machine() -> str:
  """Processor, cores, versions and memory setting, in a line."""
  try:
    info = Path("/proc/cpuinfo").read_text()
    (name,) = re.findall(r"model name\s*: (.*)", info)[:1] or [platform.machine()]
  except OSError:
    name = platform.processor() or platform.machine()
  versions = [f"Python {platform.python_version()}"]
  for package in PACKAGES:
    try:
      versions.append(f"{package} {version(package)}")
    except PackageNotFoundError:
      versions.append(f"no {package}")
  tunables = os.environ.get("GLIBC_TUNABLES", "none")
  return (
    f"{name}, {os.cpu_count()} cores; {', '.join(versions)}; GLIBC_TUNABLES: {tunables}"
  )


def measure(
  contenders: Mapping[str, tuple[Callable[[], None], int]], blocks: int
) -> dict[str, np.ndarray]:
  """Seconds of every counted step of each contender.

  Args:
    contenders: name -> (step, counted steps in a block).
    blocks: turns of each.
  """
  seconds: dict[str, list[float]] = {name: [] for name in contenders}
  for _ in range(blocks):
    for name, (step, count) in contenders.items():
      time.sleep(0.5)  # until the threads of the one before have gone to sleep
      step()
      for _ in range(count):
        start = time.perf_counter()
        step()
        seconds[name].append(time.perf_counter() - start)
  return {name: np.array(values) for name, values in seconds.items()}


def print_seconds(seconds: Mapping[str, np.ndarray]) -> None:
  """Prints the table of what was measured.

  Args:
    seconds: of every counted step, by contender.
  """
  print("| step | median s | min s | max s | counted |\n|---|---|---|---|---|")
  for name, values in seconds.items():
    print(
      f"| {name} | {np.median(values):.3f} | {values.min():.3f} | {values.max():.3f} "
      f"| {len(values)} |"
    )
