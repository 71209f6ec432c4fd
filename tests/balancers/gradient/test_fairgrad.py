"""FairGrad against the published code, and its equation in float64."""

import numpy as np
import pytest

from tests.balancers.gradient.published import (
  FEWER,
  KINDS,
  assert_near,
  balanced,
  golden,
)


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize(
  ("key", "options"),
  [
    ("fairgrad1", {"alpha": 1.0}),
    ("fairgrad2", {}),
    ("fairgrad05", {"alpha": 0.5}),
  ],
)
def test_fair_weights_are_those_of_the_published_code_where_it_converged(
  key, options, num_tasks
):
  results, states = balanced("methods.npz", "fairgrad", num_tasks, **options)
  expected = golden("methods.npz", key, num_tasks)
  assert KINDS[-1] == "small"  # where the published least squares does not move
  assert_near(results[:-1], expected[:-1], 1e-3)
  assert (states.residual < 1e-5).all()
  alpha = options.get("alpha", 2.0)
  jacobians = golden("methods.npz", "J", num_tasks).astype(np.float64)
  x = states.weights.astype(np.float64) / num_tasks
  products = np.einsum("...kp,...jp,...j->...k", jacobians, jacobians, x)
  np.testing.assert_allclose(products, x ** (-1 / alpha), 2e-3)
