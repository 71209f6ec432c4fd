"""What the timings have in common: turns, the machine, the table of seconds."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from igb_jax import balancers
from igb_jax.training.machine import processor

PACKAGES = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "torch",
  "torch_geometric",
  "torchjd",
  "cvxpy",
)


def machine() -> str:
  """Processor, cores, versions and memory setting, in a line."""
  versions = [f"Python {platform.python_version()}"]
  for package in PACKAGES:
    try:
      versions.append(f"{package} {version(package)}")
    except PackageNotFoundError:
      versions.append(f"no {package}")
  tunables = os.environ.get("GLIBC_TUNABLES", "none")
  return (
    f"{processor()}, {os.cpu_count()} cores; {', '.join(versions)}; "
    f"GLIBC_TUNABLES: {tunables}"
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


def print_against_pytorch(
  seconds: Mapping[str, np.ndarray], targets: Mapping[str, float]
) -> None:
  """Prints the table of our seconds as ratios to PyTorch's.

  Args:
    seconds: of every counted step, by `igb_jax METHOD` and `PyTorch METHOD`.
    targets: method -> the most that the ratio may be.
  """
  both = [method for method in targets if f"PyTorch {method}" in seconds]
  if not both:
    return
  print("\n| igb_jax / PyTorch | medians | minima | target | met |")
  print("|---|---|---|---|---|")
  for method in both:
    ours, theirs = seconds[f"igb_jax {method}"], seconds[f"PyTorch {method}"]
    _print_ratio(method, ours, theirs, targets[method])


def print_against_ew(seconds: Mapping[str, np.ndarray], limit: float) -> None:
  """Prints the table of every method's seconds as ratios to the same library's ew.

  Args:
    seconds: of every counted step, by `igb_jax METHOD` and `PyTorch METHOD`.
    limit: the most that the ratio of a gradient balancer may be.
  """
  print("\n| step / step of ew | medians | minima | limit | met |")
  print("|---|---|---|---|---|")
  for name, values in seconds.items():
    library, method = name.split()
    ew = seconds.get(f"{library} ew")
    if method == "ew" or ew is None:
      continue
    bound = limit if balancers.names()[method] == "gradient" else None
    _print_ratio(name, values, ew, bound)


def _print_ratio(
  name: str, above: np.ndarray, below: np.ndarray, bound: float | None
) -> None:
  median, least = np.median(above) / np.median(below), above.min() / below.min()
  verdict = "|"
  if bound is not None:
    verdict = f"{bound:.2f} | {'yes' if median <= bound else 'no'}"
  print(f"| {name} | {median:.3f} | {least:.3f} | {verdict} |")
