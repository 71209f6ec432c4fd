"""Golden numbers of gradient balancers, and what ours make of the same gradients."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.balancers.contract import init, make_gradient, to_numpy

GOLDEN = Path(__file__).parents[2] / "golden"
KINDS = ["gauss", "scaled", "common", "conflict", "small"]
TASK_COUNTS = [2, 3, 5, 11]


@functools.cache
def numbers(file: str) -> Any:
  return np.load(GOLDEN / file)


def golden(file: str, name: str, num_tasks: int) -> np.ndarray:
  """The arrays of all kinds, stacked: [kinds, T, ...] for T calls in a row."""
  return np.stack([numbers(file)[f"{name}_{kind}_{num_tasks}"] for kind in KINDS])


@functools.cache
def balanced(file: str, name: str, num_tasks: int, **options: Any):
  """Results [kinds, T, P] and states of ours, one call after the other."""
  return balanced_by(make_gradient(name, num_tasks, **options), file, num_tasks)


def balanced_by(balancer: Any, file: str, num_tasks: int):
  """The same of a balancer that has no name."""
  jacobians = golden(file, "J", num_tasks)

  def run(jacobians):
    def step(state, jacobian):
      result, state = balancer.update(jacobian, state)
      return state, (result, state)

    return jax.lax.scan(step, init(balancer, jacobians[0, 0]), jacobians)[1]

  return to_numpy(jax.jit(jax.vmap(run))(jnp.asarray(jacobians, jnp.float32)))


def errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
  """Relative errors of vectors along the last axis."""
  difference = np.linalg.norm(np.asarray(actual, np.float64) - expected, axis=-1)
  return difference / np.maximum(np.linalg.norm(expected, axis=-1), 1e-30)


def assert_near(
  actual: Any, expected: Any, bound: float, bounds: dict[str, float] | None = None
) -> None:
  """Each vector is as near as a share of its largest entry.

  Args:
    actual: of kinds, [kinds, T, P], or of any vectors without `bounds`.
    expected: what it should be.
    bound: the share.
    bounds: another share for some kinds.
  """
  largest = np.abs(expected).max(axis=-1, keepdims=True)
  error = (np.abs(actual - expected) / largest).max(axis=-1)
  for index, values in enumerate(error):
    kind = KINDS[index] if bounds else ""
    assert values.max() < (bounds or {}).get(kind, bound), (index, values.max())


def assert_close_or_better(
  name: str,
  num_tasks: int,
  objective: Any,
  not_converged: set[str],
  published: str | None = None,
) -> None:
  """Ours is what was published, or the better solution of the same problem.

  Args:
    name: of the method.
    num_tasks: K.
    objective: `objective(jacobian, result)`, which the method makes small.
    not_converged: kinds with number of tasks of which the published solver did not
      find the solution.
    published: what the method is called in the golden numbers.
  """
  results, states = balanced("gradient.npz", name, num_tasks)
  expected = golden("gradient.npz", published or name, num_tasks)
  jacobians = golden("gradient.npz", "J", num_tasks).astype(np.float64)
  assert (states.residual < 1e-6).all()
  for index in np.argwhere(errors(results, expected) > 1e-4):
    at = tuple(index)
    assert f"{KINDS[at[0]]}_{num_tasks}" in not_converged
    ours, theirs = (
      objective(jacobians[at], vector[at].astype(np.float64))
      for vector in (results, expected)
    )
    assert ours < theirs
