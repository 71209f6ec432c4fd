"""The small solvers against the libraries that they replace: time and objective.

    python -m benchmarks.solvers

Problems on the Gramian G of K task gradients, each with the solver of its published
code, written anew:

- MGDA: Frank-Wolfe with exact line search from the best pair, at most 250 iterations,
  ends when the weights change by less than 1e-5; PyTorch, float32.
- CAGrad: SciPy's SLSQP on the simplex from equal weights, derivatives by differences.
- Nash-MTL: at most 20 rounds of the linearised problem in cvxpy, from ones, with ECOS
  and with Clarabel: as published, with one constraint a task in a form that cvxpy
  compiles again every round; and as fast as it gets, with one constraint in all and
  compiled once. Also the convex form of the problem, compiled once, with Clarabel.

The gradients are the same float32 numbers for all; ours get their float32 Gramian, the
others the float64 one, on which every objective and residual is evaluated:

- MGDA: w^T G w in units of the trace; residual: the duality gap
  w^T G w - min_k (G w)_k, relative to w^T G w.
- CAGrad: <g_w, g_0> + c |g_0| |g_w| in units of |g_0|^2; residual: its duality gap, in
  the same unit.
- Nash-MTL: (a^T G a / 2 - sum_k log a_k) / K with G divided by its Frobenius norm;
  residual: max_k |a_k (G a)_k - 1|.

Times are from the Gramian to the weights; what is compiled once is compiled before. A
call of ours includes its dispatch. "Failed" are runs in which the library reports an
error or that the problem has no solution, "unfinished" those that end at their limit of
iterations without meeting their own criterion. Failed runs end early: their times do
not count, their weights (the latest, as published) do. The ratio is that of the medians
over the instances on which the reference did not fail.
"""

import dataclasses
import importlib.metadata
import os
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.solver_problems import METHODS, Method
from igb_jax.balancers.solvers import Gramian

KINDS = ("gauss", "common", "conflict", "scaled")
TOLERANCE = 1e-6  # of objectives, in their units: what float32 can do
GIVE_UP = 60.0  # seconds of a solve beyond which no larger K is tried
PACKAGES = ("jax", "numpy", "scipy", "torch", "cvxpy", "ecos", "clarabel")


@dataclasses.dataclass(frozen=True)
class Options:
  """Times the small solvers against the libraries that they replace."""

  task_counts: tuple[int, ...] = (2, 3, 11, 40, 128)
  """Numbers of tasks K."""
  seeds: int = 2
  """Instances of each kind and K."""
  calls: int = 30
  """Counted calls of ours on each instance."""
  reference_calls: int = 3
  """Counted calls of a reference on each instance; one if it takes over a second."""
  budget: float = 20.0
  """Seconds for a reference at each K, after which it gets no further instance."""


def jacobian(kind: str, num_tasks: int, seed: int) -> np.ndarray:
  """Task gradients, f32[K, P].

  Args:
    kind: one of `KINDS`.
    num_tasks: K.
    seed: of the random numbers.
  """
  generator = np.random.default_rng([seed, num_tasks, KINDS.index(kind)])
  rows = generator.normal(size=(num_tasks, max(4 * num_tasks, 200)))
  if kind == "common":
    rows += 3
  elif kind == "conflict":
    rows -= 0.95 * rows.mean(0)
  elif kind == "scaled":
    rows *= 10 ** generator.uniform(-2, 2, size=(num_tasks, 1))
  return rows.astype(np.float32)


class Row(NamedTuple):
  """A reference at some K.

  Attributes:
    cells: of the table.
    worst: largest objective of ours less theirs.
    slowest: seconds of the longest solve of theirs.
  """

  cells: list[str]
  worst: float
  slowest: float


def timed(solve: Callable, gramian: object, calls: int) -> tuple[list[float], Any]:
  """Wall-clock seconds of each call, and the latest answer.

  Args:
    solve: ours or a reference.
    gramian: its argument.
    calls: how many, but one if that takes over a second.
  """
  seconds, answer = [], None
  for _ in range(calls):
    start = time.perf_counter()
    answer = jax.block_until_ready(solve(gramian))
    seconds.append(time.perf_counter() - start)
    if seconds[0] > 1:
      break
  return seconds, answer


def spread(seconds: list[float], unit: float) -> str:
  """Median [least, largest], in a unit of so many seconds."""
  if not seconds:
    return "none"
  values = np.array([np.median(seconds), min(seconds), max(seconds)]) / unit
  median, least, largest = (f"{value:.{1 if value < 100 else 0}f}" for value in values)
  return f"{median} [{least}, {largest}]"


def measure(method: Method, reference: str, num_tasks: int, options: Options) -> Row:
  """Times ours and a reference on the same instances, in turns.

  Args:
    method: the problem.
    reference: name of the reference.
    num_tasks: K.
    options: how often.
  """
  instances = [
    jacobian(kind, num_tasks, seed) for seed in range(options.seeds) for kind in KINDS
  ]
  ours = jax.jit(method.ours)
  theirs = method.references[reference](num_tasks)
  jax.block_until_ready(ours(Gramian.of([jnp.asarray(instances[0])])))  # compiles

  seconds: tuple[list[float], list[float]] = [], []
  judged: tuple[list, list] = [], []
  outcomes, shared, slowest = [], [], 0.0  # shared: ours where theirs did not fail
  end = time.perf_counter() + options.budget
  for rows in instances:
    if time.perf_counter() > end:
      break
    gramian = jax.block_until_ready(Gramian.of([jnp.asarray(rows)]))
    rows = rows.astype(np.float64)
    exact = rows @ rows.T
    time.sleep(0.2)  # until the threads of the one before have gone to sleep
    our_times, weights = timed(ours, gramian, options.calls)
    seconds[0].extend(our_times)
    judged[0].append(method.judge(exact, np.asarray(weights, np.float64)))
    times, answer = timed(theirs, exact, options.reference_calls)
    slowest = max(slowest, *times)
    if answer.outcome != "failed":
      seconds[1].extend(times)
      shared.extend(our_times)
    judged[1].append(method.judge(exact, answer.weights))
    outcomes.append(answer.outcome)

  our_values, their_values = np.array(judged[0]), np.array(judged[1])
  # a reference without an answer cannot be better; ours without one is NaN
  reference_objective = np.nan_to_num(their_values[:, 0], nan=np.inf)
  difference = our_values[:, 0] - reference_objective
  worst, best = difference.max(), difference.min()
  ratio = np.median(seconds[1]) / np.median(shared) if shared else np.nan
  cells = [
    str(num_tasks),
    spread(seconds[0], 1e-6),
    spread(seconds[1], 1e-3),
    f"{ratio:.0f}",
    f"{worst:.1e}",
    f"{best:.1e}",
    f"{our_values[:, 1].max():.1e}",
    f"{np.nanmax(their_values[:, 1]):.1e}",
    f"{outcomes.count('failed')}, {outcomes.count('unfinished')} of {len(outcomes)}",
  ]
  return Row(cells, worst, slowest)


def report(options: Options) -> None:
  """Measures and prints the tables."""
  # cvxpy warns of inaccurate solutions; the residual tells
  warnings.filterwarnings("ignore", "Solution may be inaccurate")
  versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
  num_instances = options.seeds * len(KINDS)
  print(
    f"Small solvers, {platform.machine()}, {os.cpu_count()} cores, "
    f"{jax.devices()[0].device_kind}; Python {platform.python_version()}, "
    f"{', '.join(versions)}. {num_instances} instances for each K, median [min, max] "
    f"of {options.calls} calls of ours on each and of up to {options.reference_calls} "
    "of theirs; objective and residual are the least and largest over instances."
  )
  columns = ["K", "ours µs", "theirs ms", "ratio"]
  columns += ["objective, ours - theirs: largest", "least"]
  columns += ["largest residual: ours", "theirs", "theirs failed, unfinished"]
  for method in METHODS:
    for reference in method.references:
      print(f"\n{method.name}: {reference}\n")
      print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
      worst, slow = -np.inf, 0
      for num_tasks in sorted(options.task_counts):
        if slow:
          print(f"| {num_tasks} | left out: over {GIVE_UP:.0f} s at K = {slow} |")
          continue
        row = measure(method, reference, num_tasks, options)
        print(f"| {' | '.join(row.cells)} |", flush=True)
        worst = np.maximum(worst, row.worst)  # keeps NaN
        slow = num_tasks if row.slowest > GIVE_UP else 0
      never = "never" if worst <= TOLERANCE else "NOT never"
      print(f"\nOurs is {never} worse by more than {TOLERANCE:.0e}: {worst:.1e}")


def main() -> None:
  """Reads the command line and reports."""
  report(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
  main()
