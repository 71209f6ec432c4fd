"""GradDrop against TorchJD's, and its leak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers.gradient.graddrop import drop_signs
from tests.balancers.gradient.published import FEWER, golden
from tests.balancers.jacobians import solved


@pytest.mark.parametrize("num_tasks", FEWER)
def test_matches_published_code_with_its_draws(num_tasks):
  jacobians = jnp.asarray(golden("methods.npz", "J", num_tasks))
  uniforms = jnp.asarray(golden("methods.npz", "graddrop_u", num_tasks), jnp.float32)
  results = jax.jit(jax.vmap(jax.vmap(drop_signs)))(jacobians, uniforms)
  expected = golden("methods.npz", "graddrop", num_tasks)
  largest = np.abs(expected).max(axis=-1, keepdims=True)
  assert (np.abs(results - expected) < 1e-5 * largest).all()


def test_keeps_one_sign_in_every_coordinate_as_often_as_there_is_of_it():
  grads = jnp.array([[3.0, -1.0, 0.0], [-1.0, -2.0, 0.0]])  # P is 3/4, 0, and any
  balancer = balancers.graddrop(2)

  def draw(seed):
    state = balancer.init(grads[0], jax.random.key(seed))  # pyright: ignore
    return balancer.update(grads, state)[0]

  results = np.asarray(jax.jit(jax.vmap(draw))(jnp.arange(2000)))
  assert set(results[:, 0]) == {3.0, -1.0}
  assert abs((results[:, 0] > 0).mean() - 0.75) < 0.04
  assert (results[:, 1:] == [-3.0, 0.0]).all()


@pytest.mark.parametrize("leak", [0.25, 1.0])
def test_a_share_of_what_is_dropped_passes(leak):
  leaf = jnp.array([[1.0], [-3.0]])
  kept, dropped = -3.0, 1.0
  assert drop_signs(leaf, jnp.array([0.5]), leak)[0] == kept + leak * dropped


def test_each_task_may_have_a_leak_of_its_own():
  leaf = jnp.array([[1.0], [2.0], [-3.0]])
  dropped = drop_signs(leaf, jnp.array([0.6]), jnp.array([0.5, 0.25, 1.0]))
  assert dropped[0] == 0.5 * 1.0 + 0.25 * 2.0 - 3.0
  balancer = balancers.graddrop(3, leak=[1.0, 1.0, 1.0])
  result, _ = balancer.update(leaf, balancer.init(leaf[0]))
  np.testing.assert_allclose(result, [0.0])

  @jax.jit
  def traced(leak):
    balancer = balancers.graddrop(3, leak=leak)
    return balancer.update(leaf, balancer.init(leaf[0]))[0]

  np.testing.assert_allclose(traced(jnp.ones(3)), [0.0])


def test_sums_of_the_largest_numbers_are_finite_where_their_signs_differ():
  leaf = jnp.array([[3e38], [3e38], [-3e38]])
  share = drop_signs(leaf, jnp.array([0.9]))  # of which two thirds are positive
  assert share == jnp.float32(-3e38)


def test_one_task_is_left_alone_and_weights_are_ones():
  jacobian, result, state = solved("graddrop", 1)["gaussian"]
  np.testing.assert_allclose(result, jacobian[0], 1e-6)
  assert state.weights.tolist() == [1]


@pytest.mark.parametrize("leak", [-0.1, 1.1])
def test_the_leak_is_checked(leak):
  with pytest.raises(ValueError, match=f"leak must be .*, got {leak}"):
    balancers.graddrop(3, leak=leak)
  with pytest.raises(ValueError, match=f"leak must be .*, got {leak}"):
    balancers.graddrop(2, leak=jnp.array([0.0, leak]))
  with pytest.raises(ValueError, match=r"leak must have the shape \(2,\)"):
    balancers.graddrop(2, leak=[0.0, 0.0, 0.0])
