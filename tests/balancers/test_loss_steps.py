"""Every loss balancer step by step: absent tasks and bad losses."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import (
  LOSS,
  assert_close,
  assert_equal,
  assert_finite,
  at,
  families_first,
  having,
  loss_traits,
  to_numpy,
)
from tests.balancers.losses import (
  NUM_STEPS,
  PLAIN,
  Run,
  course,
  make_loss,
  random_losses,
  run_at_once,
  runs_of,
  trains_one_task,
)

NUM_TASKS, NUM_RUNS = 3, 8
OTHERS, MASK = np.array([0, 2]), np.array([True, False, True])
ALL = np.ones((NUM_STEPS, NUM_TASKS), bool)
PLAIN_LOSSES = random_losses(NUM_STEPS, NUM_TASKS)
BAD = [np.nan, np.inf, -1.0, 0.0, 5.0]  # the last is none, and absent all the same


@functools.cache
def make(name: str) -> balancers.LossBalancer:
  return make_loss(name, NUM_TASKS)


@functools.cache
def runner(name: str):
  """A compiled run of several sequences at once."""
  return jax.jit(jax.vmap(functools.partial(course, make(name))))


def run_all(name: str, runs: dict[str, tuple]) -> dict[str, Run]:
  """The runs, each made of losses, a seed and masks; at most `NUM_RUNS`."""
  rest = NUM_RUNS - len(runs)
  stacked = [
    np.stack([*part, *part[:1] * rest]) for part in zip(*runs.values(), strict=True)
  ]
  found = to_numpy(runner(name)(*stacked))
  return {
    label: Run(losses, masks, *at(found, index))
    for index, (label, (losses, _, masks)) in enumerate(runs.items())
  }


def absent(masks: np.ndarray, value: float = np.nan) -> tuple:
  losses = PLAIN_LOSSES.copy()
  losses[~masks] = value
  return losses, 0, masks


@functools.cache
def masked_runs(name: str) -> dict[str, Run]:
  now_and_then = np.random.default_rng(2).random(ALL.shape) < 0.6
  never = np.broadcast_to(MASK, ALL.shape)
  late = ALL.copy()
  late[40:] = MASK
  runs = {f"late {bad}": absent(late, bad) for bad in BAD}
  runs["never"], runs["now and then"] = absent(never), absent(now_and_then)
  runs["all"] = absent(ALL)
  return run_all(name, runs)


# ------------------------------------------------------------------- absent tasks


@pytest.mark.parametrize("name", LOSS)
def test_an_absent_loss_gives_nothing_and_changes_nothing(name):
  runs = masked_runs(name)
  first = runs[f"late {BAD[0]}"]
  for bad in BAD:
    run = runs[f"late {bad}"]
    assert_finite((run.weighted, run.slopes, run.states))
    for zero in (run.weighted, run.slopes, run.first, run.weights):
      assert not zero[40:, 1].any()
    assert_equal(run.states, first.states)


@pytest.mark.parametrize("name", LOSS)
def test_weights_are_those_of_the_tasks_that_are_present(name):
  run = masked_runs(name)["now and then"]
  assert_finite((run.weighted, run.states))
  assert not run.weights[~run.masks].any()
  if loss_traits(name).positive:
    assert (run.weights[run.masks] > 0).all()
  if loss_traits(name).normalised:
    np.testing.assert_allclose(run.weights.sum(axis=1), run.masks.sum(axis=1), 1e-5)
  steps = np.flatnonzero(~run.masks[1:].any(axis=1)) + 1
  assert len(steps) > 0
  for step in steps:  # without any task
    before, after = at(run.states, step - 1), at(run.states, step)
    assert not run.weighted[step].any()
    assert_equal(after._replace(weights=before.weights), before)


@pytest.mark.parametrize("name", having("loss", draws=False))
def test_the_others_are_weighed_as_by_the_smaller_problem(name):
  run = masked_runs(name)["never"]
  others = PLAIN_LOSSES[:, OTHERS]
  smaller = run_at_once(make_loss(name, 2), {"": (others, 0)})[""]
  assert_close(run.weighted[:, OTHERS], smaller.weighted)
  np.testing.assert_allclose(run.weights[:, OTHERS], smaller.weights, 1e-5)


@pytest.mark.parametrize("name", LOSS)
def test_a_mask_of_all_tasks_and_vmap_change_nothing(name):
  run, plain = masked_runs(name)["all"], runs_of(name, NUM_TASKS)[PLAIN]
  assert_close(run.weighted, plain.weighted, 1e-4, 1e-5)
  assert_close(run.states, plain.states, 1e-4, 1e-5)


@pytest.mark.parametrize("name", having("loss", needs_positive=False))
def test_a_loss_that_is_negative_throughout_counts_like_any(name):
  losses = PLAIN_LOSSES * np.float32([1, 1, -1])
  run = run_all(name, {"negative": (losses, 0, ALL)})["negative"]
  assert_finite((run.weighted, run.slopes))
  assert run.slopes[:, OTHERS].any(axis=0).all() or trains_one_task(name)


# ---------------------------------------------------------------------- bad numbers

VALUES = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, -1e30, 1e-30]
INJECTION = st.tuples(
  st.integers(0, NUM_STEPS - 1),
  st.integers(0, NUM_TASKS - 1),
  st.sampled_from(VALUES),
)
# what is injected into each of the runs: (step, task, value), one or several of them
INJECTIONS = st.lists(
  st.lists(INJECTION, min_size=1, max_size=12),
  min_size=NUM_RUNS - 1,
  max_size=NUM_RUNS - 1,
)


def check(name: str, injections: list, lacks_tasks: bool) -> None:
  runs = {"clean": (PLAIN_LOSSES, 0, ALL)}
  for index, injected in enumerate(injections):
    losses, masks = PLAIN_LOSSES.copy(), ALL.copy()
    for step, task, value in injected:
      losses[step, task] = value
      masks[step, task] = not (lacks_tasks and np.isnan(value))
    runs[f"{index}"] = losses, 0, masks
  found = run_all(name, runs)
  clean = found.pop("clean")
  for run in found.values():
    assert_finite(run.states)
    untouched = run.losses == PLAIN_LOSSES
    assert_finite(run.weighted[untouched])
    if loss_traits(name).takes_log:
      seen = run.masks & ~untouched & ~(run.losses > 0)
      assert np.isnan(run.weighted[seen]).all()
    if not loss_traits(name).ties_tasks:
      others = (untouched & run.masks).all(axis=0)
      assert_equal(run.weighted[:, others], clean.weighted[:, others])


@pytest.mark.parametrize("name", LOSS)
def test_bad_losses_never_poison_a_state(name):
  every_kind = [(7 + 3 * index, index % 3, v) for index, v in enumerate(VALUES)]
  check(name, [every_kind, *([each] for each in every_kind[: NUM_RUNS - 2])], False)

  @hypothesis.settings(deadline=None, max_examples=5)
  @hypothesis.given(injections=INJECTIONS, lacks=st.booleans())
  def run(injections, lacks):
    check(name, injections, lacks)

  run()


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSS)
def test_bad_losses_never_poison_a_state_in_many_runs(name):
  @hypothesis.settings(deadline=None, max_examples=80)
  @hypothesis.given(injections=INJECTIONS, lacks=st.booleans())
  def run(injections, lacks):
    check(name, injections, lacks)

  run()


# -------------------------------------------------------------------- inside of jit


@pytest.mark.parametrize("name", families_first(LOSS))
def test_one_trace_serves_all_steps_and_equals_a_scan(name):
  """With masks and unknown arguments, and states that are donated."""
  traces = []

  @functools.partial(jax.jit, donate_argnums=1)
  def step(losses, state, present):
    traces.append(None)
    return make(name).update(losses, state, present=present, foo=None, bar="x")

  run = masked_runs(name)["now and then"]
  state = make(name).init(jax.random.key(0))
  for index in range(12):
    weighted, state = step(run.losses[index], state, run.masks[index])
    assert_close(weighted, run.weighted[index], 1e-4, 1e-5)
    assert_close(state.weights, run.weights[index], 1e-4, 1e-5)
  assert len(traces) == 1
