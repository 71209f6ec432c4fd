"""Every gradient balancer as a part of programs: dtypes, platforms, optax."""

import functools
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax.balancers.methods import METHODS
from tests.balancers.contract import (
  FLOAT32_AND_WHOLE,
  GRADIENT,
  assert_close,
  assert_equal,
  assert_same_form,
  families_first,
  init,
  make_gradient,
  needed_for,
  parameters_of,
)
from tests.balancers.jacobians import NUM_PARAMETERS, sample, solved
from tests.balancers.small_gradients import (
  GRADS,
  LOSSES,
  NUM_TASKS,
  PARAMS,
  SHARED,
  make,
)

# -------------------------------------------------------------------- inside of jit


@pytest.mark.parametrize("name", GRADIENT)
def test_a_step_keeps_the_form_of_the_state_and_lowers_for_every_platform(name):
  balancer = make(name)
  state = init(balancer, PARAMS)
  update = jax.jit(functools.partial(balancer.update, losses=LOSSES))
  traced = update.trace(GRADS, state)
  assert_same_form(traced.out_info[1], state)
  jaxpr = str(traced.jaxpr)
  assert "callback" not in jaxpr
  assert "device_put" not in jaxpr
  platforms = ["cpu", "cuda", "tpu"]
  module = jax.export.export(update, platforms=platforms)(GRADS, state).mlir_module()
  assert "f64" not in module
  for line in module.splitlines():
    if "stablehlo.dot_general" in line:  # the Gramian, the solvers and the sums
      assert "precision = [HIGHEST, HIGHEST]" in line


@pytest.mark.parametrize("name", GRADIENT)
def test_states_are_float32_and_results_have_the_dtypes_of_the_gradients(name):
  dtypes = ["bfloat16", "float16", "float32", "float64"]
  with jax.enable_x64(True):
    params = {dtype: jnp.zeros(20, dtype) for dtype in dtypes}
    grads = {dtype: jnp.ones((NUM_TASKS, 20), dtype) for dtype in dtypes}
    balancer = make(name)
    state = init(balancer, params)
    result, new = jax.eval_shape(
      functools.partial(balancer.update, losses=np.ones(NUM_TASKS, np.float32)),
      grads,
      state,
      params,
    )
    assert {dtype: leaf.dtype.name for dtype, leaf in result.items()} == {
      dtype: dtype for dtype in dtypes
    }
    assert_same_form(new, state)
    assert {leaf.dtype.type for leaf in jax.tree.leaves(new)} <= {*FLOAT32_AND_WHOLE}


@pytest.mark.parametrize("name", GRADIENT)
def test_a_state_survives_flax_serialization(name):
  state = solved(name, 3)["gaussian"].state
  template = init(make(name), jnp.zeros(NUM_PARAMETERS), seed=7)
  data = flax.serialization.to_bytes(state)
  restored = flax.serialization.from_bytes(template, data)
  assert_equal(restored, state)
  assert jax.tree.structure(restored) == jax.tree.structure(template)


def test_parameters_that_are_integers_need_no_buffers():
  params = {"w": jnp.zeros(4), "count": jnp.zeros((), jnp.int32)}
  grads = {"w": jnp.ones((2, 4)), "count": None}
  for name in ("dbmtl", "excess", "moco", "mgda"):
    balancer = make_gradient(name, 2)
    result, _ = balancer.update(grads, balancer.init(params))
    assert result["count"] is None
    assert result["w"].shape == (4,)


# ------------------------------------------------------------------- optax's tools


@pytest.mark.parametrize("name", GRADIENT)
def test_map_params_reaches_what_belongs_to_parameters(name):
  balancer, adam = make(name), optax.adam(0.1)
  parts = make(name, shared=SHARED)
  chained = [
    (optax.chain(balancer, adam), 2),
    (optax.chain(parts, adam), 1),
    (optax.chain(make(name, shared=lambda path: "w" in str(path)), adam), 1),
  ]
  for optimizer, num_shared in chained:
    state: Any = optimizer.init(PARAMS)
    doubled = optax.tree.map_params(optimizer, lambda leaf: leaf + 2.0, state)
    assert jax.tree.structure(doubled) == jax.tree.structure(state)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state, doubled)
    # Adam's two means of every parameter, and the balancer's of what is shared
    own = num_shared if balancer.keeps_grads else 0
    assert sum(jax.tree.leaves(changed[0])) == own
    assert sum(jax.tree.leaves(changed[1])) == 4
    kinds: Any = optax.tree_utils.tree_map_params(
      optimizer,
      lambda _: "parameter",
      state,
      transform_non_params=lambda _: "other",
    )
    assert jax.tree.leaves(kinds[0]).count("parameter") == own


def numbers_of(name: str) -> dict[str, float]:
  """The numbers of a method that are no counts, with their defaults."""
  return {
    key: parameter.default
    for key, parameter in parameters_of(name).items()
    if type(parameter.default) is float
  }


def inject(name: str, numbers: dict[str, float]) -> Any:
  """The method with its numbers in the state, and counts and words static."""
  static = [key for key in parameters_of(name) if key not in numbers]
  constructor = METHODS[name].constructor
  injected = optax.inject_hyperparams(constructor, static_args=static)
  return injected(num_tasks=NUM_TASKS, **needed_for(name), **numbers)


@pytest.mark.parametrize("name", GRADIENT)
def test_numbers_of_a_method_may_be_traced(name):
  numbers = numbers_of(name)
  injected = inject(name, numbers)
  state = injected.init(PARAMS)
  if not numbers:
    assert_equal(state.inner_state, make(name).init(PARAMS))
    return
  update = functools.partial(injected.update, losses=LOSSES)
  result, new = jax.eval_shape(update, GRADS, state, PARAMS)
  assert jax.tree.map(jnp.shape, result) == jax.tree.map(jnp.shape, PARAMS)
  assert_same_form(new.inner_state, state.inner_state)


@pytest.mark.parametrize(
  "name", families_first([name for name in GRADIENT if numbers_of(name)])
)
def test_numbers_that_are_traced_do_the_same(name):
  injected = inject(name, numbers_of(name))
  jacobian = jnp.asarray(sample("gaussian", NUM_TASKS), jnp.float32)
  update = jax.jit(functools.partial(injected.update, losses=LOSSES))
  result, state = update(jacobian, injected.init(jnp.zeros(NUM_PARAMETERS)))
  expected = solved(name, NUM_TASKS)["gaussian"]
  assert_close(result, expected.result, 1e-4)
  assert_close(state.inner_state.weights, expected.state.weights, 1e-4)


@pytest.mark.parametrize("name", GRADIENT)
def test_a_count_that_is_traced_says_what_to_do(name):
  constructor = optax.inject_hyperparams(METHODS[name].constructor)
  injected = constructor(num_tasks=NUM_TASKS, **needed_for(name))
  state = injected.init(PARAMS)  # outside of jit its number is known
  task_grads = GRADS
  with pytest.raises(TypeError, match=r"num_tasks.*static_args"):
    jax.eval_shape(injected.update, task_grads, state, PARAMS)


@pytest.mark.parametrize("name", families_first(GRADIENT))
def test_trains_first_in_a_chain(name):
  features = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
  targets = np.stack(
    [features.sum(1), features[:, 0], 3 * np.sin(features[:, 1])], axis=1
  )
  keys = jax.random.split(jax.random.key(0))
  params = {
    "trunk": 0.5 * jax.random.normal(keys[0], (4, 8)),
    "heads": 0.3 * jax.random.normal(keys[1], (8, NUM_TASKS)),
  }

  def losses_of(params):
    predictions = jnp.tanh(features @ params["trunk"]) @ params["heads"]
    return jnp.mean((predictions - targets) ** 2, axis=0)

  optimizer = optax.chain(make(name), optax.clip_by_global_norm(10.0), optax.adam(0.01))

  def step(carry, _):
    params, state = carry
    grads, losses = jax.jacrev(losses_of)(params), losses_of(params)
    updates, state = optimizer.update(grads, state, params, losses=losses)
    return (optax.apply_updates(params, updates), state), None

  @jax.jit
  def train(params):
    carry = params, optimizer.init(params)
    return jax.lax.scan(step, carry, length=150)[0]

  after, state = train(params)
  before, after = losses_of(params), losses_of(after)
  if name == "krum":  # which follows one task
    before, after = before.sum(), after.sum()
  assert (after < before).all()
  assert state[0].weights.shape == (NUM_TASKS,)
