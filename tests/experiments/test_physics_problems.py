"""The physics-informed problems: their solutions, the net's derivatives, training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.problems import burgers, helmholtz, klein_gordon, physics
from igb_jax import balancers
from igb_jax.training.array_task import ArrayTask
from igb_jax.training.step import init_state, make_train_step

PROBLEMS: list[Any] = [helmholtz, klein_gordon, burgers]
STEP = 1e-3  # of finite differences


@pytest.fixture(scope="module", params=PROBLEMS, ids=lambda each: each.__name__[21:])
def problem(request: pytest.FixtureRequest) -> Any:
  return request.param


@pytest.fixture(scope="module")
def task(problem: Any) -> ArrayTask:
  return problem.make_task()


def differences(exact: Any, points: np.ndarray) -> physics.Derivatives:
  """All derivatives of a function in float64, to the fourth order of `STEP`."""
  middle = exact(points)
  found = [middle]
  for axis in np.eye(2):
    ends = [exact(points + place * STEP * axis) for place in (-2, -1, 1, 2)]
    found.append(np.tensordot([1, -8, 8, -1], ends, axes=1) / (12 * STEP))
    total = np.tensordot([-1, 16, 16, -1], ends, axes=1)
    found.append((total - 30 * middle) / (12 * STEP**2))
  return physics.Derivatives(*found)


def test_solution_fulfils_the_equation(problem: Any):
  points = np.random.default_rng(5).uniform(0.1, 0.9, (200, 2))
  terms = [problem.source(points)] if hasattr(problem, "source") else []
  u = differences(problem.exact, points)
  largest = max(np.abs(each).max() for each in u)
  np.testing.assert_allclose(problem.residual(u, *terms) / largest, 0, atol=1e-6)


def test_solution_fulfils_the_conditions(problem: Any, monkeypatch: pytest.MonkeyPatch):
  rows = problem.draw(np.random.default_rng(5), 100)
  rows["interior"][:] = 0.5  # what is inside is tested above

  def solution(_: Any, points: np.ndarray, orders: Any = None) -> physics.Derivatives:
    if orders is None:
      return physics.Derivatives(problem.exact(points))
    return differences(problem.exact, points)

  monkeypatch.setattr(problem, "differentiate", solution)
  for error in problem.errors([], rows)[1:]:
    np.testing.assert_allclose(error, 0, atol=1e-5)


@pytest.mark.parametrize("orders", [(2, 2), (0, 1)])
def test_derivatives_are_those_of_autodiff(orders: tuple[int, int]):
  layers = physics.init_layers(jax.random.key(1), (2, 8, 8, 1))
  points = jax.random.uniform(jax.random.key(2), (16, 2))

  def net(x: jax.Array, y: jax.Array) -> jax.Array:
    return physics.differentiate(layers, jnp.stack([x, y])[None]).u[0]

  functions = {"u": net}
  for axis, name in enumerate("xy"):
    functions[name] = jax.grad(net, axis)
    functions[2 * name] = jax.grad(functions[name], axis)
  found = physics.differentiate(layers, points, orders)
  for name, order in zip(("x", "y"), orders, strict=True):
    assert (getattr(found, name) is not None) == (order > 0)
    assert (getattr(found, 2 * name) is not None) == (order > 1)
  for name, values in found._asdict().items():
    if values is not None:
      wanted = jax.vmap(functions[name])(*points.T)
      np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4, err_msg=name)


def test_slope_of_the_shock_is_that_of_the_literature():
  # Basdevant et al., table 1: the steepest slope, at x = 0
  ends = np.array([(-1e-5, 1.6037 / np.pi), (1e-5, 1.6037 / np.pi)])
  below, above = burgers.exact(ends)
  assert (above - below) / 2e-5 == pytest.approx(-152.00516, abs=1e-2)


def test_quadrature_has_converged():
  points = np.random.default_rng(0).uniform((-1, 0), (1, 1), (1000, 2))
  fewer, more = (burgers.exact(points, nodes) for nodes in (150, 220))
  np.testing.assert_allclose(fewer, more, atol=1e-9)


def test_quadrature_equals_finite_differences():
  x = np.linspace(-1, 1, 2001)
  width, time_step = x[1] - x[0], 1e-4
  u = -np.sin(np.pi * x)

  def change(u: np.ndarray) -> np.ndarray:
    flux = u**2 / 2
    spread = burgers.VISCOSITY * (u[2:] - 2 * u[1:-1] + u[:-2]) / width**2
    return np.pad(spread - (flux[2:] - flux[:-2]) / (2 * width), 1)

  for _ in range(5000):  # to t = 0.5, by the explicit midpoint rule
    u = u + time_step * change(u + time_step / 2 * change(u))
  wanted = burgers.exact(np.stack([x, np.full_like(x, 0.5)], axis=1))
  np.testing.assert_allclose(u, wanted, atol=5e-3)


def test_splits_are_fixed_and_share_no_point(problem: Any, task: ArrayTask):
  again = problem.make_task()
  splits = [getattr(task, split)["interior"] for split in physics.NUM_ROWS]
  for split, points in zip(physics.NUM_ROWS, splits, strict=True):
    np.testing.assert_array_equal(getattr(again, split)["interior"], points)
  points = np.concatenate(splits)
  assert len(np.unique(points, axis=0)) == len(points)


def test_training_fits_and_what_is_trivial_is_so(problem: Any, task: ArrayTask):
  problem.TRAINING.check(task)
  nothing = jax.tree.map(jnp.zeros_like, task.init(jax.random.key(0)))
  measured = task.measures(nothing, task.test)
  np.testing.assert_allclose(measured, problem.TRAINING.trivial, atol=2e-2)


def test_losses_fall(task: ArrayTask):
  batch = jax.tree.map(lambda leaf: leaf[:64], task.train)
  optimizer = optax.adam(1e-2)
  start = task.init(jax.random.key(0))

  def step(carry: Any, _: Any) -> tuple[Any, jax.Array]:
    params, state = carry
    value, grads = jax.value_and_grad(lambda p: task.losses(p, batch).sum())(params)
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), value

  train = jax.jit(lambda carry: jax.lax.scan(step, carry, length=20)[1])
  values = train((start, optimizer.init(start)))
  assert values[-1] < 0.8 * values[0]


def test_gradient_balancers_take_all_parameters_as_shared():
  task, optimizer = burgers.make_task(), optax.adam(1e-3)
  balancer = balancers.create("mgda", num_tasks=3)
  balancer = balancer._replace(loss=balancers.equal(3))
  params, key = task.init(jax.random.key(0)), jax.random.key(1)
  state = init_state(params, balancer=balancer, optimizer=optimizer, key=key)
  step = make_train_step(task.losses, balancer, optimizer)
  batch = jax.tree.map(lambda leaf: leaf[:8], task.train)
  assert jax.eval_shape(step, state, batch).params["heads"] == {}
