"""A loss balancer that asks for the losses after the step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from igb_jax.balancers import Balancer
from igb_jax.balancers.loss.base import loss_balancer
from igb_jax.training.step import init_state, make_train_step
from tests.training.problem import losses_of


class Seen(NamedTuple):
  weights: jax.Array
  before: jax.Array
  after: jax.Array


def recording(**options) -> Any:
  """Equal weights, and a state that has the losses before and after each step."""

  def init(key=None):
    del key
    return Seen(*(jnp.ones(3) for _ in range(3)))

  def update(losses, state, present, **extra):
    del present, extra
    return losses, state._replace(before=losses)

  def observe(losses, state, present):
    del present
    return state._replace(after=losses)

  return loss_balancer(3, init, update, observe=observe, **options)


def run(balancer, **options):
  """The state after two steps, and the batch of the last."""
  optimizer = optax.sgd(0.1)
  state = init_state(
    {"x": jnp.zeros(2)},
    balancer=Balancer(balancer, None),
    optimizer=optimizer,
    plateau=optax.contrib.reduce_on_plateau(),
    key=jax.random.key(0),
  )
  step = make_train_step(
    options.pop("losses_of", losses_of), Balancer(balancer, None), optimizer, **options
  )
  for batch in (jnp.full(3, 0.5), jnp.full(3, 0.1)):
    state = step(state, batch)
  return state, batch


def test_the_losses_after_a_step_are_those_of_the_same_batch():
  state, batch = run(recording())
  seen = state.balancer.loss
  np.testing.assert_allclose(seen.after, losses_of(state.params, batch), 1e-6)
  assert (seen.after != seen.before).all()


def test_they_go_through_a_trunk_and_leave_variables_as_they_are():
  state, batch = run(
    recording(),
    losses_of=lambda params, x, batch: losses_of({"x": x}, batch),
    trunk=lambda params, batch: params["x"],
  )
  np.testing.assert_allclose(
    state.balancer.loss.after, losses_of(state.params, batch), 1e-6
  )


def test_a_balancer_that_remembers_observes_too():
  state, batch = run(recording(absent="remember"))
  np.testing.assert_allclose(
    state.balancer.loss.method.after, losses_of(state.params, batch), 1e-6
  )


@pytest.mark.parametrize("present", [(True, False, True), (False, False, False)])
def test_a_task_that_is_absent_is_not_observed(present):
  balancer = recording()
  state = balancer.init()
  losses = jnp.array([2.0, jnp.nan, 3.0])
  new = balancer.observe(losses, state, present=jnp.array(present))
  expected = [2, 1, 3] if any(present) else [1, 1, 1]
  np.testing.assert_array_equal(new.after, expected)
