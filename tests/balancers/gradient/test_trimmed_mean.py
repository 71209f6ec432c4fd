"""The trimmed mean against TorchJD's, and with tasks that are absent."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.outliers import GRADS, PRESENT
from tests.balancers.gradient.published import assert_near, balanced, golden


@pytest.mark.parametrize("num_tasks", [3, 5, 11])
def test_trimmed_mean_matches_published_code(num_tasks):
  results, _ = balanced("methods.npz", "trimmed", num_tasks)
  assert_near(results, golden("methods.npz", "trimmed1", num_tasks), 1e-5)


def test_fewer_entries_are_trimmed_where_tasks_are_absent():
  balancer = balancers.trimmed_mean(5, trim=2)
  state = balancer.init(GRADS[0])
  result, state = balancer.update(GRADS, state, present=PRESENT)
  np.testing.assert_allclose(result, [1.5, 5.5])
  pair = np.arange(5) < 2
  result, state = balancer.update(GRADS, state, present=pair)
  np.testing.assert_allclose(result, [1.0, 5.5])
  result, _ = balancer.update(GRADS, state)
  assert np.isnan(result[0])
  assert result[1] == 5


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: balancers.trimmed_mean(2), r"at least 2 trim \+ 1 = 3, got 2"),
    (lambda: balancers.trimmed_mean(3, trim=-1), "trim must be .* got -1"),
  ],
)
def test_numbers_of_tasks_are_checked(make, message):
  with pytest.raises(ValueError, match=message):
    make()
