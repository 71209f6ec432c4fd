"""PCD against TorchJD's, and what it promises."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import FEWER, assert_near, balanced, golden
from tests.balancers.jacobians import solve_many


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize(("key", "tau"), [("pcd", 0.02), ("pcd_tau5", 0.5)])
def test_matches_published_code(key, tau, num_tasks):
  results, states = balanced("methods.npz", "pcd", num_tasks, tau=tau)
  assert_near(results, golden("methods.npz", key, num_tasks), 1e-4)
  assert (states.residual < 1e-5).all()
  assert not states.memory.infeasible.any()


@pytest.mark.parametrize("num_tasks", [3, 11])
def test_every_other_task_makes_the_progress_that_is_asked_for(num_tasks):
  generator = np.random.default_rng(num_tasks)
  jacobians = generator.normal(size=(1000, num_tasks, 3 * num_tasks))
  _, results, states = solve_many("pcd", jacobians, primary=1)
  norms = np.linalg.norm(jacobians, axis=-1)
  results = np.asarray(results, np.float64)
  np.testing.assert_allclose(np.linalg.norm(results, axis=-1), norms[:, 1], 1e-5)
  cosines = np.einsum("nkp,np->nk", jacobians, results) / norms / norms[:, 1:2]
  assert (np.delete(cosines, 1, axis=1) > 0).all()
  assert not states.memory.infeasible.any()


def test_contradictory_constraints_leave_the_primary_gradient_and_are_counted():
  grads = jnp.array([[1.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
  balancer = balancers.pcd(3)
  state = balancer.init(grads[0])
  for count in (1, 2):
    result, state = balancer.update(grads, state)
    np.testing.assert_allclose(result, grads[0], 1e-6)
    assert state.memory.infeasible == count
  result, state = balancer.update(grads.at[2, 1].set(1.0), state)
  assert state.memory.infeasible == 2
  assert (grads[1:] @ result)[0] > 0


@pytest.mark.parametrize("scale", [1e-12, 1e-22, 1e-30, 1e30])
def test_tiny_and_huge_gradients_are_solved(scale):
  """Far below 1e-4 all are divided by 1e-4, far above it each by its norm."""
  grads = np.array([[1.0, 1.0], [-2.0, 0.5]])
  norms = np.linalg.norm(grads, axis=1, keepdims=True)
  primary, other = grads if scale < 1 else grads / norms
  direction = primary + (0.02 - primary @ other / (other @ other)) * other
  expected = direction * norms[0] / np.linalg.norm(direction)
  balancer = balancers.pcd(2)
  result, state = balancer.update(
    jnp.float32(grads * scale), balancer.init(jnp.zeros(2))
  )
  assert not state.memory.infeasible
  np.testing.assert_allclose(np.float64(result) / scale, expected, 1e-3)


@pytest.mark.parametrize("primary", [0, 1])
def test_without_a_primary_gradient_nothing_is_followed(primary):
  grads = jnp.ones((2, 3)).at[primary].set(0.0)
  balancer = balancers.pcd(2, primary=primary)
  result, _ = balancer.update(grads, balancer.init(grads[0]))
  assert not result.any()


def test_the_index_of_the_primary_task_is_checked():
  with pytest.raises(ValueError, match="primary must be below num_tasks = 2, got 2"):
    balancers.pcd(2, primary=2)
