"""Gradient balancers from a small Jacobian to the result, beside TorchJD's.

    python -m benchmarks.torch_methods

What is timed is nearly the solver alone: Jacobians are K x 2 K and float32, on the CPU.
Eight instances, Gaussian and with two tasks in conflict, take turns; a call of ours
includes its dispatch, and what is compiled is compiled before. "Conflict" is the least
cosine of the result with a task gradient (with those of the other tasks for PCD), which
UPGrad, DualProj and PCD are there to keep positive: below 0 is worse. "Apart" is the
largest difference of the two results relative to theirs.
"""
# pyright: reportMissingImports=false
# torch and torchjd come with the extra `bench` alone

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from torchjd import aggregation

from benchmarks.solver_times import jacobians
from benchmarks.timing import machine
from igb_jax import balancers

METHODS: dict[str, Callable[[], Any]] = {
  "mgda": aggregation.MGDA,
  "upgrad": aggregation.UPGrad,
  "dualproj": aggregation.DualProj,
  "pcd": aggregation.PCD,
  "aligned": aggregation.AlignedMTL,
  "config": aggregation.ConFIG,
  "imtlg": aggregation.IMTLG,
}


@dataclasses.dataclass(frozen=True)
class Options:
  """Times small gradient balancers beside TorchJD's."""

  num_tasks: tuple[int, ...] = (3, 11, 40)
  """Numbers of tasks, K."""
  calls: int = 20
  """Calls of each instance."""


def compare(name: str, num_tasks: int, calls: int) -> str:
  """A row of the table.

  Args:
    name: of the method, in `create`.
    num_tasks: K.
    calls: how often each instance is timed.
  """
  balancer = balancers.create(name, num_tasks=num_tasks).gradient
  assert balancer is not None
  update = jax.jit(balancer.update)
  theirs = METHODS[name]()
  seconds: tuple[list[float], list[float]] = [], []
  conflict, apart = [1.0, 1.0], 0.0
  for jacobian in jacobians(8, num_tasks):
    on_jax, on_torch = jnp.asarray(jacobian), torch.from_numpy(jacobian)
    state = balancer.init(on_jax[0])
    if name == "pcd":  # which remembers the gradients before
      theirs.reset()
    results = [update(on_jax, state)[0], theirs(on_torch)]
    for _ in range(calls):
      start = time.perf_counter()
      jax.block_until_ready(update(on_jax, state))
      middle = time.perf_counter()
      theirs(on_torch)
      seconds[0].append(middle - start)
      seconds[1].append(time.perf_counter() - middle)
    exact = jacobian.astype(np.float64)[1 if name == "pcd" else 0 :]
    ours, published = (np.asarray(result, np.float64) for result in results)
    if name == "mgda":
      ours = ours / num_tasks
    for index, result in enumerate((ours, published)):
      lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(result)
      conflict[index] = min(conflict[index], (exact @ result / lengths).min())
    difference = np.linalg.norm(ours - published) / np.linalg.norm(published)
    apart = max(apart, difference)
  times = [1e6 * np.array(each) for each in seconds]
  shown = [f"{np.median(t):.0f} [{t.min():.0f}, {t.max():.0f}]" for t in times]
  ratio = np.median(times[1]) / np.median(times[0])
  cells = [name, f"{num_tasks}", *shown, f"{ratio:.1f}"]
  cells += [f"{conflict[0]:.1e}", f"{conflict[1]:.1e}", f"{apart:.0e}"]
  return f"| {' | '.join(cells)} |"


def main() -> None:
  """Prints the table."""
  options = tyro.cli(Options)
  torch.set_num_threads(1)  # what is so small is faster with one
  print(f"{machine()}\n\nMicroseconds, median [min, max]:\n")
  print("| method | K | ours | TorchJD | ratio | conflict | theirs | apart |")
  print("|---|---|---|---|---|---|---|---|")
  for name in METHODS:
    for num_tasks in options.num_tasks:
      print(compare(name, num_tasks, options.calls), flush=True)


if __name__ == "__main__":
  main()
