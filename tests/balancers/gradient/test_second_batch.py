"""SDMGrad and MoDo against LibMTL's and TorchJD's, with one batch and with three."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import make_gradient
from tests.balancers.gradient.published import KINDS, TASK_COUNTS, assert_near, golden
from tests.balancers.jacobians import solve_many

NO_CHAOS = {"scaled", "common", "conflict"}  # of the published loop in float32


def one_call_at_a_time(balancer, num_tasks, key, three):
  """Results [kinds, T, P] and w [kinds, T, K], each from the recorded w before it."""
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


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("torchjd", [False, True])
def test_the_loop_of_sdmgrad_matches_published_code(torchjd, three, num_tasks):
  key = ("sdmgrad3" if three else "sdmgrad") + ("_tjd" if torchjd else "")
  rate = 10.0 if torchjd else 5.0
  balancer = balancers.sdmgrad(num_tasks, learning_rate=rate, steps=20)
  results, w, recorded = one_call_at_a_time(balancer, num_tasks, key, three)
  expected = golden("methods.npz", key, num_tasks)
  for index, kind in enumerate(KINDS):
    if kind in NO_CHAOS - ({"scaled"} if num_tasks == 11 else set()):
      assert_near(results[index], expected[index], 1e-3)
      np.testing.assert_allclose(w[index], recorded[index], 1e-3, 1e-3)


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
@pytest.mark.parametrize("regularisation", [0.0, 0.3])
def test_the_exact_solution_of_sdmgrad_is_optimal(regularisation, num_tasks):
  """No vertex of the simplex lowers the objective, in float64."""
  jacobians = np.concatenate(golden("methods.npz", "J", num_tasks))
  jacobians, results, states = solve_many(
    "sdmgrad", jacobians, regularisation=regularisation
  )
  d = np.asarray(results, np.float64) * (1 + regularisation)
  mean = regularisation * jacobians.mean(axis=-2, keepdims=True)
  products = np.einsum("...kp,...p->...k", jacobians + mean, d)
  terms = np.linalg.norm(d, axis=-1) * np.linalg.norm(jacobians, axis=-1).max(axis=-1)
  slack = products.min(axis=-1) - np.sum(d**2, axis=-1)
  assert (slack >= -1e-5 * terms).all()
  assert (states.residual < 1e-5).all()
  if regularisation == 0:
    mgda = balancers.mgda(num_tasks)
    shortest, _ = mgda.update(jacobians[0], mgda.init(jacobians[0, 0]))
    np.testing.assert_allclose(results[0], shortest / num_tasks, 1e-3, 1e-5)


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
@pytest.mark.parametrize(("key", "three"), [("modo", False), ("modo3", True)])
def test_modo_matches_published_code(key, three, num_tasks):
  balancer = balancers.modo(num_tasks)
  results, w, recorded = one_call_at_a_time(balancer, num_tasks, key, three)
  assert_near(results, golden("methods.npz", key, num_tasks), 1e-4)
  np.testing.assert_allclose(w, recorded, 1e-4, 1e-5)


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
def test_a_second_batch_is_its_inner_products_with_the_first(name):
  generator = np.random.default_rng(0)
  first, second = (
    {"trunk": generator.normal(size=(3, 4)).astype(np.float32), "head": np.ones((3, 2))}
    for _ in range(2)
  )
  options = {"steps": 20, "learning_rate": 0.01} if name == "sdmgrad" else {}
  shared = {"trunk": True, "head": False}
  balancer = make_gradient(name, 3, shared=shared, **options)
  params = jax.tree.map(lambda leaf: leaf[0], first)
  state = balancer.init(params)
  present = np.array([True, True, False])
  products = first["trunk"] @ second["trunk"].T
  second["trunk"][2] = np.nan
  found, _ = balancer.update(first, state, present=present, task_grads_2=second)
  expected, _ = balancer.update(first, state, present=present, cross_gramian=products)
  plain, _ = balancer.update(first, state, present=present)
  np.testing.assert_allclose(found["trunk"], expected["trunk"], 1e-5, 1e-6)
  assert np.abs(found["trunk"] - plain["trunk"]).max() > 1e-4


def test_bad_second_batches_are_refused():
  grads = jnp.ones((2, 3))
  modo, exact = balancers.modo(2), balancers.sdmgrad(2)
  state = modo.init(grads[0])
  with pytest.raises(ValueError, match="task_grads_2 or cross_gramian, not both"):
    modo.update(grads, state, task_grads_2=grads, cross_gramian=jnp.eye(2))
  with pytest.raises(ValueError, match=r"must have the shape \(2, 2\), got \(3, 3\)"):
    modo.update(grads, state, cross_gramian=jnp.eye(3))
  with pytest.raises(ValueError, match="make the balancer with steps=20"):
    exact.update(grads, exact.init(grads[0]), cross_gramian=jnp.eye(2))
