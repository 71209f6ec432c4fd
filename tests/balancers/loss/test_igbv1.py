"""IGBv1: golden numbers, base losses, and gaps of tasks that come, go or end."""

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
from tests.balancers.losses import STEPS_PER_EPOCH, make_loss, random_losses


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
def test_matches_published_code_over_90_steps(num_tasks):
  assert_matches("igbv1", num_tasks)


def test_base_losses_are_the_mean_of_the_base_epoch():
  losses = random_losses(3 * STEPS_PER_EPOCH, 3)
  state, (_, weights) = scan(balancers.igbv1(3, STEPS_PER_EPOCH), losses)
  base = losses[STEPS_PER_EPOCH : 2 * STEPS_PER_EPOCH].mean(axis=0)
  np.testing.assert_allclose(state.base_losses, base, 1e-5)
  assert (weights[: 2 * STEPS_PER_EPOCH] == 1).all()
  gaps = np.exp(losses[-1] / base)
  np.testing.assert_allclose(state.weights, 3 * gaps / gaps.sum(), 1e-5)


@pytest.mark.parametrize(
  "name", ["igbv1", pytest.param("igbv2", marks=pytest.mark.slow)]
)
def test_base_losses_are_means_over_the_steps_of_each_task(name):
  losses, masks = random_presence()
  state, _ = scan(make_loss(name, 3), losses, masks)
  base = slice(STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH)
  np.testing.assert_allclose(state.base_losses, np.nanmean(losses[base], axis=0), 1e-5)
  np.testing.assert_array_equal(state.base_count, masks[base].sum(axis=0))


def test_an_outlier_leaves_no_trace():
  assert distances_after_outliers("igbv1", 1e12) == [0, 0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_a_bad_loss_leaves_the_base_of_the_others_untouched(bad):
  balancer = make_loss("igbv1", 3)
  state, _ = scan(balancer, random_losses(6, 3))
  losses = random_losses(1, 3)[0]
  update = jax.jit(balancer.update)
  _, good = update(losses, state)
  losses[1] = bad
  _, touched = update(losses, state)
  for field in ("base_losses", "base_count"):
    before, after, expected = (
      np.asarray(getattr(each, field)) for each in (state, touched, good)
    )
    np.testing.assert_array_equal(after[[0, 2]], expected[[0, 2]])
    assert after[1] == before[1]


def test_weighs_the_other_tasks_as_if_the_bad_one_did_not_exist():
  losses = random_losses(12, 3)
  bad = losses.copy()
  bad[-1, 1] = 0.0
  state, _ = scan(balancers.igbv1(3, 4), bad)
  smaller, _ = scan(balancers.igbv1(2, 4), losses[:, [0, 2]])
  np.testing.assert_allclose(state.weights[jnp.array([0, 2])], smaller.weights, 1e-6)
  assert state.weights[1] == 0


def test_gives_a_task_without_base_loss_a_gap_of_one():
  losses = np.ones((12, 2), np.float32)
  losses[4:8, 0] = np.nan
  state, _ = scan(balancers.igbv1(2, 4), losses)
  assert state.base_count.tolist() == [0, 4]
  assert state.weights.tolist() == [1, 1]


def test_weighs_a_task_whose_loss_is_zero_where_epsilon_allows_it():
  losses = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]], np.float32)
  state, (weighted, _) = scan(balancers.igbv1(2, 1, epsilon=0.1), losses)
  expected = 2 * np.exp([0, 1]) / np.exp([0, 1]).sum()
  np.testing.assert_allclose(state.weights, expected, 1e-6)
  np.testing.assert_allclose(weighted[-1], expected * np.log([0.1, 1.1]), 1e-5)


def test_max_gap_keeps_a_task_that_starts_near_its_solution_from_taking_over():
  losses = np.array([[1.0, 1e-3], [1.0, 1e-3], [1.0, 5e-2]], np.float32)

  def last_weights(max_gap):
    state, _ = scan(balancers.igbv1(2, 1, max_gap=max_gap), losses)
    return np.asarray(state.weights)

  assert last_weights(None)[0] < 1e-20  # as the paper has it
  expected = 2 * np.exp([1, 2]) / np.exp([1, 2]).sum()
  np.testing.assert_allclose(last_weights(2.0), expected, 1e-6)
  np.testing.assert_array_equal(last_weights(100.0), last_weights(None))

  @jax.jit
  def traced(max_gap):
    balancer = balancers.igbv1(2, 1, max_gap=max_gap)
    state = balancer.init()
    for each in losses:
      _, state = balancer.update(each, state)
    return state.weights

  np.testing.assert_allclose(traced(2.0), expected, 1e-6)


@pytest.mark.parametrize(
  ("options", "error", "message"),
  [
    ({"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be at least 1, got 0"),
    ({"steps_per_epoch": 1.5}, TypeError, r"steps_per_epoch must be .*got 1\.5"),
    ({"base_epoch": -1}, ValueError, "base_epoch must be at least 0, got -1"),
    ({"base_epch": 1}, TypeError, "base_epch"),
    ({"max_gap": 0.0}, ValueError, r"max_gap must be .*got 0\.0"),
  ],
)
def test_hyperparameters_are_checked(options, error, message):
  with pytest.raises(error, match=message):
    balancers.igbv1(2, **{"steps_per_epoch": 3} | options)


def test_needs_steps_per_epoch():
  with pytest.raises(TypeError, match="steps_per_epoch"):
    balancers.igbv1(num_tasks=2)  # pyright: ignore[reportCallIssue]
