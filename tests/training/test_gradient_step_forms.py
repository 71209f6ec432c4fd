"""The training step with a gradient balancer as a program: stacks, traces, checks."""

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest

from igb_jax import balancers
from igb_jax.training.step import init_state, make_train_step

from .gradient_problem import (
  BATCH,
  FAMILIES,
  SHARED,
  compiled,
  initial_params,
  losses_of,
  make,
)


def test_the_branch_of_held_weights_stacks_no_gradients():
  step, state = make("nashmtl", "update_every=4")

  def conditionals(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == "cond":
        yield equation
      for value in equation.params.values():
        if hasattr(value, "jaxpr"):
          yield from conditionals(value.jaxpr)

  stacks = [  # gradients of the shared parameters f32[4, 8] for three tasks
    sorted("f32[3,4,8]" in str(branch) for branch in equation.params["branches"])
    for equation in conditionals(jax.make_jaxpr(step)(state, BATCH).jaxpr)
  ]
  assert [False, True] in stacks


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradients_of_the_heads_are_not_stacked(name):
  step, state = make(name)
  text = str(jax.make_jaxpr(step)(state, BATCH))
  assert "f32[3,4,8]" in text  # of the shared parameters they are
  assert "f32[3,8,3]" not in text


@pytest.mark.parametrize("spec", [*FAMILIES, "igbv2+mgda"])
def test_one_trace_and_nothing_leaves_the_device(spec):
  step, init = compiled(spec)
  state = init()
  for _ in range(3):
    state = step(state, jnp.asarray(BATCH))
  assert step._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]
  batch = jnp.asarray(BATCH)
  with jax.transfer_guard("disallow"):
    state = step(state, batch)
  assert "callback" not in str(jax.make_jaxpr(step)(state, batch))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_one_trace_where_float64_is_enabled(name):
  with jax.enable_x64(True):
    step, init = compiled(f"ew+{name}")
    state = init()
    for _ in range(2):
      state = step(state, BATCH)
    assert step._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.parametrize("spec", [*FAMILIES, "nashmtl", "igbv2+nashmtl"])
def test_lowers_for_every_platform(spec):
  step, state = make(spec, *(["update_every=4"] if "nashmtl" in spec else []))
  platforms = ["cpu", "cuda", "tpu"]
  exported = jax.export.export(step, platforms=platforms)(state, jnp.asarray(BATCH))
  assert "f64" not in exported.mlir_module()


def init(balancer, params):
  return init_state(
    params,
    balancer=balancer,
    optimizer=optax.sgd(0.1),
    plateau=optax.contrib.reduce_on_plateau(),
    key=jax.random.key(0),
  )


def test_what_the_step_needs_is_checked():
  alone = balancers.create("mgda", num_tasks=3, shared=SHARED)
  with pytest.raises(ValueError, match=r"needs a loss balancer; .* balancers.equal"):
    init(alone, initial_params())
  with pytest.raises(ValueError, match="needs a loss balancer"):
    make_train_step(losses_of, alone, optax.sgd(0.1))
  balancer = alone._replace(loss=balancers.equal(3))
  with pytest.raises(ValueError, match=r"no parameter is at \['heads'\], \['shared'\]"):
    init(balancer, {"x": jnp.zeros(2)})
