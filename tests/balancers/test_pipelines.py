"""Gradient balancers in optax pipelines, one of each family of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.experimental
import pytest
from flax import nnx

from igb_jax import value_and_task_grads
from tests.balancers.contract import (
  assert_close,
  init,
  make_gradient,
  one_of_each_family,
  slow_but,
)

NAMES = one_of_each_family()
# optax treats all alike: one with weights, and one with memory of its own
FAST_AND_SLOW = slow_but(["cagrad", "gradvac"], NAMES)
NUM_TASKS = 3
X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
TARGETS = np.stack([X.sum(1), X[:, 0], 3 * np.sin(X[:, 1])], axis=1)


def make(name: str, **options):
  return make_gradient(name, NUM_TASKS, **options)


def predict(params, x):
  return jnp.tanh(x @ params["trunk"]) @ params["heads"]


def losses_of(params, x=X, targets=TARGETS):
  return jnp.mean((predict(params, x) - targets) ** 2, axis=0)


def initial_params():
  keys = jax.random.split(jax.random.key(0))
  return {
    "trunk": 0.5 * jax.random.normal(keys[0], (4, 8)),
    "heads": 0.3 * jax.random.normal(keys[1], (8, NUM_TASKS)),
  }


def train(optimizer, params, losses_of, num_steps: int = 150):
  """Losses before and after some steps on task gradients, in one scan."""

  def step(carry, _):
    params, state = carry
    _, task_grads = value_and_task_grads(losses_of)(params)
    updates, state = optimizer.update(task_grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  @jax.jit
  def run(params):
    carry = params, optimizer.init(params)
    return jax.lax.scan(step, carry, length=num_steps)[0]

  final, state = run(params)
  return np.asarray(losses_of(params)), np.asarray(losses_of(final)), state


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_equals_balancing_by_hand(name):
  params = initial_params()
  _, task_grads = jax.jit(value_and_task_grads(losses_of))(params)
  chain = optax.chain(make(name), optax.adam(0.01))
  updates, _ = jax.jit(chain.update)(task_grads, chain.init(params), params)

  balancer, adam = make(name), optax.adam(0.01)
  gradient, _ = jax.jit(balancer.update)(task_grads, init(balancer, params), params)
  expected, _ = adam.update(gradient, adam.init(params), params)
  assert_close(updates, expected, 1e-5)


@pytest.mark.parametrize("name", FAST_AND_SLOW)
def test_under_multi_transform(name):
  """The trunk's gradients are balanced; the heads' are added up."""
  add_up = optax.stateless(lambda grads, _: jax.tree.map(lambda g: g.sum(0), grads))
  optimizer = optax.multi_transform(
    {
      "shared": optax.chain(make(name), optax.adam(0.01)),
      "own": optax.chain(add_up, optax.adam(0.01)),
    },
    {"trunk": "shared", "heads": "own"},
  )
  params = initial_params()
  before, after, _ = train(optimizer, params, losses_of)
  assert (after < before).all()
  # the balancer saw the trunk alone
  _, task_grads = jax.jit(value_and_task_grads(losses_of))(params)
  _, first = jax.jit(optimizer.update)(task_grads, optimizer.init(params), params)
  alone = make(name)
  _, expected = jax.jit(alone.update)(task_grads["trunk"], init(alone, params["trunk"]))
  balancer_state = first.inner_states["shared"].inner_state[0]
  np.testing.assert_allclose(balancer_state.weights, expected.weights, 1e-5)
  # and `map_params` goes through it
  doubled = optax.tree.map_params(optimizer, lambda leaf: leaf + 2.0, first)
  assert jax.tree.structure(doubled) == jax.tree.structure(first)


@pytest.mark.parametrize("name", FAST_AND_SLOW)
def test_with_multi_steps_behind_it(name):
  """What optax accumulates is then the balanced gradient."""
  optimizer = optax.chain(
    make(name), optax.MultiSteps(optax.adam(0.02), 4).gradient_transformation()
  )
  before, after, state = train(optimizer, initial_params(), losses_of)
  assert (after < before).all()
  assert state[1].gradient_step == 150 // 4


@pytest.mark.parametrize("name", FAST_AND_SLOW)
def test_under_multi_steps(name):
  """Task gradients are accumulated, and balanced once they are complete.

  optax makes its accumulator like the parameters; here it must be like task gradients.
  """
  num_steps = 4
  params = initial_params()
  inner = optax.chain(make(name), optax.sgd(0.1))
  optimizer = optax.MultiSteps(inner, num_steps)
  state = optimizer.init(params)
  state = state._replace(
    acc_grads=jax.tree.map(
      lambda leaf: jnp.zeros((NUM_TASKS, *leaf.shape)), state.acc_grads
    )
  )
  update = jax.jit(optimizer.update)
  task_grads_of = jax.jit(
    lambda params, x, targets: value_and_task_grads(
      lambda params: losses_of(params, x, targets)
    )(params)[1]
  )
  parts, updates = [], None
  batches = zip(np.split(X, num_steps), np.split(TARGETS, num_steps), strict=True)
  for x, targets in batches:
    task_grads = task_grads_of(params, x, targets)
    parts.append(task_grads)
    updates, state = update(task_grads, state, params)
  assert state.gradient_step == 1
  mean = jax.tree.map(lambda *leaves: sum(leaves) / num_steps, *parts)
  expected, _ = jax.jit(inner.update)(mean, inner.init(params), params)
  assert_close(updates, expected, 1e-3, 1e-5)


@pytest.mark.parametrize("name", FAST_AND_SLOW)
def test_with_apply_if_finite_behind_it(name):
  optimizer = optax.chain(make(name), optax.apply_if_finite(optax.adam(0.01), 3))
  params = initial_params()
  state = optimizer.init(params)
  _, good = jax.jit(value_and_task_grads(losses_of))(params)
  bad = {"trunk": good["trunk"].at[1, 0, 0].set(jnp.nan), "heads": good["heads"]}
  update = jax.jit(optimizer.update)
  updates, state = update(bad, state, params)
  assert not any(leaf.any() for leaf in jax.tree.leaves(updates))
  assert state[1].total_notfinite == 1
  updates, state = update(good, state, params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
  assert any(leaf.any() for leaf in jax.tree.leaves(updates))
  assert state[1].last_finite


@pytest.mark.parametrize("name", FAST_AND_SLOW)
def test_as_the_aggregator_of_optax(name):
  aggregating = optax.experimental.aggregating
  optimizer = aggregating.process(optax.identity(), make(name), optax.adam(0.01))
  before, after, state = train(optimizer, initial_params(), losses_of)
  assert (after < before).all()
  assert state[1].weights.shape == (NUM_TASKS,)


@pytest.mark.parametrize("name", FAST_AND_SLOW)
def test_a_state_survives_orbax(name, tmp_path):
  ocp = pytest.importorskip("orbax.checkpoint")
  params = initial_params()
  balancer = make(name)
  _, task_grads = jax.jit(value_and_task_grads(losses_of))(params)
  template = init(balancer, params)
  _, state = jax.jit(balancer.update)(task_grads, template)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "state", state)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / "state", template)
  jax.tree.map(np.testing.assert_array_equal, restored, state)


# --------------------------------------------------------- parameters of any library


class Linen(nn.Module):
  """A small net with a trunk and heads."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(NUM_TASKS, name="heads")(nn.tanh(nn.Dense(8, name="trunk")(x)))


class Nnx(nnx.Module):
  """The same in NNX."""

  def __init__(self, rngs: nnx.Rngs):
    self.trunk = nnx.Linear(4, 8, rngs=rngs)
    self.heads = nnx.Linear(8, NUM_TASKS, rngs=rngs)

  def __call__(self, x):
    return self.heads(nnx.tanh(self.trunk(x)))


def mean_squares(predictions):
  return jnp.mean((predictions - TARGETS) ** 2, axis=0)


def linen_model():
  net = Linen()
  params = net.init(jax.random.key(0), X)["params"]
  return params, lambda params: mean_squares(net.apply({"params": params}, X))


def nnx_model():
  graph, params = nnx.split(Nnx(nnx.Rngs(0)))
  return params, lambda params: mean_squares(nnx.merge(graph, params)(X))


def equinox_model():
  eqx = pytest.importorskip("equinox")
  keys = jax.random.split(jax.random.key(0))
  layers = eqx.nn.Linear(4, 8, key=keys[0]), eqx.nn.Linear(8, NUM_TASKS, key=keys[1])
  model = dict(zip(("trunk", "heads"), layers, strict=True))
  params, static = eqx.partition(model, eqx.is_inexact_array)

  def predictions(params):
    net = eqx.combine(params, static)
    return jax.vmap(lambda x: net["heads"](jnp.tanh(net["trunk"](x))))(jnp.asarray(X))

  return params, lambda params: mean_squares(predictions(params))


MODELS = {"linen": linen_model, "nnx": nnx_model, "equinox": equinox_model}


@pytest.mark.parametrize("library", MODELS)
@pytest.mark.parametrize(
  "name",
  slow_but(NAMES[:1], NAMES),
)
def test_trains_parameters_of_every_library(name, library):
  params, losses_of = MODELS[library]()
  balancer = make(name, shared=lambda path: "trunk" in jax.tree_util.keystr(path))
  before, after, _ = train(optax.chain(balancer, optax.adam(0.01)), params, losses_of)
  assert (after < before).all()
  # the trunk alone is in the Gramian
  _, task_grads = jax.jit(value_and_task_grads(losses_of))(params)
  trunk = [
    leaf.reshape(NUM_TASKS, -1)
    for path, leaf in jax.tree_util.tree_leaves_with_path(task_grads)
    if "trunk" in jax.tree_util.keystr(path)
  ]
  assert trunk
  flat = np.concatenate(trunk, axis=1)
  units = flat / np.linalg.norm(flat, axis=1, keepdims=True)
  _, first = jax.jit(balancer.update)(task_grads, init(balancer, params))
  np.testing.assert_allclose(first.gramian.cosines, units @ units.T, 1e-3, 1e-5)
