"""GO4Align against published numbers."""

import jax
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.loss.published import METHODS, assert_has_coefficients
from tests.balancers.losses import random_losses, run_each


@pytest.mark.parametrize("num_groups", [1, 2, 3, 5])
@pytest.mark.parametrize(
  "num_tasks",
  [3, 11, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 5))],
)
@pytest.mark.parametrize(("form", "rate"), [("", 1e-4), ("_eta01", 0.1)])
def test_matches_published_code(form, rate, num_tasks, num_groups):
  key = f"go4align{form}_g{num_groups}"
  if f"{key}_coef_{num_tasks}" not in METHODS:
    assert num_groups > num_tasks
    return
  assert_has_coefficients(
    key,
    num_tasks,
    rtol=2e-3 if form else 1e-4,
    spec="go4align",
    num_groups=num_groups,
    learning_rate=rate,
  )


def test_it_keeps_its_digits_over_many_steps():
  """A sum of 10,000 losses would have lost them."""
  losses = random_losses(10_000, 3)
  balancer = balancers.go4align(3, num_groups=3)
  found = run_each(balancer, {"": (losses, 0)})[""].weights[-1]
  logs = -1e-4 * losses.astype(np.float64).sum(axis=0)
  shares = np.exp(logs - jax.nn.logsumexp(logs))
  expected = shares / shares.sum() * losses[-1].sum() / losses[-1]
  np.testing.assert_allclose(found, expected, 1e-3)
