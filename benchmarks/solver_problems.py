"""The problems of the small solvers, each with our solver and the libraries'."""
# pyright: reportMissingImports=false
# cvxpy and torch come with the extra `bench` alone

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import torch

from igb_jax.balancers.solvers import Gramian, Mean, min_norm, nash, trust_region

C = 0.4  # radius of CAGrad's ball


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
  """Objective and residual of MGDA, see `benchmarks.solvers`."""
  w = on_simplex(weights)
  products = gramian @ w
  square = w @ products
  gap = square - products.min()
  return float(square / np.trace(gramian)), float(gap / square)


def judge_cagrad(gramian: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
  """Objective and residual of CAGrad, see `benchmarks.solvers`."""
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
  """Objective and residual of Nash-MTL, see there; weights are those of G itself."""
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
