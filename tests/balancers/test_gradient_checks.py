"""What every gradient balancer is given is checked: gradients, masks, counts, parts."""

import functools
import inspect

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax import balancers
from igb_jax.balancers.methods import METHODS
from tests.balancers.contract import GRADIENT, LOSS
from tests.balancers.small_gradients import GRADS, LOSSES, PARAMS, SHARED, make
from tests.needed_options import needed_options


@pytest.mark.parametrize("name", GRADIENT)
def test_gradients_are_checked_while_tracing(name):
  balancer = make(name)
  state = balancer.init(PARAMS)
  update = jax.jit(balancer.update)
  bad = GRADS | {"b": jnp.zeros((2, 5))}
  with pytest.raises(
    ValueError, match=r"task_grads\['b'\] must have the leading axis 3.*\(2, 5\)"
  ):
    update(bad, state)
  with pytest.raises(ValueError, match=r"leading axis 3, .*got the shape \(\)"):
    update(jnp.zeros(()), state)
  bad = GRADS | {"b": jnp.zeros((3, 3), jnp.int32)}
  with pytest.raises(TypeError, match=r"\['b'\] must hold floating-point.*int32"):
    update(bad, state)
  # one gradient whose first axis happens to be K would pass for K gradients
  params = {"w": jnp.ones((3, 4))}
  state = balancer.init(params)
  with pytest.raises(ValueError, match=r"task_grads\['w'\].*\(3, 3, 4\).*\(3, 4\)"):
    update(params, state, params)


@pytest.mark.parametrize("name", GRADIENT)
def test_containers_of_another_kind_with_the_same_names_pass(name):
  frozen = flax.core.freeze(PARAMS)
  balancer = make(name)
  jax.eval_shape(
    functools.partial(balancer.update, losses=LOSSES),
    GRADS,
    balancer.init(frozen),
    frozen,
  )


@pytest.mark.parametrize("name", GRADIENT)
def test_what_is_shared_is_checked_at_init(name):
  for empty in ({}, [], (), {"a": {}}, None):
    with pytest.raises(ValueError, match="no parameter is shared"):
      make(name).init(empty)
  with pytest.raises(ValueError, match=r"no parameter is shared.*\['b'\]"):
    make(name, shared=lambda path: False).init(PARAMS)


@pytest.mark.parametrize("name", GRADIENT)
def test_num_tasks_is_checked(name):
  for value, error in {0: ValueError, 2.0: TypeError}.items():
    with pytest.raises(error, match=f"num_tasks must be .*, got {value}"):
      balancers.create(name, num_tasks=value, steps_per_epoch=2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", GRADIENT)
def test_masks_are_checked_while_tracing(name):
  balancer = make(name)
  state = balancer.init(PARAMS)
  for mask in ([True, True], True):
    shape = np.shape(mask)
    with pytest.raises(
      ValueError, match=rf"present .*\(3,\).*got \({shape[0] if shape else ''}"
    ):
      balancer.update(GRADS, state, present=jnp.asarray(mask))
  for mask, dtype in (([1, 0, 1], "int32"), ([1.0, 0.0, 1.0], "float32")):
    with pytest.raises(TypeError, match=f"present must hold bools, .* got {dtype}"):
      balancer.update(GRADS, state, present=jnp.asarray(mask))


@pytest.mark.parametrize("name", GRADIENT)
def test_create_makes_it_alone_or_beside_a_loss_balancer(name):
  alone = balancers.create(name, num_tasks=3, steps_per_epoch=2, shared=SHARED)
  assert alone.loss is None
  assert isinstance(alone.gradient, optax.GradientTransformationExtraArgs)
  assert (
    inspect.signature(METHODS[name].constructor).parameters["shared"].default is None
  )
  with pytest.raises(ValueError, match="two gradient balancers"):
    balancers.create(f"{name}+{GRADIENT[0]}", num_tasks=3, steps_per_epoch=2)
  for loss in LOSS:
    needed = needed_options(loss, 3)
    for spec in (f"{loss}+{name}", f"{name} + {loss}"):
      both = balancers.create(spec, num_tasks=3, steps_per_epoch=2, **needed)
      assert isinstance(both.loss, balancers.LossBalancer)
      assert both.gradient is not None
