"""Errors for what users pass by mistake, and what is accepted instead of an error."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict

from igb_jax import balancers, value_and_task_grads

PARAMS = {"trunk": {"kernel": jnp.ones(3)}, "heads": {"bias": jnp.ones(2)}}


def test_a_whole_balancer_in_a_chain_is_told_of_its_gradient_part():
  balancer = balancers.create("mgda", num_tasks=2)
  chain = optax.chain(balancer, optax.sgd(0.1))
  task_grads = {"w": jnp.ones((2, 3))}
  with pytest.raises(AttributeError, match=r"no update.* \.gradient into optax\.chain"):
    chain.update(task_grads, chain.init({"w": jnp.ones(3)}))
  assert balancer.gradient is not None
  chain = optax.chain(balancer.gradient, optax.sgd(0.1))
  updates, _ = chain.update(task_grads, chain.init({"w": jnp.ones(3)}))
  assert jax.tree.map(jnp.shape, updates) == {"w": (3,)}
  with pytest.raises(AttributeError, match=r"\.loss before the sum"):
    balancers.create("uw", num_tasks=2).update  # noqa: B018


# ------------------------------------------------------------ whole models as params


def test_a_whole_equinox_model_is_told_of_partition():
  model = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
  with pytest.raises(
    TypeError,
    match=r"argument 0\.activation.* floating-point .*, got custom_jvp; .*"
    r"params, static = eqx\.partition\(model, eqx\.is_inexact_array\)",
  ):
    value_and_task_grads(lambda model, x: model(x))(model, jnp.ones(2))


def test_the_parts_that_the_message_names_can_be_differentiated():
  model = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
  params, static = eqx.partition(model, eqx.is_inexact_array)
  losses, grads = value_and_task_grads(
    lambda params, x: eqx.combine(params, static)(x)
  )(params, jnp.ones(2))
  np.testing.assert_allclose(losses, model(jnp.ones(2)), rtol=1e-6)
  assert grads.layers[0].weight.shape == (2, 4, 2)


def test_a_whole_nnx_model_is_told_of_split():
  model = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
  with pytest.raises(TypeError, match=r"got uint32; .*nnx\.split\(model, nnx\.Param"):
    value_and_task_grads(lambda model, x: model(x))(model, jnp.ones(2))


def test_a_leaf_that_is_no_array_is_named():
  with pytest.raises(TypeError, match=r"argument 1\['name'\].*, got str; "):
    value_and_task_grads(lambda x, params: params["a"], 1)(
      0.0, {"a": jnp.ones(2), "name": "linear"}
    )


# ------------------------------------------------------------------ a dict of losses

DICT_OF_LOSSES = {"depth": jnp.float32(1.0), "normal": jnp.float32(2.0)}


@pytest.mark.parametrize("container", [dict, FrozenDict])
def test_a_loss_balancer_says_how_to_stack_a_dict(container):
  balancer = balancers.uncertainty_weighting(2)
  with pytest.raises(
    TypeError,
    match=rf"losses must be one array .*, got {container.__name__} with the keys "
    r"'depth', 'normal'; stack them with jnp\.stack\(list\(losses\.values\(\)\)\)",
  ):
    balancer.update(container(DICT_OF_LOSSES), balancer.init())


@pytest.mark.parametrize("has_aux", [False, True])
@pytest.mark.parametrize(
  ("container", "advice"),
  [
    (dict, r"got dict; stack them with jnp\.stack\(list\(losses\.values\(\)\)\)"),
    (FrozenDict, r"got FrozenDict; stack them with jnp\.stack\(list\(losses\.val"),
    (lambda d: list(d.values()), r"got list; stack them with jnp\.stack\(losses\)"),
    (lambda d: tuple(d.values()), r"got tuple; stack them with jnp\.stack\(losses\)"),
  ],
)
def test_task_grads_say_how_to_stack_what_fun_returns(container, advice, has_aux):
  def fun(x):
    losses = container({"a": x, "b": 2 * x})
    return (losses, None) if has_aux else losses

  with pytest.raises(TypeError, match=f"fun must return one array of losses, {advice}"):
    value_and_task_grads(fun, has_aux=has_aux)(jnp.float32(1.0))


def test_stacked_as_the_messages_say():
  balancer = balancers.equal(2)
  losses = jnp.stack(list(DICT_OF_LOSSES.values()))
  weighted, _ = balancer.update(losses, balancer.init())
  np.testing.assert_array_equal(weighted, [1.0, 2.0])


# ---------------------------------------------------------------- shared, of any type


def combined(params, shared):
  """What CAGrad makes of two task gradients of such parameters."""
  balancer = balancers.cagrad(2, shared=shared)
  grads = jax.tree.map(lambda x: jnp.stack([x, -3 * x]), params)
  gradient, _ = balancer.update(grads, balancer.init(params))
  assert jax.tree.structure(gradient) == jax.tree.structure(params)
  return jax.tree.leaves(gradient)


SHARED = {"trunk": True, "heads": {"bias": False}}


@pytest.mark.parametrize(
  ("params", "shared"),
  [
    (FrozenDict(PARAMS), SHARED),
    (PARAMS, FrozenDict(SHARED)),
    (FrozenDict(PARAMS), {"trunk": {"kernel": True}, "heads": False}),
    (nnx.State(PARAMS), SHARED),
  ],
)
def test_shared_is_a_dict_where_the_parameters_are_another_mapping(params, shared):
  for found, expected in zip(
    combined(params, shared), combined(PARAMS, SHARED), strict=True
  ):
    np.testing.assert_array_equal(found, expected)


def test_flags_go_by_name_and_not_by_order():
  class Ordered(dict):
    """A mapping whose leaves come in the order in which they were added."""

  jax.tree_util.register_pytree_with_keys(
    Ordered,
    lambda d: ([(jax.tree_util.DictKey(k), v) for k, v in d.items()], tuple(d)),
    lambda keys, values: Ordered(zip(keys, values, strict=True)),
  )
  trunk, heads = combined(Ordered(PARAMS), SHARED)
  expected_heads, expected_trunk = combined(PARAMS, SHARED)
  np.testing.assert_array_equal(trunk, expected_trunk)
  np.testing.assert_array_equal(heads, expected_heads)


@pytest.mark.parametrize(
  ("shared", "reason"),
  [
    ({"trunk": True}, r"it has nothing for \['heads'\]\['bias'\]"),
    (
      {"trunk": True, "head": False},
      r"it has nothing for \['heads'\]\['bias'\]; no parameter is at \['head'\]",
    ),
    ({**SHARED, "norm": True}, r"no parameter is at \['norm'\]"),
  ],
)
@pytest.mark.parametrize("container", [dict, FrozenDict])
def test_shared_that_does_not_fit_says_where(shared, reason, container):
  with pytest.raises(ValueError, match=rf"does not fit: {reason}\.$"):
    combined(container(PARAMS), shared)
