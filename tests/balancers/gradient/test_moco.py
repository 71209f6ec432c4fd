"""MoCo against the authors' code, and the weights of tasks that come and go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igb_jax
from igb_jax import balancers
from tests.balancers.contract import to_numpy
from tests.balancers.gradient.published import FEWER, balanced, golden


@pytest.mark.parametrize("num_tasks", FEWER)
def test_matches_the_authors_code_over_four_steps(num_tasks):
  results, states = balanced("methods.npz", "moco", num_tasks)
  for actual, name in ((results, "moco_official"), (states.weights, "moco_official_w")):
    expected = golden("methods.npz", name, num_tasks)
    largest = np.abs(expected).max(axis=-1, keepdims=True)
    assert (np.abs(actual - expected) < 1e-5 * largest).all()


def test_one_task_is_followed_by_its_mean():
  balancer = balancers.moco(1)
  grads = jnp.array([[1.0, -2.0]])
  state, update = balancer.init(grads[0]), jax.jit(balancer.update)
  expected = np.zeros(2)
  for step in range(3):
    result, state = update(grads, state)
    expected += 0.1 / np.sqrt(step + 1) * (grads[0] - expected)
    np.testing.assert_allclose(result, expected, 1e-6)
    assert state.weights.tolist() == [1]


def test_an_absent_task_keeps_its_mean_and_its_share():
  balancer = balancers.moco(3)
  grads = np.random.default_rng(0).normal(size=(4, 3, 20)).astype(np.float32)
  masks = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]], bool)
  grads[~masks] = np.nan

  @jax.jit
  def run(grads, masks):
    def step(state, inputs):
      _, state = balancer.update(inputs[0], state, present=inputs[1])
      return state, state

    return jax.lax.scan(step, balancer.init(jnp.zeros(20)), (grads, masks))[1]

  states = to_numpy(run(grads, masks))
  memory = states.memory
  for step in (1, 2):
    np.testing.assert_array_equal(memory.means[step, 1], memory.means[0, 1])
    np.testing.assert_allclose(memory.weights[step, 1], memory.weights[0, 1])
  np.testing.assert_allclose(memory.weights.sum(axis=1), 1, 1e-6)
  np.testing.assert_allclose(states.weights.sum(axis=1), 1, 1e-6)
  assert memory.step.tolist() == [1, 2, 3, 4]


def test_held_weights_sum_the_gradients_themselves():
  balancer = balancers.moco(2, update_every=2)
  grads = jnp.array([[1.0, 0.0], [0.0, 2.0]])
  state, update = balancer.init(grads[0]), jax.jit(balancer.update)
  fresh, state = update(grads, state)
  w = np.asarray(state.weights)
  np.testing.assert_allclose(fresh, 0.1 * w @ grads, 1e-6)  # beta, of means from 0
  means = state.memory.means
  held, state = update(-grads, state)
  np.testing.assert_allclose(held, -w @ grads, 1e-6)
  np.testing.assert_array_equal(state.memory.means, means)
  assert state.memory.step == 1
  single, _ = balancer.update(grads.sum(0), state._replace(steps_left=1), combined=True)
  np.testing.assert_allclose(single, grads.sum(0))


def test_in_one_step_for_all_it_holds_its_weights_too():
  """`value_and_balanced_grad`, whose steps in between take one backward pass."""
  data = jax.random.normal(jax.random.key(0), (6, 2, 3))
  params = jnp.array([0.5, -0.2, 0.1])

  def losses(params, rows):
    return jnp.tanh(rows @ params) ** 2

  balancer = balancers.moco(2, update_every=3)
  step = jax.jit(igb_jax.value_and_balanced_grad(losses, balancer))
  state = by_hand = balancer.init(params)
  for rows in data:
    _, gradient, state = step(params, rows, state=state)
    expected, by_hand = balancer.update(jax.jacrev(losses)(params, rows), by_hand)
    np.testing.assert_allclose(gradient, expected, 1e-5, 1e-7)
  assert state.memory.step == by_hand.memory.step == 2


def test_the_weights_of_the_means_are_smoothed():
  """A wrapper changes the weights, and the sum is that of the means still."""
  balancer = balancers.smooth_weights(balancers.moco(2, beta=1.0), decay=0.5)
  state, update = balancer.init(jnp.zeros(2)), jax.jit(balancer.update)
  plain = balancers.moco(2, beta=1.0)
  inner, grads, smoothed = (
    plain.init(jnp.zeros(2)),
    jnp.array([[1.0, 0], [0, 2.0]]),
    None,
  )
  for _ in range(3):
    _, inner = plain.update(grads, inner)
    w = np.asarray(inner.weights)
    smoothed = w if smoothed is None else 0.5 * smoothed + 0.5 * w
    result, state = update(grads, state)
    np.testing.assert_allclose(state.weights, smoothed, 1e-6)
    np.testing.assert_allclose(result, smoothed @ inner.memory.means, 1e-5)


@pytest.mark.parametrize(
  ("options", "named"),
  [({"beta": 1.5}, "beta"), ({"beta": -0.1}, "beta"), ({"step_size": 0}, "step_size")],
)
def test_numbers_are_checked(options, named):
  with pytest.raises(ValueError, match=f"{named} must be .*, got"):
    balancers.moco(3, **options)
