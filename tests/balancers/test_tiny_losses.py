"""Losses that reach zero, or rise far above where they began: epsilon and max_gap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.tables import having
from tests.small_balancers import small_loss_balancer

LOG_NAMES = having("loss", takes_log=True)


def make(name: str, **options) -> balancers.LossBalancer:
  needed = {"steps_per_epoch": 1} if name.startswith("igb") else {}
  balancer = balancers.create(name, num_tasks=2, **needed, **options).loss
  assert balancer is not None
  return balancer


def weigh(balancer, losses, **extra):
  """The weighted losses, their derivatives and the state of one step."""
  state = balancer.init(jax.random.key(0))

  def total(losses):
    weighted, new = balancer.update(losses, state, **extra)
    return weighted.sum(), (weighted, new)

  derivatives, (weighted, state) = jax.grad(total, has_aux=True)(jnp.asarray(losses))
  return weighted, derivatives, state


@pytest.mark.parametrize("name", LOG_NAMES)
def test_epsilon_makes_a_loss_of_zero_an_ordinary_one(name):
  weighted, derivatives, state = weigh(make(name, epsilon=1e-3), [0.0, 3.0])
  weights = np.asarray(state.weights)
  shifted = np.array([1e-3, 3.001])
  halves = 0.5 if name == "uwlog" else 1.0
  np.testing.assert_allclose(weighted, halves * weights * np.log(shifted), rtol=1e-5)
  np.testing.assert_allclose(derivatives, halves * weights / shifted, rtol=1e-5)
  assert (weights > 0).all()


@pytest.mark.parametrize("name", LOG_NAMES)
def test_without_epsilon_a_loss_of_zero_is_left_out_by_hand(name):
  """`present=losses > 0`, the recipe of docs/choosing.md."""
  losses = jnp.array([0.0, 3.0])
  weighted, derivatives, state = weigh(make(name), losses, present=losses > 0)
  factor = 0.5 if name == "uwlog" else float(state.weights[1])
  assert weighted[0] == derivatives[0] == state.weights[0] == 0
  assert derivatives[1] == pytest.approx(factor / 3, rel=1e-6)
  without, _, _ = weigh(make(name), losses)
  assert np.isnan(without[0])


def test_igbv1_weighs_a_task_whose_loss_is_zero_where_epsilon_allows_it():
  balancer = make("igbv1", epsilon=0.1)
  state = balancer.init()
  for losses in ([1.0, 1.0], [1.0, 1.0], [0.0, 1.0]):
    weighted, state = balancer.update(jnp.array(losses), state)
  expected = 2 * np.exp([0, 1]) / np.exp([0, 1]).sum()
  np.testing.assert_allclose(state.weights, expected, 1e-6)
  np.testing.assert_allclose(weighted, expected * np.log([0.1, 1.1]), 1e-5)


def test_max_gap_keeps_a_task_that_starts_near_its_solution_from_taking_over():
  def last_weights(max_gap):
    balancer = make("igbv1", max_gap=max_gap)
    state = balancer.init()
    for losses in ([1.0, 1e-3], [1.0, 1e-3], [1.0, 5e-2]):
      _, state = balancer.update(jnp.array(losses), state)
    return np.asarray(state.weights)

  assert last_weights(None)[0] < 1e-20  # as the paper has it
  expected = 2 * np.exp([1, 2]) / np.exp([1, 2]).sum()
  np.testing.assert_allclose(last_weights(2.0), expected, 1e-6)
  np.testing.assert_array_equal(last_weights(100.0), last_weights(None))


@pytest.mark.parametrize(
  ("name", "options", "error", "message"),
  [
    *((n, {"epsilon": -1.0}, ValueError, "epsilon must be finite") for n in LOG_NAMES),
    ("si", {"epsilon": "1"}, TypeError, "epsilon must be a number"),
    ("rlw", {"epsilon": 0.1}, ValueError, "without log=True none is.*got 0.1"),
    ("dwa", {"epsilon": 0.1}, ValueError, "without log=True none is"),
    ("uw", {"epsilon": 0.1}, ValueError, "without log=True none is"),
    ("igbv1", {"max_gap": 0.0}, ValueError, "max_gap must be finite and positive"),
    ("uw", {"max_weight": -1.0}, ValueError, "max_weight must be finite and positive"),
  ],
)
def test_options_are_checked(name, options, error, message):
  with pytest.raises(error, match=message):
    make(name, **options)


@pytest.mark.parametrize("name", ["ew", *LOG_NAMES])
def test_losses_in_float64_keep_their_digits(name):
  with jax.enable_x64(True):
    balancer = small_loss_balancer(name, 2, steps_per_epoch=1, hidden_sizes=(8,))
    state = balancer.init(jax.random.key(0))
    for losses in ([1.0, 1.0], [1.0, 1.0], [1e-50, 1e39]):
      values = jnp.array(losses, jnp.float64)
      weighted, state = balancer.update(values, state)
    assert weighted.dtype == jnp.float64
    weights = np.asarray(state.weights, np.float64)
    assert state.weights.dtype == jnp.float32
    if name == "ew":
      np.testing.assert_array_equal(weighted, [1e-50, 1e39])
    elif name == "uwlog":
      assert np.isfinite(weighted).all()
    else:
      np.testing.assert_allclose(weighted, weights * np.log([1e-50, 1e39]), 1e-12)
      assert weights.min() > 0 or name == "igbv1"
    for leaf in jax.tree.leaves(state):
      assert leaf.dtype in (jnp.float32, jnp.int32, jnp.uint32, jnp.bool_)
      assert np.isfinite(leaf).all()
