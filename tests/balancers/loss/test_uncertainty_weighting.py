"""Uncertainty weighting: golden numbers, largest weights, losses without a minimum."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import assert_finite
from tests.balancers.long_losses import long_weights
from tests.balancers.loss.published import (
  TASK_COUNTS,
  assert_matches,
  random_presence,
  scan,
)
from tests.balancers.losses import make_loss

LARGEST = {"uw": 1e6, "uwlog": 1e3}


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
@pytest.mark.parametrize("name", LARGEST)
def test_matches_published_code_over_90_steps(name, num_tasks):
  assert_matches(name, num_tasks, rtol=1e-3)


@pytest.mark.parametrize("name", LARGEST)
def test_weights_have_a_bound(name):
  for course, weights in long_weights(name).items():
    assert weights.max() <= LARGEST[name] * (1 + 1e-5), course


@pytest.mark.parametrize("log", [False, True])
def test_stays_finite_where_its_objective_has_no_minimum(log):
  balancer = balancers.uncertainty_weighting(2, log=log)
  losses = np.full((5000, 2), [1e-3, 1.0] if log else [1e-20, 1e-30], np.float32)
  state, found = scan(balancer, losses)
  assert_finite(found)
  assert state.log_variance.min() == pytest.approx(-np.log(1e3 if log else 1e6))


@pytest.mark.parametrize("name", LARGEST)
def test_learns_from_the_steps_of_each_task(name):
  losses, masks = random_presence()
  state, _ = scan(make_loss(name, 3), losses, masks)
  for task in range(3):
    values = losses[masks[:, task], task, None]
    alone, _ = scan(make_loss(name, 1), values)
    np.testing.assert_allclose(state.log_variance[task], alone.log_variance[0], 1e-5)


def test_follows_a_loss_whose_square_overflows():
  balancer = balancers.uncertainty_weighting(2)
  state, _ = scan(balancer, np.tile(np.array([[1e20, 1.0]], np.float32), (50, 1)))
  assert state.log_variance[0] > 0.5
  assert state.log_variance[1] == 0


def test_keeps_a_finite_state_at_the_largest_losses():
  balancer = balancers.uncertainty_weighting(2)
  state, found = scan(balancer, np.tile(np.array([[3e38, 1.0]], np.float32), (4000, 1)))
  assert_finite((state, found[1]))
  assert state.log_variance[0] > 40  # followed, and not stood still at the first


def test_the_log_form_trains_on_losses_below_one():
  """Two standardised regressions, whose gradients became infinite."""
  balancer = balancers.uncertainty_weighting(2, log=True)
  _, (_, weights) = scan(balancer, np.full((1000, 2), 0.5, np.float32))
  assert weights.max() == pytest.approx(1e3, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_learns_nothing_from_losses_that_are_not_positive(value):
  balancer = balancers.uncertainty_weighting(2)
  losses = np.tile(np.array([[value, 2.0]], np.float32), (1000, 1))
  _, (_, weights) = scan(balancer, losses)
  assert (weights[:, 0] == 1).all()
  assert weights[-1, 1] < 0.6
  # and it is ready for losses that are
  losses[500:] = 2.0
  _, (_, weights) = scan(balancer, losses)
  assert weights[-1, 0] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("max_weight", [0.5, 10.0, 1e39])
def test_the_largest_weight_can_be_chosen(max_weight):
  balancer = balancers.uncertainty_weighting(1, max_weight=max_weight)
  _, (_, weights) = scan(balancer, np.full((8000, 1), 1e-37, np.float32))
  assert weights.max() == pytest.approx(min(max_weight, np.exp(80)), rel=1e-3)
  assert weights[0] == min(1, max_weight)


@pytest.mark.parametrize(
  ("number", "value"), [("learning_rate", 0.1), ("max_weight", 1.2)]
)
def test_numbers_may_be_traced(number, value):
  def last(value):
    options: Any = {"learning_rate": 0.5} | {number: value}
    balancer = balancers.uncertainty_weighting(3, **options)
    losses = jnp.outer(1 / (1 + jnp.arange(8.0)), jnp.array([3.0, 2.0, 1.5]))

    def step(state, losses):
      weighted, state = balancer.update(losses, state)
      return state, weighted

    return jax.lax.scan(step, balancer.init(), losses)[0].weights

  traced = jax.jit(last)
  np.testing.assert_allclose(traced(value), jax.jit(lambda: last(value))(), 1e-5)
  assert not np.allclose(traced(value / 2), traced(value), 1e-4)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"learning_rate": -1.0}, r"learning_rate must be .*got -1\.0"),
    ({"learning_rate": np.inf}, "learning_rate must be .*got inf"),
    ({"max_weight": -1.0}, r"max_weight must be .*got -1\.0"),
  ],
)
def test_hyperparameters_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    balancers.uncertainty_weighting(2, **options)
