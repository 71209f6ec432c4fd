"""Krum against TorchJD's, and with tasks that are absent."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.outliers import GRADS, PRESENT
from tests.balancers.gradient.published import balanced, errors, golden

NUM_BYZANTINE = {3: 0, 5: 1, 11: 2}


@pytest.mark.parametrize("num_tasks", NUM_BYZANTINE)
@pytest.mark.parametrize(("key", "num_selected"), [("krum", 1), ("krum2", 2)])
def test_krum_matches_published_code(key, num_selected, num_tasks):
  options = {"num_byzantine": NUM_BYZANTINE[num_tasks], "num_selected": num_selected}
  results, states = balanced("methods.npz", "krum", num_tasks, **options)
  expected = golden("methods.npz", key, num_tasks)
  assert (errors(results, expected) < 1e-5).all()
  np.testing.assert_allclose(states.weights.sum(axis=-1), 1, 1e-6)


def test_of_two_nearest_neighbours_the_first_is_taken():
  """As in published code, so that there the order of the tasks matters."""
  near = jnp.array([[1.0, 0.0], [0.3, 0.1], [-9.0, 9.0]])
  balancer = balancers.krum(3)
  for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
    grads = near[jnp.array(order)]
    result, _ = balancer.update(grads, balancer.init(grads[0]))
    np.testing.assert_allclose(result, grads[0] if order[0] < 2 else grads[1])


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
