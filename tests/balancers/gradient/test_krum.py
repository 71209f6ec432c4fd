"""Krum against TorchJD's, and with tasks that are absent."""

import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.outliers import GRADS, PRESENT
from tests.balancers.gradient.published import KINDS, balanced, errors, golden

NUM_BYZANTINE = {3: 0, 5: 1, 11: 2}


@pytest.mark.parametrize("num_tasks", NUM_BYZANTINE)
@pytest.mark.parametrize(("key", "num_selected"), [("krum", 1), ("krum2", 2)])
def test_krum_matches_published_code(key, num_selected, num_tasks):
  options = {"num_byzantine": NUM_BYZANTINE[num_tasks], "num_selected": num_selected}
  results, states = balanced("methods.npz", "krum", num_tasks, **options)
  expected = golden("methods.npz", key, num_tasks)
  np.testing.assert_allclose(states.weights.sum(axis=-1), 1, 1e-6)
  jacobians = golden("methods.npz", "J", num_tasks).astype(np.float64)
  for at in np.ndindex(len(KINDS), 4):
    if errors(results[at], expected[at]) < 1e-5:
      continue
    # two nearest neighbours have one score, of which rounding chose the published one
    assert num_tasks == 3, at
    distances = np.linalg.norm(jacobians[at][:, None] - jacobians[at], axis=-1)
    scores = np.sort(distances + np.diag([np.inf] * 3), axis=1)[:, 0]
    chosen = states.weights[at] > 0
    best = np.sort(scores)[:num_selected]
    np.testing.assert_allclose(np.sort(scores[chosen]), best, 1e-5)


def test_absent_tasks_are_no_neighbours():
  balancer = balancers.krum(5, num_byzantine=1)
  state = balancer.init(GRADS[0])
  result, state = balancer.update(GRADS, state, present=PRESENT)
  np.testing.assert_allclose(result, GRADS[0])
  one = np.arange(5) == 3
  result, state = balancer.update(GRADS, state, present=one)
  np.testing.assert_allclose(result, GRADS[3])
  assert state.weights.tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: balancers.krum(2), r"at least num_byzantine \+ 3 = 3, got 2"),
    (lambda: balancers.krum(5, num_byzantine=3), "3 = 6, got 5"),
    (lambda: balancers.krum(3, num_selected=4), "at most num_tasks = 3, got 4"),
  ],
)
def test_numbers_of_tasks_are_checked(make, message):
  with pytest.raises(ValueError, match=message):
    make()
