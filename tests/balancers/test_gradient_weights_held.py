"""Weights that are held for some steps, in every method that has it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.balancers.methods import METHODS
from tests.balancers.contract import (
  GRADIENT,
  assert_close,
  assert_equal,
  at,
  families_first,
  gradient_traits,
  held_for,
  init,
  make_gradient,
  needed_for,
  to_numpy,
)
from tests.balancers.gradient_runs import (
  ALL,
  HOLDING,
  LATER_BAD,
  LOSSES,
  NUM_STEPS,
  NUM_TASKS,
  PARAMS,
  SHARED,
  make,
  random_grads,
  runs_of,
)

# whose weights are those of the steps before, for absent tasks too
REMEMBERS = ["annealing", "gradbal", "inverse_dirichlet"]


@pytest.mark.parametrize("name", HOLDING)
def test_weights_are_held_between_updates(name):
  _, _, _, states = runs_of(name)["plain"]
  assert states.steps_left[:7].tolist() == [2, 1, 0, 2, 1, 0, 2]
  held = states.held[(np.arange(NUM_STEPS) // 3) * 3]
  assert_equal(states.weights, held)
  assert_equal(states.held, held)
  # bad gradients at an update serve no second step
  _, _, _, states = runs_of(name)["bad"]
  assert states.steps_left[LATER_BAD - 1 :][:4].tolist() == [0, 0, 2, 1]


def test_weights_that_overflow_are_not_held_for_good():
  balancer = make(HOLDING[0])
  state = init(balancer, PARAMS)
  largest = jnp.full(NUM_TASKS, 3e38)
  state = state._replace(held=largest, steps_left=jnp.int32(2))
  update = jax.jit(functools.partial(balancer.update, losses=LOSSES))
  for step, left in enumerate((1, 0, 2)):
    result, state = update(at(random_grads(0), step), state)
    assert state.steps_left == left
    assert np.isfinite(result["trunk"]["w"]).all() == (left == 2)


@pytest.mark.parametrize("name", families_first(HOLDING))
def test_held_weights_are_those_of_an_update_at_every_step(name):
  always = make_gradient(name, NUM_TASKS, shared=SHARED, **held_for(name, 1))
  run = runs_of(name)["plain"]
  update = jax.jit(functools.partial(always.update, losses=LOSSES))
  state = init(always, PARAMS)
  for step in (0, 3, 6):  # the updates of the other
    result, state = update(at(run.task_grads, step), state)
    assert_close(result, at(run.results, step), 1e-4, 1e-5)
    assert_close(state.weights, run.states.weights[step], 1e-4)
  assert state.held is state.steps_left is None


@pytest.mark.parametrize("name", families_first(HOLDING))
def test_one_gradient_of_the_weighted_sum_serves_between_updates(name):
  balancer = make(name)

  @jax.jit
  def combined(gradient, state, present):
    return balancer.update(
      gradient, state, PARAMS, combined=True, present=present, losses=LOSSES
    )

  for kind, steps in {"plain": (1, 2, 4), "absent": (1, 2, 3, 5)}.items():
    run = runs_of(name)[kind]
    for step in steps:
      present, before = run.masks[step], at(run.states, step - 1)
      weights = np.where(present, before.held, 0)
      others = weights if gradient_traits(name).heads == "weighted" else present
      grads = at(run.task_grads, step)
      total = {
        part: jax.tree.map(
          lambda g, w=w: np.tensordot(np.float32(w), np.nan_to_num(g), 1), grads[part]
        )
        for part, w in {"trunk": weights, "heads": others}.items()
      }
      result, state = combined(total, before, present)
      assert_close(result, at(run.results, step), 1e-4, 1e-5)
      assert_equal(to_numpy(state), at(run.states, step))
  begun = init(balancer, PARAMS)
  assert_equal(begun.held, np.ones(NUM_TASKS))  # before the first update all are
  result, state = combined(PARAMS, begun, ALL)
  assert state.steps_left == 0  # which it does not stop
  bad, before = jax.tree.map(lambda leaf: leaf * jnp.nan, PARAMS), to_numpy(state)
  result, state = combined(bad, before, ALL)
  assert_equal(to_numpy(state), before)
  assert np.isnan(result["heads"]).all()


@pytest.mark.parametrize("name", HOLDING)
def test_a_task_that_was_absent_at_an_update_waits_for_the_next(name):
  _, masks, _, states = runs_of(name)["absent"]
  assert masks[:1].tolist() == [[True, False, True]]
  assert states.held[0, 1] == float(name in REMEMBERS)
  assert_equal(states.held[1:3], states.held[:1].repeat(2, 0))
  updates = np.flatnonzero(states.steps_left == 2)
  assert updates[:2].tolist() == [0, 4]  # at step 3 no task is there


@pytest.mark.parametrize("name", GRADIENT)
def test_what_one_gradient_needs_is_checked(name):
  options = {} if name not in HOLDING else {"update_every": 2}
  plain = make_gradient(name, NUM_TASKS, **held_for(name, 1))
  with pytest.raises(ValueError, match=r"combined=True.*update_every above 1"):
    plain.update(PARAMS, init(plain, PARAMS), combined=True)
  if options:
    holding = make_gradient(name, NUM_TASKS, **options)
    grads = at(random_grads(0), 0)
    with pytest.raises(
      ValueError, match=r"combined=True.*shapes differ from the parameters"
    ):
      holding.update(grads, init(holding, PARAMS), PARAMS, combined=True)
    constructor = METHODS[name].constructor
    with pytest.raises(ValueError, match="update_every must be at least 1, got 0"):
      constructor(3, **needed_for(name), update_every=0)
    with pytest.raises(TypeError, match=r"update_every must be an integer, got 1.5"):
      constructor(3, **needed_for(name), update_every=1.5)
