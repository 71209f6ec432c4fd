"""SDMGrad against LibMTL's and TorchJD's, and its exact form in float64."""

import jax
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import (
  FEWER,
  KINDS,
  assert_near,
  golden,
  one_call_at_a_time,
)
from tests.balancers.jacobians import solve_many

NO_CHAOS = {"scaled", "common", "conflict"}  # of the published loop in float32
# lambda = 0.3: g_1 + 0.3 (g_1 + g_2) / 2 is nearly 0
OPPOSED = np.array([[-0.15864868, -3.8374314e-5], [1.2121826, 8.615554e-4]])


@pytest.mark.parametrize("num_tasks", FEWER)
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


@pytest.mark.parametrize("num_tasks", FEWER)
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


def test_gradients_that_cancel_with_their_mean_are_solved_to_rounding():
  random = np.random.default_rng(0)
  grads = OPPOSED * (1 + 1e-6 * random.normal(size=(2000, 2, 2)))
  balancer = balancers.create("sdmgrad", num_tasks=2).gradient
  state = balancer.init(np.zeros(2, np.float32))
  update = jax.jit(jax.vmap(lambda each: balancer.update(each, state)))
  found, states = update(grads.astype(np.float32))
  assert np.isfinite(found).all()
  assert np.isfinite(states.weights).all()
  # the shortest vector on the segment between the drawn gradients, in float64
  grads = grads.astype(np.float32).astype(np.float64)
  a, b = np.moveaxis(grads + 0.3 * grads.mean(axis=1, keepdims=True), 1, 0)
  share = np.clip(((b - a) * b).sum(1) / ((b - a) ** 2).sum(1), 0, 1)[:, None]
  lengths = np.linalg.norm(share * a + (1 - share) * b, axis=1) / 1.3
  actual = np.linalg.norm(found, axis=1)
  scale = np.linalg.norm(grads, axis=2).max(axis=1)
  # float32 products hold squares to 1e-7 of the largest
  assert ((actual**2 - lengths**2) / scale**2 < 1e-6).all()
