"""`absent="remember"`: the latest loss of a task that a batch lacks, in all methods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import (
  assert_close,
  assert_equal,
  assert_finite,
  at,
  families_first,
  having,
  loss_traits,
)
from tests.balancers.losses import STEPS_PER_EPOCH, Run, make_loss, run_each

ALTERNATING = np.arange(40)[:, None] % 2 == np.arange(2)
NONE, BAD = 30, {21: np.nan, 23: np.inf, 25: 0.0, 27: -1.0}  # steps below


# what else a method needs is not remembered
EVERY = having("loss", needs=())
NAMES = families_first(EVERY)


@functools.cache
def make(name: str, absent: str) -> balancers.LossBalancer:
  return make_loss(name, 2, absent=absent)


def random_losses() -> np.ndarray:
  generator = np.random.default_rng(0)
  return np.exp(generator.normal(size=(40, 2))).astype(np.float32)


def filled(losses: np.ndarray) -> np.ndarray:
  """The latest loss in the place of NaN."""
  losses = losses.copy()
  for step in range(1, len(losses)):
    losses[step] = np.where(np.isnan(losses[step]), losses[step - 1], losses[step])
  return losses


@functools.cache
def runs_of(name: str, absent: str) -> dict[str, Run]:
  alternating, both = random_losses(), np.ones((40, 2), bool)
  alternating[~ALTERNATING] = np.nan
  seen, masks = alternating.copy(), ALTERNATING.copy()
  seen[0], masks[0] = [1.0, 2.0], True  # both are there once
  alone = np.tile(np.array([0.5, np.nan], np.float32), (40, 1))
  stops = ALTERNATING.copy()
  stops[NONE] = False
  bad = random_losses()
  for step, value in BAD.items():
    bad[step, 0] = value
  return run_each(
    make(name, absent),
    {
      "alternating": (alternating, 0, ALTERNATING),
      "both once": (seen, 0, masks),
      "filled": (filled(seen), 0, both),
      "never": (alone, 0, np.tile([True, False], (40, 1))),
      "none at a step": (np.where(stops, alternating, np.nan), 0, stops),
      "bad": (bad, 0, both),
    },
  )


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_all_tasks_with_their_latest_losses(name):
  run, expected = runs_of(name, "remember")["both once"], runs_of(name, "leave_out")[
    "filled"
  ]  # fmt: skip
  np.testing.assert_allclose(
    run.weights, np.where(run.masks, expected.weights, 0), 1e-5
  )
  assert_close(run.weighted, np.where(run.masks, expected.weighted, 0))


@pytest.mark.parametrize(
  "name", families_first(having("loss", ties_tasks=True, needs=()))
)
def test_alternating_tasks_are_balanced_only_where_they_are_remembered(name):
  left_out, remembered = (
    runs_of(name, absent)["alternating"].weights[ALTERNATING]
    for absent in ("leave_out", "remember")
  )
  if loss_traits(name).normalised:
    np.testing.assert_allclose(left_out, 1, 1e-6)
    late = remembered[3 * STEPS_PER_EPOCH :]
    assert np.abs(late - 1).max() > 0.05
    assert ((late > 0) & (late < 2)).all()
  assert np.abs(remembered - left_out).max() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_a_task_that_never_was_there_is_left_out(name):
  left_out, remembered = (
    runs_of(name, absent)["never"] for absent in ("leave_out", "remember")
  )
  assert_close(remembered.weighted, left_out.weighted, 1e-6, 1e-7)
  assert_close(remembered.weights, left_out.weights, 1e-6, 1e-7)
  assert_close(remembered.states.method, left_out.states, 1e-6, 1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_no_task_at_all_leaves_the_state_as_it_was(name):
  run = runs_of(name, "remember")["none at a step"]
  before, after = at(run.states, NONE - 1), at(run.states, NONE)
  assert not run.weighted[NONE].any()
  assert not after.weights.any()
  method = before.method._replace(weights=after.method.weights)
  assert_equal(after, before._replace(weights=after.weights, method=method))


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_loss_is_not_remembered(name):
  run = runs_of(name, "remember")["bad"]
  assert_finite(run.states)
  for step in BAD:
    expected = [run.losses[step - 1, 0], run.losses[step, 1]]
    assert run.states.losses[step].tolist() == expected
  assert run.states.seen.all()


@pytest.mark.parametrize("name", NAMES)
def test_no_derivative_reaches_an_absent_loss(name):
  run = runs_of(name, "remember")["alternating"]
  assert not run.slopes[~run.masks].any()
  assert not run.first[~run.masks].any()
  assert_finite((run.slopes, run.weighted))


@pytest.mark.parametrize("name", NAMES)
def test_where_all_tasks_are_there_it_is_the_method_itself(name):
  run, expected = (
    runs_of(name, absent)["filled"] for absent in ("remember", "leave_out")
  )
  # not to the last bit: XLA fuses the two in different ways
  assert_close(run.weighted, expected.weighted)
  assert_close(run.states.method, expected.states)


@pytest.mark.parametrize("name", EVERY)
def test_the_word_is_checked(name):
  for absent in ("forget", None, True):
    with pytest.raises(ValueError, match=f"absent must be .*got {absent!r}"):
      make_loss(name, 2, absent=absent)


@pytest.mark.parametrize("name", EVERY)
def test_the_first_state_can_be_donated(name):
  """No two of its arrays are one."""
  state = make(name, "remember").init(jax.random.key(0))
  pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
  assert len({*pointers}) == len(pointers)


def test_without_a_mask_all_tasks_are_there():
  balancer = balancers.create("ew", num_tasks=2, absent="remember").loss
  assert balancer is not None
  assert balancer.update(jnp.ones(2), balancer.init())[0].tolist() == [1, 1]


def test_a_state_of_the_other_form_is_refused():
  state = make("igbv1", "leave_out").init()
  with pytest.raises(TypeError, match="IGBv1State"):
    make("igbv1", "remember").update(jnp.ones(2), state)
