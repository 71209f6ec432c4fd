"""PCGrad against the published code, and its orders."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.balancers.gradient.pcgrad import project_conflicts
from igb_jax.balancers.solvers import Gramian
from tests.balancers.contract import init, make_gradient, relative_error
from tests.balancers.gradient.published import (
  KINDS,
  balanced,
  errors,
  golden,
  numbers,
)
from tests.balancers.jacobians import sample, solved


def test_matches_published_code_for_two_tasks():
  results, _ = balanced("gradient.npz", "pcgrad", 2)
  assert (errors(results, golden("gradient.npz", "pcgrad", 2)) < 1e-5).all()


def surgery_by_hand(jacobian, orders):
  """PCGrad as its paper writes it, in float64."""
  total = np.zeros(jacobian.shape[1])
  for task, order in enumerate(orders):
    gradient = jacobian[task].copy()
    for other in order:
      dot = gradient @ jacobian[other]
      if other != task and dot < 0:
        gradient -= dot / (jacobian[other] @ jacobian[other]) * jacobian[other]
    total += gradient
  return total


def test_three_tasks_get_one_of_the_orders_and_each_step_draws_them_anew():
  balancer = make_gradient("pcgrad", 3)

  @jax.jit
  def run(jacobian):
    def step(state, _):
      result, state = balancer.update(jacobian, state)
      return state, result

    return jax.lax.scan(step, init(balancer, jacobian[0]), length=30)[1]

  others = [list(itertools.permutations(set(range(3)) - {task})) for task in range(3)]
  for kind in KINDS:
    jacobian = numbers("gradient.npz")[f"J_{kind}_3"][0]
    possible = [
      surgery_by_hand(jacobian.astype(np.float64), orders)
      for orders in itertools.product(*others)
    ]
    seen = set()
    for result in run(jacobian):
      found = [relative_error(result, vector) for vector in possible]
      assert min(found) < 1e-5
      seen.add(int(np.argmin(found)))
    if kind == "conflict":  # where the orders matter
      assert len(seen) > 3


def test_permuting_tasks_and_orders_changes_nothing():
  gramian = jax.jit(Gramian.of)([jnp.asarray(sample("sum to zero", 11))])
  generator = np.random.default_rng(0)
  orders = np.stack([generator.permutation(11) for _ in range(11)])
  project = jax.jit(project_conflicts)
  weights = project(gramian, jnp.asarray(orders))
  new = generator.permutation(11)  # new[i] is task i's new place
  old = np.argsort(new)
  permuted = Gramian(gramian.norms[old], gramian.cosines[old][:, old])
  permuted_weights = project(permuted, jnp.asarray(new[orders[old]]))
  np.testing.assert_allclose(permuted_weights, weights[old], 1e-4)


def test_one_task_is_left_alone_and_zero_gradients_keep_the_weight_one():
  jacobian, result, _ = solved("pcgrad", 1)["gaussian"]
  np.testing.assert_allclose(result, jacobian[0], 1e-5, 1e-6)
  np.testing.assert_array_equal(solved("pcgrad", 3)["all zero"].state.weights, 1)


@pytest.mark.parametrize("key", [jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")])
def test_keys_of_every_kind_are_accepted(key):
  state = make_gradient("pcgrad", 3).init(jnp.zeros(2), key)  # pyright: ignore
  assert state.key.shape == (2,)
  assert state.key.dtype == jnp.uint32


@pytest.mark.parametrize("key", [1, "a", jnp.ones(2)])
def test_what_is_no_key_is_refused(key):
  with pytest.raises(TypeError, match="key"):
    make_gradient("pcgrad", 3).init(jnp.zeros(2), key)  # pyright: ignore
