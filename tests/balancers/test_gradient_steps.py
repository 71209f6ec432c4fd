"""Every gradient balancer step by step: states, masks and bad numbers."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from tests.balancers.contract import (
  GRADIENT,
  assert_close,
  assert_equal,
  assert_finite,
  at,
  families_first,
  gradient_traits,
  init,
)
from tests.balancers.gradient_runs import (
  HEADS_BAD,
  LATER_BAD,
  LOSSES,
  NUM_RUNS,
  NUM_STEPS,
  NUM_TASKS,
  PARAMS,
  TRUNK_BAD,
  Run,
  fill,
  make,
  random_grads,
  run_all,
  runs_of,
)


def heads_of(name: str, run: Run, step: int) -> np.ndarray:
  """What the heads should get at a step, of the tasks that are present."""
  weights = run.states.weights[step]
  if gradient_traits(name).heads == "summed":
    weights = run.masks[step].astype(np.float32)
  return np.tensordot(weights, np.nan_to_num(run.task_grads["heads"][step]), 1)


@pytest.mark.parametrize("name", families_first(GRADIENT))
def test_one_trace_serves_all_steps_and_equals_a_scan(name):
  """With masks and unknown arguments, donated states, and runs that vmap has taken."""
  balancer, traces = make(name), []

  @functools.partial(jax.jit, donate_argnums=1)
  def step(task_grads, state, present):
    traces.append(None)
    unknown = {"value": 1.0, "other": None}
    return balancer.update(
      task_grads, state, present=present, losses=LOSSES, params=PARAMS, **unknown
    )

  for kind in ("absent", "other inputs"):
    run = runs_of(name)[kind]
    state = init(balancer, PARAMS)
    for index in range(10):
      result, state = step(at(run.task_grads, index), state, run.masks[index])
      assert_close(result, at(run.results, index), 1e-4, 1e-5)
      expected = at(run.states, index)
      assert_close(state.weights, expected.weights, 1e-4)
      assert_close(state.memory, expected.memory, 1e-4, 1e-5)
      if state.steps_left is not None:
        assert_equal(state.steps_left, expected.steps_left)
  assert len(traces) == 1


@pytest.mark.parametrize("name", GRADIENT)
def test_only_shared_leaves_enter_the_gramian_and_the_weights(name):
  plain, other = (runs_of(name)[kind] for kind in ("plain", "other heads"))
  assert_close(other.results["trunk"], plain.results["trunk"], 1e-6, 1e-7)
  assert_close(other.states, plain.states, 1e-6, 1e-7)
  trunk = [leaf[0].reshape(NUM_TASKS, -1) for leaf in jax.tree.leaves(
    plain.task_grads["trunk"]
  )]  # fmt: skip
  flat = np.concatenate(trunk, axis=1)
  norms = np.linalg.norm(flat, axis=1)
  gramian = at(plain.states.gramian, 0)
  cosines = flat @ flat.T / norms / norms[:, None]
  np.testing.assert_allclose(gramian.cosines, cosines, 1e-4, 1e-6)
  if gradient_traits(name).gramian_only:
    np.testing.assert_allclose(gramian.norms, norms, 1e-5)


@pytest.mark.parametrize("name", GRADIENT)
def test_heads_get_the_weighted_or_the_plain_sum(name):
  for run in (runs_of(name)["plain"], runs_of(name)["absent"]):
    for step in range(NUM_STEPS):
      expected = heads_of(name, run, step)
      np.testing.assert_allclose(run.results["heads"][step], expected, 1e-4, 1e-5)


@pytest.mark.parametrize("name", GRADIENT)
def test_absent_tasks_have_no_part_in_a_step(name):
  _, masks, results, states = runs_of(name)["absent"]
  assert_finite((results, states))
  assert not states.weights[~masks].any()
  for step in (3, 7):  # without any task
    assert not any(leaf.any() for leaf in jax.tree.leaves(at(results, step)))
    before, after = at(states, step - 1), at(states, step)
    assert_equal(after._replace(weights=before.weights), before)


@pytest.mark.parametrize("name", GRADIENT)
def test_bad_gradients_show_and_leave_the_state_as_it_was(name):
  _, _, results, states = runs_of(name)["bad"]
  assert_finite(states)
  for step in (HEADS_BAD, TRUNK_BAD, LATER_BAD):
    before, after = at(states, step - 1), at(states, step)
    assert_equal(after._replace(steps_left=before.steps_left), before)
  assert np.isnan(results["heads"][[HEADS_BAD, LATER_BAD]]).any(axis=1).all()
  assert not np.isfinite(results["trunk"]["w"][TRUNK_BAD]).all()
  good = np.delete(np.arange(NUM_STEPS), [HEADS_BAD, TRUNK_BAD, LATER_BAD])
  assert_finite(at(results, good))


# ---------------------------------------------------------------------- bad numbers

VALUES = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, -1e30, 1e-30]
Injection = tuple[int, int, float]
# what is injected into each of the runs: (step, task, value), several of them
INJECTIONS = st.lists(
  st.lists(
    st.tuples(
      st.integers(0, NUM_STEPS - 1),
      st.integers(0, NUM_TASKS - 1),
      st.sampled_from(VALUES),
    ),
    min_size=1,
    max_size=12,
  ),
  min_size=NUM_RUNS,
  max_size=NUM_RUNS,
)


def check(name: str, injections: list[list[Injection]], lacks_tasks: bool) -> None:
  runs = []
  for seed, injected in enumerate(injections):
    grads, masks = random_grads(0), np.ones((NUM_STEPS, NUM_TASKS), bool)
    for step, task, value in injected:
      fill(grads, step, task, value)
      masks[step, task] = not (lacks_tasks and np.isnan(value))
    runs.append((grads, masks, seed))
  for injected, run in zip(injections, run_all(name, runs), strict=True):
    assert_finite(run.states)
    bad = {step for step, _, _ in injected}
    good = [step for step in range(NUM_STEPS) if step not in bad]
    assert_finite(at(run.results, good))  # it goes on


@pytest.mark.parametrize("name", GRADIENT)
def test_bad_numbers_never_poison_a_state(name):
  every_kind = [(7 + 3 * index, index % 3, v) for index, v in enumerate(VALUES)]
  check(name, [every_kind] * NUM_RUNS, False)

  @hypothesis.settings(deadline=None, max_examples=5)
  @hypothesis.given(injections=INJECTIONS, lacks=st.booleans())
  def run(injections, lacks):
    check(name, injections, lacks)

  run()


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENT)
def test_bad_numbers_never_poison_a_state_in_many_runs(name):
  @hypothesis.settings(deadline=None, max_examples=100)
  @hypothesis.given(injections=INJECTIONS, lacks=st.booleans())
  def run(injections, lacks):
    check(name, injections, lacks)

  run()
