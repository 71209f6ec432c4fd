"""Dynamic weight average: golden numbers, its windows, tasks that come and go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.long_losses import distances_after_outliers
from tests.balancers.loss.published import (
  TASK_COUNTS,
  assert_matches,
  random_presence,
  scan,
)
from tests.balancers.losses import make_loss, random_losses

NAMES = ["dwa", "dwalog"]


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
@pytest.mark.parametrize("name", NAMES)
def test_matches_published_code_over_90_steps(name, num_tasks):
  assert_matches(name, num_tasks)


def test_weights_change_at_the_27th_call():
  balancer = balancers.dynamic_weight_average(3)
  _, (_, weights) = scan(balancer, random_losses(30, 3))
  assert (weights[:26] == 1).all()
  assert (weights[26:] != 1).any(axis=1).all()


@pytest.mark.parametrize("name", NAMES)
def test_forgets_an_outlier(name):
  assert max(distances_after_outliers(name, 1e12)) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_a_bad_loss_leaves_the_windows_of_the_others_untouched(name, bad):
  balancer = make_loss(name, 3)
  state, _ = scan(balancer, random_losses(6, 3))
  losses = random_losses(1, 3)[0]
  update = jax.jit(balancer.update)
  _, good = update(losses, state)
  losses[1] = bad
  _, touched = update(losses, state)
  before, after, expected = (np.asarray(each.window) for each in (state, touched, good))
  np.testing.assert_array_equal(after[..., [0, 2]], expected[..., [0, 2]])
  np.testing.assert_array_equal(after[..., 1], before[..., 1])


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_latest_losses_of_each_task(name):
  losses, masks = random_presence()
  state, _ = scan(make_loss(name, 3), losses, masks)
  for task in range(3):
    np.testing.assert_array_equal(
      state.window[:, task], losses[masks[:, task], task][-4:]
    )


@pytest.mark.parametrize("name", NAMES)
def test_weighs_equal_constant_losses_equally_whenever_they_are_there(name):
  balancer = balancers.create(name, num_tasks=3).loss
  steps = np.arange(200)
  courses = {
    "late": steps >= 60,
    "gap": (steps < 10) | (steps >= 70),
    "now and then": steps % 3 == 0,
    "once": steps != 30,
    "no number": steps >= 0,
  }
  for kind, there in courses.items():
    losses, masks = np.full((200, 3), 0.01, np.float32), np.ones((200, 3), bool)
    masks[:, 1] = there
    losses[~there, 1] = np.nan
    if kind == "no number":
      losses[20, 1] = np.nan
    _, (_, weights) = scan(balancer, losses, masks)
    np.testing.assert_allclose(weights, masks, 1e-5)


@pytest.mark.parametrize("missing", [0, 1])
def test_compares_tasks_once_their_own_windows_are_full(missing):
  balancer = balancers.dynamic_weight_average(2, window=3)
  losses = np.stack([0.9 ** np.arange(20), np.ones(20)], axis=1).astype(np.float32)
  masks = np.ones((20, 2), bool)
  masks[0, missing] = False
  _, (_, weights) = scan(balancer, losses, masks)
  full = 6 if missing == 0 else 5  # the step of the sixth loss of the first task
  np.testing.assert_allclose(weights[1:full], 1, 1e-6)
  assert (weights[full:, 0] < 0.99).all()  # it falls, and the other does not


def test_the_temperature_may_be_traced():
  def last_weights(temperature):
    balancer = balancers.dynamic_weight_average(3, window=1, temperature=temperature)
    state = balancer.init()
    for step in range(4):
      losses = jnp.array([3.0, 2.0, 1.5]) / (1 + step * jnp.array([0.3, 0.1, 0.2]))
      _, state = balancer.update(losses, state)
    return state.weights

  traced = jax.jit(last_weights)
  np.testing.assert_allclose(traced(0.5), jax.jit(lambda: last_weights(0.5))(), 1e-5)
  assert not np.allclose(traced(0.25), traced(0.5), 1e-4)


@pytest.mark.parametrize(
  ("options", "error", "message"),
  [
    ({"window": 0}, ValueError, "window must be at least 1, got 0"),
    ({"temperature": 0}, ValueError, "temperature must be .*got 0"),
    ({"temperature": np.nan}, ValueError, "temperature must be .*got nan"),
    ({"temperature": "2"}, TypeError, "temperature must be a number, got '2'"),
  ],
)
def test_hyperparameters_are_checked(options, error, message):
  with pytest.raises(error, match=message):
    balancers.dynamic_weight_average(2, **options)
