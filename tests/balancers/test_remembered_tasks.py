"""`absent="remember"`: the latest loss of a task that a batch lacks, in all methods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.tables import LOSS as NAMES
from tests.balancers.tables import having
from tests.small_balancers import small_loss_balancer

STEPS_PER_EPOCH = 4
BALANCING = having("loss", ties_tasks=True)


@functools.cache
def make(name: str, absent: str) -> balancers.LossBalancer:
  return small_loss_balancer(name, 2, STEPS_PER_EPOCH, hidden_sizes=(8,), absent=absent)


@functools.partial(jax.jit, static_argnums=0)
def scan(balancer, losses, masks):
  def step(state, inputs):
    losses, present = inputs
    weighted, state = balancer.update(losses, state, present=present)
    return state, (weighted, state.weights)

  return jax.lax.scan(step, balancer.init(jax.random.key(0)), (losses, masks))


def alternating() -> tuple[np.ndarray, np.ndarray]:
  """40 steps of two tasks, in turn, the one that is absent NaN."""
  generator = np.random.default_rng(0)
  losses = np.exp(generator.normal(size=(40, 2))).astype(np.float32)
  masks = np.arange(40)[:, None] % 2 == np.arange(2)
  losses[~masks] = np.nan
  return losses, masks


def filled(losses: np.ndarray) -> np.ndarray:
  """The latest loss in the place of NaN."""
  losses = losses.copy()
  for step in range(1, len(losses)):
    losses[step] = np.where(np.isnan(losses[step]), losses[step - 1], losses[step])
  return losses


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_all_tasks_with_their_latest_losses(name):
  losses, masks = alternating()
  losses, masks = losses[1:], masks[1:]
  losses[0] = [1.0, 2.0]  # both are there once
  masks[0] = True
  weighted, weights = scan(make(name, "remember"), losses, masks)[1]
  expected, expected_weights = scan(
    make(name, "leave_out"), filled(losses), np.ones_like(masks)
  )[1]
  np.testing.assert_allclose(weights, np.where(masks, expected_weights, 0), 1e-5)
  np.testing.assert_allclose(weighted, np.where(masks, expected, 0), 1e-5, 1e-6)


@pytest.mark.parametrize("name", BALANCING)
def test_alternating_tasks_are_balanced_only_where_they_are_remembered(name):
  losses, masks = alternating()
  left_out, remembered = (
    np.asarray(scan(make(name, absent), losses, masks)[1][1])[masks]
    for absent in ("leave_out", "remember")
  )
  np.testing.assert_allclose(left_out, 1, 1e-6)
  late = remembered[3 * STEPS_PER_EPOCH :]
  assert np.abs(late - 1).max() > 0.05
  assert ((late > 0) & (late < 2)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_task_that_never_was_there_is_left_out(name):
  losses = np.float32([[0.5, np.nan]] * 12)
  masks = np.tile([True, False], (12, 1))
  left_out, remembered = (
    scan(make(name, absent), losses, masks)[1] for absent in ("leave_out", "remember")
  )
  jax.tree.map(np.testing.assert_array_equal, remembered, left_out)


@pytest.mark.parametrize("name", NAMES)
def test_no_task_at_all_leaves_the_state_as_it_was(name):
  balancer = make(name, "remember")
  losses, masks = alternating()
  state, _ = scan(balancer, losses, masks)
  weighted, after = jax.jit(balancer.update)(
    jnp.full(2, jnp.nan), state, present=jnp.zeros(2, bool)
  )
  assert weighted.tolist() == after.weights.tolist() == [0, 0]
  before = state._replace(weights=after.weights)
  before = before._replace(method=state.method._replace(weights=after.method.weights))
  jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_loss_is_not_remembered_and_no_derivative_reaches_an_absent_one(name):
  balancer = make(name, "remember")
  state = balancer.init(jax.random.key(0))
  for bad in (np.nan, np.inf, 0.0, -1.0):
    _, state = balancer.update(jnp.array([2.0, 3.0]), state)
    _, state = balancer.update(jnp.array([bad, 3.0]), state)
    assert state.losses.tolist() == [2, 3]
    assert state.seen.all()

  def weigh(losses):
    mask = jnp.array([False, True])
    return balancer.update(losses, state, present=mask)[0].sum()

  derivatives = jax.grad(weigh)(jnp.array([np.nan, 3.0]))
  assert derivatives[0] == 0
  assert np.isfinite(derivatives[1])


@pytest.mark.parametrize("name", NAMES)
def test_without_a_mask_it_is_the_method_itself(name):
  losses, masks = filled(alternating()[0])[1:], np.ones((39, 2), bool)
  results = [
    scan(make(name, each), losses, masks) for each in ("leave_out", "remember")
  ]
  # not to the last bit: XLA fuses the two in different ways
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, results[1][1], results[0][1])
  jax.tree.map(close, results[1][0].method, results[0][0])
  plain = balancers.create("ew", num_tasks=2, absent="remember").loss
  assert plain is not None
  assert plain.update(jnp.ones(2), plain.init())[0].tolist() == [1, 1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("absent", ["forget", None, True])
def test_the_word_is_checked(name, absent):
  with pytest.raises(ValueError, match="absent must be 'leave_out' or 'remember', got"):
    small_loss_balancer(name, 2, 4, absent=absent)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_state_can_be_donated(name):
  balancer = make(name, "remember")
  step = jax.jit(balancer.update, donate_argnums=1)
  _, state = step(jnp.ones(2), balancer.init(jax.random.key(0)))
  assert np.isfinite(state.weights).all()


def test_a_state_of_the_other_form_is_refused():
  state = make("igbv1", "leave_out").init()
  with pytest.raises(TypeError, match=r"needs the state of its own init, got IGBv1St"):
    make("igbv1", "remember").update(jnp.ones(2), state)
