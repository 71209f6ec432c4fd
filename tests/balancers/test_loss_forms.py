"""Every loss balancer as a part of programs: dtypes, platforms, storage, errors."""

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import (
  FLOAT32_AND_WHOLE,
  LOSS,
  assert_equal,
  assert_finite,
  assert_same_form,
  families_first,
  loss_traits,
)
from tests.balancers.losses import PLAIN, make_loss, runs_of
from tests.needed_options import needed_options

NUM_TASKS = 3


@functools.cache
def make(name: str) -> balancers.LossBalancer:
  return make_loss(name, NUM_TASKS)


@pytest.mark.parametrize("name", LOSS)
def test_a_step_keeps_the_form_of_the_state_and_lowers_for_every_platform(name):
  state = make(name).init(jax.random.key(0))
  update = jax.jit(make(name).update)
  traced = update.trace(jnp.ones(NUM_TASKS), state)
  assert_same_form(traced.out_info[1], state)
  jaxpr = str(traced.jaxpr)
  assert "callback" not in jaxpr
  assert "device_put" not in jaxpr
  exported = jax.export.export(update, platforms=["cpu", "cuda", "tpu"])
  assert "f64" not in exported(jnp.ones(NUM_TASKS), state).mlir_module()


@pytest.mark.parametrize("name", LOSS)
def test_a_state_survives_flax_serialization(name):
  state = runs_of(name, NUM_TASKS)[PLAIN].final
  template = make(name).init(jax.random.key(1))
  data = flax.serialization.to_bytes(state)
  restored = flax.serialization.from_bytes(template, data)
  assert_equal(restored, state)
  assert type(restored) is type(state)


@pytest.mark.parametrize("name", LOSS)
def test_states_are_float32_where_float64_is_enabled(name):
  with jax.enable_x64(True):
    balancer = make_loss(name, 2, steps_per_epoch=1)
    state = balancer.init(jax.random.key(0))
    for dtype in (np.float32, np.float64):
      weighted, new = jax.eval_shape(balancer.update, np.ones(2, dtype), state)
      assert weighted.dtype == dtype
      assert_same_form(new, state)
  assert {leaf.dtype.type for leaf in jax.tree.leaves(state)} <= {*FLOAT32_AND_WHOLE}


@pytest.mark.parametrize("name", families_first(LOSS))
def test_losses_in_float64_keep_their_digits(name):
  with jax.enable_x64(True):
    balancer = make_loss(name, 2, steps_per_epoch=1)
    state = balancer.init(jax.random.key(0))
    update = jax.jit(balancer.update)
    for losses in ([1.0, 1.0], [1.0, 1.0], [1e-50, 1e39]):
      values = jnp.array(losses, jnp.float64)
      weighted, state = update(values, state)
    assert weighted.dtype == jnp.float64
    assert_finite((weighted, state))
    if loss_traits(name).normalised:
      of_losses = np.log(losses) if loss_traits(name).takes_log else np.array(losses)
      weights = np.asarray(state.weights, np.float64)
      np.testing.assert_allclose(weighted, weights * of_losses, 1e-12)


# ------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", LOSS)
def test_losses_and_masks_are_checked_while_tracing(name):
  state = make(name).init(jax.random.key(0))
  update = jax.jit(make(name).update)
  for losses in (jnp.ones(2), jnp.ones((3, 1)), jnp.ones(()), [1.0, 2.0]):
    with pytest.raises(ValueError, match=r"shape \(3,\), .*got"):
      update(jnp.asarray(losses), state)
  for kind in (int, bool, complex):
    with pytest.raises(TypeError, match="floating-point numbers, got"):
      update(np.ones(3, kind), state)
  losses = jnp.ones(3)
  for mask, shape in (([True, True], r"\(2,\)"), (True, r"\(\)")):
    with pytest.raises(ValueError, match=rf"present .*\(3,\).*got {shape}"):
      update(losses, state, present=jnp.asarray(mask))
  for mask, dtype in (([1, 0, 1], "int32"), ([1.0, 0.0, 1.0], "float32")):
    with pytest.raises(TypeError, match=f"present must hold bools, .* got {dtype}"):
      update(losses, state, present=jnp.asarray(mask))


@pytest.mark.parametrize("name", LOSS)
def test_num_tasks_is_checked(name):
  for value in (0, -3):
    with pytest.raises(ValueError, match=f"num_tasks must be at least 1, got {value}"):
      make_loss(name, value)
  for value in (2.0, None, True):
    with pytest.raises(TypeError, match=f"num_tasks must be an integer, got {value}"):
      balancers.create(
        name,
        num_tasks=value,  # pyright: ignore[reportArgumentType]
        steps_per_epoch=3,
        **needed_options(name, 2),
      )
  state = make_loss(name, int(np.int64(2))).init(jax.random.key(0))
  assert state.weights.shape == (2,)


@pytest.mark.parametrize("name", LOSS)
def test_create_makes_it_alone(name):
  needed = needed_options(name, 3)
  balancer = balancers.create(name, num_tasks=3, steps_per_epoch=2, **needed)
  assert isinstance(balancer.loss, balancers.LossBalancer)
  assert balancer.gradient is None
