"""Steps with bad numbers: what fails, what is skipped, and what stays as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax.training.step import init_state, make_train_step

from . import problem


@pytest.mark.parametrize("spec", ["ew", "si", "dwa", "uw", "igbv1"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_with_bad_numbers_changes_nothing_but_the_failure(spec, value):
  step, state, _ = problem.make(spec)
  for index, batch in enumerate(problem.batches(6, bad=3, value=value)):
    if index == 3:
      before = problem.copy(state)
    state = step(state, batch)
  jax.tree.map(
    np.testing.assert_array_equal,
    state._replace(failure=None),
    before._replace(failure=None),
  )
  assert state.failure.step == 3
  assert not np.isfinite(state.failure.weighted[1])
  assert np.isfinite(state.failure.weighted[np.array([0, 2])]).all()
  np.testing.assert_array_equal(np.isfinite(state.failure.losses), [True, False, True])


def test_a_loss_that_is_not_positive_stops_the_log_methods_alone():
  for spec, stops in (("si", True), ("igbv1", True), ("ew", False), ("uw", False)):
    step, state, _ = problem.make(spec)
    for batch in problem.batches(1, bad=0, value=-100.0):
      state = step(state, batch)
    assert (state.failure.step == 0) == stops


def test_a_gradient_that_is_not_finite_is_a_failure_too():
  def losses_of(params, batch):
    return jnp.sqrt(jnp.abs(params["x"])).sum() + jnp.ones(3) * batch  # at 0

  state = problem.state_with(optax.sgd(0.1), x=0.0)
  step = make_train_step(losses_of, problem.EQUAL, optax.sgd(0.1))
  state = step(state, jnp.ones(3))
  assert state.failure.step == 0
  assert np.isfinite(state.failure.weighted).all()
  assert state.params["x"].tolist() == [0, 0]


def assert_equal_but_for_skips(state, before):
  """Everything but the counts of steps and of skips."""
  uncounted = [
    each._replace(
      step=0, skips_in_a_row=0, failure=0, sums=each.sums._replace(skipped=0)
    )
    for each in (state, before)
  ]
  jax.tree.map(np.testing.assert_array_equal, *uncounted)


@pytest.mark.parametrize("spec", ["ew", "si", "dwa", "uw", "igbv1"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_is_skipped_changes_nothing_but_the_counts(spec, value):
  step, state, _ = problem.make(spec, max_skips=2)
  expected = problem.make(spec)[1]
  for batch in problem.batches(5, bad=2, value=value):
    before = problem.copy(state)
    state = step(state, batch)
    if np.isfinite(batch).all():
      expected = step(expected, batch)
      assert state.skips_in_a_row == 0
    else:
      assert_equal_but_for_skips(state, before)
      assert state.skips_in_a_row == 1
  assert_equal_but_for_skips(state, expected)
  assert state.failure.step == -1
  assert (state.step, state.sums.steps, state.sums.skipped) == (5, 4, 1)


def test_too_many_skips_in_a_row_are_a_failure():
  step, state, _ = problem.make("ew", max_skips=2)
  (good,) = problem.batches(1)
  (bad,) = problem.batches(1, bad=0)
  for batch in (bad, bad, good, bad, bad):
    state = step(state, batch)
  assert state.failure.step == -1
  assert state.skips_in_a_row == 2
  before = problem.copy(state)
  state = step(state, bad)
  assert state.failure.step == 5
  state = step(state, good)  # nothing goes on after it
  jax.tree.map(
    np.testing.assert_array_equal,
    state._replace(failure=None),
    before._replace(failure=None),
  )


def test_batch_statistics_that_are_not_finite_are_not_kept():
  def losses_of(params, variables, batch):
    return problem.losses_of(params, batch), {"mean": batch.sum() / batch[0]}

  state = init_state(
    {"x": jnp.zeros(2)},
    variables={"mean": jnp.float32(7)},
    balancer=problem.EQUAL,
    optimizer=optax.sgd(0.1),
    plateau=optax.contrib.reduce_on_plateau(),
    key=jax.random.key(0),
  )
  step = make_train_step(
    losses_of, problem.EQUAL, optax.sgd(0.1), stateful=True, max_skips=1
  )
  state = step(state, jnp.array([0.0, 1.0, 1.0]))
  assert state.variables["mean"] == 7
  assert state.sums.skipped == 1
  state = step(state, jnp.ones(3))
  assert state.variables["mean"] == 3


def test_a_large_but_finite_gradient_is_no_failure():
  step, state, _ = problem.make("ew", scale=1e12)
  (batch,) = problem.batches(1)
  assert step(state, batch).failure.step == -1


@pytest.mark.parametrize("max_skips", [0, 1])
def test_a_gradient_that_overflows_the_optimizer_is_not_taken(max_skips):
  optimizer = optax.adam(0.1)
  state = problem.state_with(optimizer)
  step = make_train_step(
    lambda params, batch: batch * (params["x"] ** 2).sum(),
    problem.EQUAL,
    optimizer,
    max_skips=max_skips,
  )
  state = step(state, jnp.ones(3))
  before = problem.copy(state)
  state = step(state, jnp.full(3, 1e25))  # its square is infinite in float32
  jax.tree.map(np.testing.assert_array_equal, state.optimizer, before.optimizer)
  np.testing.assert_array_equal(state.params["x"], before.params["x"])
  assert state.sums.skipped == max_skips
  assert (state.failure.step == 1) == (max_skips == 0)
  if max_skips:
    for _ in range(3):
      before = problem.copy(state)
      state = step(state, jnp.ones(3))
      assert (state.params["x"] < before.params["x"]).all()


def test_an_optimizer_whose_state_begins_infinite_is_no_failure():
  optimizer = optax.GradientTransformation(
    lambda params: jnp.full((), jnp.inf),
    lambda updates, state, params=None: (updates, state),
  )
  state = problem.state_with(optimizer)
  step = make_train_step(problem.losses_of, problem.EQUAL, optimizer)
  assert step(state, jnp.ones(3)).failure.step == -1
