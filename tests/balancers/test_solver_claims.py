"""What the texts claim of solutions, checked in float64 on the gradients themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers.solvers import Gramian, min_norm


@functools.cache  # so that tests share what they compile
def solver(name: str, num_tasks: int):
  balancer = balancers.create(name, num_tasks=num_tasks).gradient
  assert balancer is not None
  return jax.jit(
    jax.vmap(lambda grads: balancer.update(grads, balancer.init(grads[0])))
  )


def solve(name: str, jacobians: np.ndarray):
  """Results in float64 for Jacobians f32[N, K, P], and the states."""
  results, states = solver(name, jacobians.shape[1])(jnp.asarray(jacobians))
  return np.asarray(results, np.float64), states


def lengths(vectors: np.ndarray) -> np.ndarray:
  return np.linalg.norm(vectors, axis=-1)


def relative_errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
  return lengths(actual - expected) / lengths(expected)


# ----------------------------------------------------------------------- CAGrad


def radii(jacobians: np.ndarray, results: np.ndarray) -> np.ndarray:
  """|d - g_0| / |g_0|, where c is 0.4."""
  num_tasks = jacobians.shape[1]
  means = jacobians.astype(np.float64).mean(axis=1)
  return relative_errors(results * (1 + 0.4**2) / num_tasks, means)


def nearly_cancelling(num_tasks: int, num_parameters: int, size: float) -> np.ndarray:
  """Gradients along one line, on both sides, but for a part of the given size."""
  generator = np.random.default_rng(num_tasks)
  line = generator.normal(size=(1000, 1, num_parameters))
  signs = generator.choice([-1.0, 1.0], size=(1000, num_tasks, 1))
  signs[:, 1] = -signs[:, 0]
  rest = generator.normal(size=(1000, num_tasks, num_parameters))
  return (signs * line + size * rest).astype(np.float32)


def test_cagrad_stays_in_its_ball_where_the_cosines_cancel():
  jacobian = np.array(
    [
      [-0.50291592, 1.21789038, -0.27111942, 0.7301833],
      [0.49940798, -1.22217882, 0.27104959, -0.73152667],
      [0.08807514, 0.52529562, 0.31617981, -0.35797334],
    ],
    np.float32,
  )
  results, states = solve("cagrad", jacobian[None])
  assert radii(jacobian[None], results)[0] < 0.4 * (1 + 1e-4)
  assert states.residual[0] < 1e-4


@pytest.mark.parametrize("size", [1e-1, 1e-2, 3e-3])
@pytest.mark.parametrize("num_tasks", [2, 3, 5, 11])
def test_cagrad_stays_in_its_ball_up_to_what_its_residual_says(num_tasks, size):
  jacobians = nearly_cancelling(num_tasks, 4, size)
  results, states = solve("cagrad", jacobians)
  excess = radii(jacobians, results) - 0.4
  assert (excess < 1e-6 + 2 * np.asarray(states.residual)).all()
  assert (excess < 1e-3).all()


@pytest.mark.parametrize("relative", [1e-3, 1e-4, 1e-5])
def test_cagrads_residual_sees_what_the_sum_of_the_result_loses(relative):
  generator = np.random.default_rng(0)
  jacobians = generator.normal(size=(200, 3, 50))
  jacobians -= jacobians.mean(axis=1, keepdims=True)
  jacobians += relative * generator.normal(size=(200, 1, 50))
  jacobians = jacobians.astype(np.float32)
  _, states = solve("cagrad", jacobians)
  # what float32 makes of weights and sums, whatever the weights are
  weights = np.asarray(states.weights, np.float64)
  exact = jacobians.astype(np.float64)
  means = exact.mean(axis=1)
  rounding = lengths(weights[..., None] * exact).max(axis=1) * 2.0**-25
  lost = rounding * (1 + 0.4**2) / 3 / lengths(means)
  assert (np.asarray(states.residual) > lost).all()
  assert (np.asarray(states.residual) < 100 * lost).all()


# ----------------------------------------------------------------------- IMTL-G


def dependent(kind: str, num_tasks: int) -> np.ndarray:
  generator = np.random.default_rng(num_tasks)
  gauss = generator.normal(size=(num_tasks, 200))
  factors = generator.uniform(0.5, 2, size=(num_tasks, 1))
  signs = generator.choice([-1, 1], factors.shape)
  scales = 10.0 ** generator.uniform(-10, 10, factors.shape)
  few = generator.normal(size=(num_tasks, 2)) @ generator.normal(size=(2, 200))
  half = np.repeat(gauss[: (num_tasks + 1) // 2], 2, axis=0)[:num_tasks]
  return {
    "parallel": factors * gauss[:1],
    "parallel, both signs": factors * signs * gauss[:1],
    "parallel, scales": scales * gauss[:1],
    "duplicates": half,
    "duplicates on scales": factors * half,
    "two dimensions": few,
    "one a sum": np.concatenate([gauss[1:], gauss[1:].sum(axis=0, keepdims=True)]),
  }[kind].astype(np.float32)  # fmt: skip


@pytest.mark.parametrize("num_tasks", [3, 5, 11, 64])
@pytest.mark.parametrize(
  "kind",
  [
    "parallel", "parallel, both signs", "parallel, scales", "duplicates",
    "duplicates on scales", "two dimensions", "one a sum",
  ],
)  # fmt: skip
def test_imtlg_is_permutation_equivariant_on_dependent_gradients(kind, num_tasks):
  jacobian = dependent(kind, num_tasks)
  generator = np.random.default_rng(0)
  orders = [np.arange(num_tasks)]
  orders += [generator.permutation(num_tasks) for _ in range(20)]
  results, states = solve("imtlg", np.stack([jacobian[order] for order in orders]))
  # where equal projections are only those of zero, the result is the rounding of this
  shares = np.abs(states.weights[0]) * lengths(jacobian)
  for index, order in enumerate(orders):
    assert lengths(results[index] - results[0]) < 1e-4 * lengths(results[0]) + (
      1e-6 * shares.sum()
    )
    np.testing.assert_allclose(
      states.weights[index] * lengths(jacobian[order]),
      states.weights[0][order] * lengths(jacobian[order]),
      atol=1e-4 * shares.max(),
    )
  assert (states.residual < 1e-5).all()


@pytest.mark.parametrize("num_tasks", [2, 3, 11, 64])
def test_imtlg_of_parallel_gradients_is_their_harmonic_mean(num_tasks):
  """All projections are the same whatever the weights; the shortest y is even."""
  jacobian = dependent("parallel", num_tasks)
  results, states = solve("imtlg", jacobian[None])
  weights = (1 / lengths(jacobian)) / (1 / lengths(jacobian)).sum()
  np.testing.assert_allclose(states.weights[0], weights, 1e-5)
  assert relative_errors(results[0], weights @ jacobian.astype(np.float64)) < 1e-5


def of_condition(condition: float, num_tasks: int, num_parameters: int) -> np.ndarray:
  """Jacobians of which the Gramian has a condition number, on scales of 0.1 to 10."""
  generator = np.random.default_rng(num_tasks)
  jacobians = []
  for _ in range(40):
    left = np.linalg.qr(generator.normal(size=(num_tasks, num_tasks)))[0]
    right = np.linalg.qr(generator.normal(size=(num_parameters, num_tasks)))[0]
    values = np.geomspace(1, condition**-0.5, num_tasks)
    scales = 10 ** generator.uniform(-1, 1, size=(num_tasks, 1))
    jacobians.append(scales * (left * values) @ right.T)
  return np.array(jacobians, np.float32)


@pytest.mark.parametrize("num_tasks", [3, 11])
@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4])
def test_imtlg_is_that_of_float64_for_near_dependent_gradients(condition, num_tasks):
  jacobians = of_condition(condition, num_tasks, 500)
  exact = jacobians.astype(np.float64)
  expected = equal_projections(exact)
  # as float32 changes the projections that it measures, and the weights
  changes = [
    relative_errors(equal_projections(exact, np.random.default_rng(seed)), expected)
    for seed in range(20)
  ]
  results, _ = solve("imtlg", jacobians)
  errors = relative_errors(results, expected)
  assert np.median(errors) < 3e-6
  assert (errors < 1e-6 + 5 * np.max(changes, axis=0)).all()


def equal_projections(jacobians: np.ndarray, generator=None) -> np.ndarray:
  units = jacobians / lengths(jacobians)[..., None]
  products = units @ units.swapaxes(1, 2)
  shares = np.linalg.solve(products, np.ones((*products.shape[:2], 1)))
  if generator is not None:
    sums = lengths((shares * units).sum(axis=1))[:, None, None]
    rounding = 2.0**-24 * generator.normal(size=(2, *shares.shape))
    shares += np.linalg.solve(products, sums * rounding[0])
    shares *= 1 + rounding[1]
  weights = shares[..., 0] / lengths(jacobians)
  weights /= weights.sum(axis=1)[:, None]
  return np.einsum("nk,nkp->np", weights, jacobians)


# --------------------------------------------------------------------- Nash-MTL


def without_solution(kind: str) -> np.ndarray:
  generator = np.random.default_rng(0)
  gauss = generator.normal(size=(100, 4, 50))
  one_zero = gauss.copy()
  one_zero[:, 0] = 0
  opposite = gauss.copy()
  opposite[:, 1::2] = -2 * opposite[:, ::2]
  one_pair = gauss.copy()
  one_pair[:, 1] = -one_pair[:, 0]
  return {
    "opposite pairs": opposite,
    "one opposite pair": one_pair,
    "sum to zero": gauss - gauss.mean(axis=1, keepdims=True),
    "zero inside": np.stack([[[1.0, 0], [0, 2], [-1, 0.1], [-1, -1]]] * 2),
    "one zero": one_zero,
  }[kind].astype(np.float32)


@pytest.mark.parametrize(
  "kind",
  ["opposite pairs", "one opposite pair", "sum to zero", "zero inside", "one zero"],
)
def test_nash_state_says_that_no_weights_solve_its_equation(kind):
  _, states = solve("nashmtl", without_solution(kind))
  assert (states.violation > 0.1).all()
  assert (states.weights > 0).all()
  assert np.isfinite(states.weights).all()


@pytest.mark.parametrize("kind", ["gauss", "common direction", "conflicting"])
@pytest.mark.parametrize("num_tasks", [2, 3, 11])
def test_nash_state_says_that_its_equation_holds(kind, num_tasks):
  generator = np.random.default_rng(0)
  jacobians = generator.normal(size=(100, num_tasks, 50))
  if kind == "common direction":
    jacobians += 1
  if kind == "conflicting":  # the mean is 1 % of them
    jacobians -= 0.99 * jacobians.mean(axis=1, keepdims=True)
  jacobians = jacobians.astype(np.float32)
  _, states = solve("nashmtl", jacobians)
  exact = jacobians.astype(np.float64)
  weights = np.asarray(states.weights, np.float64)
  directions = np.einsum("nk,nkp->np", weights, exact)
  products = weights * np.einsum("nkp,np->nk", exact, directions)
  violations = np.abs(products - 1).max(axis=1)
  # what rounded weights make of it
  rounding = 2.0**-23 * ((weights * lengths(exact)) ** 2).max(axis=1)
  assert (violations < 1e-6 + 2 * rounding).all()
  assert (np.abs(states.violation - violations) < 1e-6 + 4 * rounding).all()


def test_nash_violation_counts_only_tasks_that_are_present():
  balancer = balancers.nash_mtl(3)
  grads = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
  present = jnp.array([True, True, False])
  _, state = balancer.update(grads, balancer.init(grads[0]), present=present)
  assert state.violation < 1e-6
  _, state = balancer.update(grads, balancer.init(grads[0]))
  assert state.violation > 0.5  # no weight solves a * 0 = 1 / a


# ------------------------------------------------------------------------- MGDA


@pytest.mark.parametrize("num_tasks", [2, 3, 4])
def test_mgda_is_that_of_float64_for_near_opposite_gradients(num_tasks):
  jacobians = nearly_cancelling(num_tasks, 50, 0.01)[:200]
  scales = 10 ** np.random.default_rng(0).uniform(-1, 1, size=(200, num_tasks, 1))
  jacobians = (jacobians * scales).astype(np.float32)
  results, states = solve("mgda", jacobians)
  exact = jacobians.astype(np.float64)
  expected = []
  for jacobian in exact:
    expected.append(num_tasks * shortest(jacobian))
  errors = relative_errors(results, np.array(expected))
  assert np.median(errors) < 2e-5
  assert (errors < 1e-2).all()
  assert (states.residual < 1e-6).all()


def shortest(jacobian: np.ndarray) -> np.ndarray:
  """The shortest vector in the hull of a few gradients: that of the best face."""
  best = jacobian[lengths(jacobian).argmin()]
  for subset in range(1, 2 ** len(jacobian)):
    first, *others = [row for k, row in enumerate(jacobian) if subset >> k & 1]
    if others:
      edges = np.array(others).T - first[:, None]
      shares = np.linalg.lstsq(edges, -first)[0]
      vector = first + edges @ shares
      inside = (shares >= 0).all() and shares.sum() <= 1
      if inside and lengths(vector) < lengths(best):
        best = vector
  return best


# --------------------------------------------------------------- without gradients


def test_solvers_do_with_the_gramian_alone():
  leaves = [jnp.array([[1.0, 0.0], [0.0, 2.0]])]
  gramian = Gramian.of(leaves)
  np.testing.assert_allclose(min_norm(gramian).weights, [0.8, 0.2], 1e-6)
  np.testing.assert_allclose(min_norm(gramian, None, leaves).weights, [0.8, 0.2], 1e-6)
