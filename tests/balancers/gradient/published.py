"""Golden numbers of gradient balancers, and what ours make of the same gradients."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.balancers.contract import init, make_gradient, slow_but, to_numpy

GOLDEN = Path(__file__).parents[2] / "golden"
KINDS = ["gauss", "scaled", "common", "conflict", "small"]
TASK_COUNTS = [2, 3, 5, 11]
# each compiles anew, so the fast tests have one of them
FEWER = slow_but([11], TASK_COUNTS)


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


def one_call_at_a_time(balancer: Any, num_tasks: int, key: str, three: bool):
  """Results, w and the recorded w, each call from the recorded w before it.

  Args:
    balancer: one that keeps w.
    num_tasks: K.
    key: of the golden numbers.
    three: whether there are three batches, not one.

  Returns:
    Results [kinds, T, P], and w of ours and of the golden numbers, [kinds, T, K].
  """
  recorded = golden("methods.npz", f"{key}_w", num_tasks).astype(np.float32)
  equal = np.full_like(recorded[:, :1], 1 / num_tasks)
  before = np.concatenate([equal, recorded[:, :-1]], axis=1)
  first, second, third = (
    golden("methods.npz", batch, num_tasks).astype(np.float32)
    for batch in ("J", "J2", "J3")
  )

  def call(first, second, third, w):
    state = balancer.init(first[0])._replace(memory=w)
    if not three:
      return balancer.update(first, state)
    products = jnp.matmul(first, second.T, precision="highest")
    return balancer.update(third, state, cross_gramian=products)

  results, states = jax.jit(jax.vmap(jax.vmap(call)))(first, second, third, before)
  return np.asarray(results), np.asarray(states.memory), recorded


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


def assert_published(
  key: str, name: str, num_tasks: int, apart: tuple[str, ...] = (), **options: Any
) -> None:
  """Ours is what was published, and says that it is solved.

  Args:
    key: of the golden numbers.
    name: of the method.
    num_tasks: K.
    apart: kinds where an absolute epsilon of the published code is seen.
    **options: of the method.
  """
  results, states = balanced("methods.npz", name, num_tasks, **options)
  expected = golden("methods.npz", key, num_tasks)
  assert_near(results, expected, 1e-4, dict.fromkeys(apart, 1e-3))
  assert (states.residual < 1e-5).all()


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


def assert_weights_follow(
  formula: Any, name: str, num_tasks: int, **options: Any
) -> None:
  """Weights and results are those of a formula in float64.

  Args:
    formula: `formula(jacobian, weights)`, the weights that follow.
    name: of the method.
    num_tasks: K.
    **options: of the method.
  """
  results, states = balanced("methods.npz", name, num_tasks, **options)
  jacobians = golden("methods.npz", "J", num_tasks).astype(np.float64)
  for kind, of_kind in enumerate(jacobians):
    weights = np.ones(num_tasks)
    for call, jacobian in enumerate(of_kind):
      weights = formula(jacobian, weights)
      np.testing.assert_allclose(states.weights[kind, call], weights, 1e-4)
      expected = weights @ jacobian
      largest = np.abs(expected).max()
      np.testing.assert_allclose(results[kind, call], expected, 0, 1e-4 * largest)
