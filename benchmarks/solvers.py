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
# pyright: reportMissingImports=false
# cvxpy and torch come with the extra `bench` alone

import dataclasses
import importlib.metadata
import os
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import torch
import tyro

from igb_jax.balancers.solvers import Gramian, Mean, min_norm, nash, trust_region

C = 0.4  # radius of CAGrad's ball
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


class Answer(NamedTuple):
  """What a reference returns.

  Attributes:
    weights: float[K].
    outcome: "solved", "unfinished" or "failed".
  """

  weights: np.ndarray
  outcome: str


Reference = Callable[[np.ndarray], Answer]


@dataclasses.dataclass(frozen=True)
class Method:
  """A problem with our solver and the references.

  Attributes:
    name: of the balancer.
    ours: from the Gramian to weights.
    judge: from G in float64 and weights to objective and residual.
    references: name -> what makes a reference for K tasks, compiled.
  """

  name: str
  ours: Callable[[Gramian], jax.Array]
  judge: Callable[[np.ndarray, np.ndarray], tuple[float, float]]
  references: dict[str, Callable[[int], Reference]]


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


def mean_of(gramian: Gramian) -> Mean:
  """The mean of the gradients, from their Gramian alone as the references have it."""
  in_mean = gramian.norms / gramian.norms.max() / len(gramian.norms)
  products = gramian.product(in_mean)
  norm = jnp.sqrt(in_mean @ products)
  return Mean(norm, products / norm)


def on_simplex(weights: np.ndarray) -> np.ndarray:
  """The weights without negative ones, divided by their sum."""
  weights = np.maximum(weights, 0)
  return weights / weights.sum() if weights.any() else np.full_like(weights, np.nan)


def judge_mgda(gramian: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
  """Objective and residual of MGDA, see above."""
  w = on_simplex(weights)
  products = gramian @ w
  square = w @ products
  gap = square - products.min()
  return float(square / np.trace(gramian)), float(gap / square)


def judge_cagrad(gramian: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
  """Objective and residual of CAGrad, see above."""
  w = on_simplex(weights)
  with_mean = gramian.mean(1)
  mean_square = with_mean.mean()
  products, norm = gramian @ w, np.sqrt(w @ gramian @ w)
  radius = C * np.sqrt(mean_square)
  slope = with_mean + radius * products / norm
  objective = w @ with_mean + radius * norm
  gap = w @ slope - slope.min()
  return float(objective / mean_square), float(gap / mean_square)


def judge_nash(gramian: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
  """Objective and residual of Nash-MTL, see above; weights are those of G itself."""
  norm = np.linalg.norm(gramian)
  a = weights * np.sqrt(norm)
  products = a * (gramian @ a) / norm
  objective = np.mean(products / 2 - np.log(a))
  return float(objective), float(np.max(np.abs(products - 1)))


def frank_wolfe(gramian: np.ndarray) -> Answer:
  """The reference for MGDA."""
  g = torch.from_numpy(gramian.astype(np.float32))
  squares = g.diagonal()

  # every pair: share * g_i + (1 - share) * g_j
  apart = (squares[:, None] + squares - 2 * g).clamp(min=1e-30)
  share = ((squares - g) / apart).clamp(0, 1)
  pairs = share**2 * squares[:, None] + (1 - share) ** 2 * squares
  pairs += 2 * share * (1 - share) * g
  i, j = divmod(int(pairs.argmin()), len(g))
  w = torch.zeros(len(g))
  w[i] += share[i, j]
  w[j] += 1 - share[i, j]

  for _ in range(250):
    products = g @ w
    k = int(products.argmin())
    square, product, other = float(w @ products), float(products[k]), float(g[k, k])
    keep = (other - product) / max(square + other - 2 * product, 1e-30)
    new = min(max(keep, 0.0), 1.0) * w
    new[k] += 1 - min(max(keep, 0.0), 1.0)
    change = float((new - w).abs().sum())
    w = new
    if change < 1e-5:
      return Answer(w.double().numpy(), "solved")
  return Answer(w.double().numpy(), "unfinished")


def slsqp(gramian: np.ndarray) -> Answer:
  """The reference for CAGrad."""
  start = np.full(len(gramian), 1 / len(gramian))
  with_mean = gramian @ start
  radius = C * np.sqrt(start @ with_mean)

  def objective(w: np.ndarray) -> float:
    return float(w @ with_mean + radius * np.sqrt(w @ gramian @ w + 1e-8))

  result = scipy.optimize.minimize(
    objective,
    start,
    method="SLSQP",
    bounds=[(0, 1)] * len(gramian),
    constraints={"type": "eq", "fun": lambda w: 1 - w.sum()},
  )
  outcomes = {0: "solved", 9: "unfinished"}
  return Answer(result.x, outcomes.get(result.status, "failed"))


def solved(problem: cp.Problem, a: cp.Variable, solver: str, **options: bool) -> bool:
  """Solves, and says whether there are numbers to go on with."""
  try:
    problem.solve(solver=solver, warm_start=True, **options)
  except cp.SolverError:
    return False
  accepted = problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
  return accepted and bool(np.isfinite(a.value).all())


def linearised(num_tasks: int, solver: str, as_published: bool) -> Reference:
  """The reference for Nash-MTL.

  With phi_k = log a_k + log (G a)_k, a solution has phi = 0. Each round minimises
  sum_k phi_k, linear about the latest a, plus sum_k (G a)_k over phi >= 0.

  Args:
    num_tasks: K.
    solver: name in cvxpy.
    as_published: one constraint a task, and compile every round; otherwise one
      constraint, compiled once.
  """
  a = cp.Variable(num_tasks)
  matrix = cp.Parameter((num_tasks, num_tasks), value=np.eye(num_tasks))
  slope = cp.Parameter(num_tasks, value=np.ones(num_tasks))
  product = matrix @ a
  if as_published:
    nonnegative = [cp.log(a[k]) + cp.log(product[k]) >= 0 for k in range(num_tasks)]
  else:
    nonnegative = [cp.log(a) + cp.log(product) >= 0]
  problem = cp.Problem(cp.Minimize(slope @ a), [*nonnegative, a >= 1e-6])
  if not as_published:
    problem.get_problem_data(solver)  # compiles

  def solve(gramian: np.ndarray) -> Answer:
    norm = np.linalg.norm(gramian)
    g = matrix.value = gramian / norm
    latest = np.ones(num_tasks)
    for _ in range(20):
      slope.value = 1 / latest + g @ (1 / (g @ latest)) + g.sum(0)
      if not solved(problem, a, solver, ignore_dpp=as_published):
        return Answer(latest / np.sqrt(norm), "failed")
      change = np.linalg.norm(a.value - latest)
      latest = np.array(a.value)
      if np.linalg.norm(g @ latest - 1 / latest) < 1e-3 or change < 1e-6:
        return Answer(latest / np.sqrt(norm), "solved")
    return Answer(latest / np.sqrt(norm), "unfinished")

  return solve


def convex(num_tasks: int, solver: str) -> Reference:
  """Nash-MTL as the minimum of a^T G a / 2 - sum_k log a_k.

  Args:
    num_tasks: K.
    solver: name in cvxpy.
  """
  a = cp.Variable(num_tasks)
  factor = cp.Parameter((num_tasks, num_tasks), value=np.eye(num_tasks))
  problem = cp.Problem(cp.Minimize(cp.sum_squares(factor @ a) / 2 - cp.sum(cp.log(a))))
  problem.get_problem_data(solver)

  def solve(gramian: np.ndarray) -> Answer:
    norm = np.linalg.norm(gramian)
    factor.value = np.linalg.cholesky(gramian / norm).T
    if not solved(problem, a, solver):
      return Answer(np.full(num_tasks, np.nan), "failed")
    return Answer(a.value / np.sqrt(norm), "solved")

  return solve


def warm(solve: Reference) -> Callable[[int], Reference]:
  """A reference that needs no compilation, called once.

  Args:
    solve: the reference.
  """

  def make(num_tasks: int) -> Reference:
    solve(np.eye(num_tasks))
    return solve

  return make


METHODS = (
  Method(
    "MGDA",
    lambda gramian: min_norm(gramian).weights,
    judge_mgda,
    {"Frank-Wolfe, PyTorch": warm(frank_wolfe)},
  ),
  Method(
    "CAGrad",
    lambda gramian: trust_region(gramian, mean_of(gramian), C).weights,
    judge_cagrad,
    {"SLSQP, SciPy": warm(slsqp)},
  ),
  Method(
    "Nash-MTL",
    lambda gramian: nash(gramian).weights,
    judge_nash,
    {
      "as published, cvxpy with ECOS": lambda k: linearised(k, cp.ECOS, True),
      "as published, cvxpy with Clarabel": lambda k: linearised(k, cp.CLARABEL, True),
      "compiled once, cvxpy with ECOS": lambda k: linearised(k, cp.ECOS, False),
      "compiled once, cvxpy with Clarabel": lambda k: linearised(k, cp.CLARABEL, False),
      "convex form, cvxpy with Clarabel": lambda k: convex(k, cp.CLARABEL),
    },
  ),
)


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
