"""What every gradient balancer makes of tasks that a batch lacks."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from tests.balancers import jacobians
from tests.balancers.contract import (
  FAMILIES,
  GRADIENT,
  assert_close,
  assert_equal,
  assert_finite,
  families_first,
  gradient_traits,
  init,
  make_gradient,
)
from tests.balancers.jacobians import Solved, sample, solve_each, solved

ABSENT = [
  "gaussian", "common direction", "scales", "one zero", "all zero", "dependent",
]  # fmt: skip
BAD = [np.nan, np.inf, -1.0, 0.0, 5.0]  # the last is none, and absent all the same


def smaller_jacobian(kind: str, num_tasks: int) -> np.ndarray:
  """Like the samples, with the parameters of which the others have no gradient."""
  generator = np.random.default_rng(num_tasks)
  jacobian = np.zeros((num_tasks, jacobians.NUM_PARAMETERS))
  gauss = jacobian[:, :50]
  gauss[:] = generator.normal(size=gauss.shape)
  if kind == "common direction":
    gauss += 3
  if kind == "scales":
    gauss *= 10.0 ** np.linspace(-12, 12, num_tasks)[:, None]
  if kind == "one zero":
    gauss[0] = 0
  if kind == "all zero":
    gauss[:] = 0
  if kind == "dependent":
    gauss[:] = generator.normal(size=(num_tasks, 1)) * gauss[:1]
  return jacobian


@functools.cache
def solved_with_masks(name: str, num_tasks: int) -> dict[str, Solved]:
  """What a method makes of tasks that are absent: the last of each sample."""
  inputs, masks = {}, {}
  for kind in ABSENT:
    inputs[kind] = smaller_jacobian(kind, num_tasks)
    inputs[kind][-1] = np.nan
    masks[kind] = np.arange(num_tasks) < num_tasks - 1
  for bad in BAD:
    inputs[f"{bad}"] = sample("gaussian", num_tasks)
    inputs[f"{bad}"][-1] = bad
    masks[f"{bad}"] = np.arange(num_tasks) < num_tasks - 1
  inputs["all"], masks["all"] = sample("gaussian", num_tasks), np.ones(num_tasks, bool)
  inputs["none"], masks["none"] = inputs["gaussian"] * np.nan, ~masks["all"]
  return solve_each(make_gradient(name, num_tasks), inputs, masks)


@functools.cache
def solved_without(name: str, num_tasks: int) -> dict[str, Solved]:
  """The same problems without the absent task."""
  inputs = {kind: smaller_jacobian(kind, num_tasks)[:-1] for kind in ABSENT}
  return solve_each(make_gradient(name, num_tasks - 1), inputs, None)


SMALLER = [
  pytest.param(
    name,
    num_tasks + 1,
    marks=[] if fast and (name in FAMILIES or num_tasks == 3) else pytest.mark.slow,
  )
  for num_tasks, fast in ((1, False), (2, True), (3, True), (5, False))
  for name in GRADIENT
  if num_tasks >= gradient_traits(name).fewest_tasks
  # of those that take more than two tasks, one more
  and (num_tasks != 3 or gradient_traits(name).fewest_tasks == 3)
]


@pytest.mark.parametrize(("name", "num_tasks"), SMALLER)
def test_the_others_are_balanced_as_by_the_smaller_problem(name, num_tasks):
  traits = gradient_traits(name)
  if traits.draws and not traits.equivariant and num_tasks > 3:
    pytest.skip("it draws otherwise for fewer tasks")
  for kind in ABSENT:
    _, result, state = solved_with_masks(name, num_tasks)[kind]
    _, expected, expected_state = solved_without(name, num_tasks)[kind]
    terms = np.abs(expected_state.weights) * expected_state.gramian.norms
    np.testing.assert_allclose(result, expected, 1e-3, 1e-4 * terms.sum())
    if kind != "dependent":  # where the weights are not unique
      largest = np.abs(expected_state.weights).max()
      np.testing.assert_allclose(
        state.weights[:-1], expected_state.weights, 1e-3, 1e-6 * largest
      )
    assert state.weights[-1] == 0
    assert state.residual < 1e-4


@pytest.mark.parametrize("name", families_first(GRADIENT))
def test_an_absent_gradient_gives_nothing_whatever_it_is(name):
  found = solved_with_masks(name, 3)
  first = found[f"{BAD[0]}"]
  assert_finite(first[1:])
  for bad in BAD[1:]:
    assert_equal(found[f"{bad}"][1:], first[1:])


@pytest.mark.parametrize("name", families_first(GRADIENT))
def test_a_mask_of_all_tasks_changes_no_gradient(name):
  masked, plain = solved_with_masks(name, 3)["all"], solved(name, 3)["gaussian"]
  assert_close(masked[1:], plain[1:])


@pytest.mark.parametrize("name", families_first(GRADIENT))
def test_without_any_task_the_gradient_is_zero_and_the_state_stays(name):
  _, result, state = solved_with_masks(name, 3)["none"]
  assert not result.any()
  assert not state.weights.any()
  before = init(make_gradient(name, 3), jnp.zeros(jacobians.NUM_PARAMETERS))
  assert_equal(state._replace(weights=before.weights), before)
