"""Gradient balancers in optax pipelines, and with parameters of every library."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.experimental
import pytest
from flax import nnx

from igb_jax import balancers, value_and_task_grads

NAMES = [name for name, kind in balancers.names().items() if kind == "gradient"]
NUM_TASKS = 3
X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
TARGETS = np.stack([X.sum(1), X[:, 0], 3 * np.sin(X[:, 1])], axis=1)


def make(name: str, **options) -> optax.GradientTransformationExtraArgs:
  balancer = balancers.create(name, num_tasks=NUM_TASKS, **options).gradient
  assert balancer is not None
  return balancer


def predict(params, x):
  return jnp.tanh(x @ params["trunk"]) @ params["heads"]


def losses_of(params, x=X):
  return jnp.mean((predict(params, x) - TARGETS) ** 2, axis=0)


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
    (params, state), _ = jax.lax.scan(step, carry, length=num_steps)
    return params, state

  final, state = run(params)
  return np.asarray(losses_of(params)), np.asarray(losses_of(final)), state


# ---------------------------------------------------------------------- pipelines


@pytest.mark.parametrize("name", NAMES)
def test_first_in_a_chain(name):
  optimizer = optax.chain(make(name), optax.clip_by_global_norm(10.0), optax.adam(0.01))
  before, after, state = train(optimizer, initial_params(), losses_of)
  assert (after < before).all()
  assert state[0].weights.shape == (NUM_TASKS,)


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_equals_balancing_by_hand(name):
  params = initial_params()
  _, task_grads = value_and_task_grads(losses_of)(params)
  chain = optax.chain(make(name), optax.adam(0.01))
  updates, _ = chain.update(task_grads, chain.init(params), params)

  balancer, adam = make(name), optax.adam(0.01)
  gradient, _ = balancer.update(task_grads, balancer.init(params), params)
  expected, _ = adam.update(gradient, adam.init(params), params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), updates, expected)


@pytest.mark.parametrize("name", NAMES)
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
  _, task_grads = value_and_task_grads(losses_of)(params)
  _, first = optimizer.update(task_grads, optimizer.init(params), params)
  alone = make(name)
  _, expected = alone.update(task_grads["trunk"], alone.init(params["trunk"]))
  balancer_state = first.inner_states["shared"].inner_state[0]
  np.testing.assert_allclose(balancer_state.weights, expected.weights, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_with_multi_steps_behind_it(name):
  """What optax accumulates is then the balanced gradient."""
  optimizer = optax.chain(make(name), optax.MultiSteps(optax.adam(0.02), 4))
  before, after, state = train(optimizer, initial_params(), losses_of)
  assert (after < before).all()
  assert state[1].gradient_step == 150 // 4


@pytest.mark.parametrize("name", NAMES)
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
  parts = []
  batches = zip(np.split(X, num_steps), np.split(TARGETS, num_steps), strict=True)
  for x, targets in batches:

    def part_losses(params, x=x, targets=targets):
      return jnp.mean((predict(params, x) - targets) ** 2, axis=0)

    _, task_grads = value_and_task_grads(part_losses)(params)
    parts.append(task_grads)
    updates, state = update(task_grads, state, params)
  assert state.gradient_step == 1
  mean = jax.tree.map(lambda *leaves: sum(leaves) / num_steps, *parts)
  expected, _ = inner.update(mean, inner.init(params), params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-5), updates, expected
  )


@pytest.mark.parametrize("name", NAMES)
def test_with_apply_if_finite_behind_it(name):
  optimizer = optax.chain(make(name), optax.apply_if_finite(optax.adam(0.01), 3))
  params = initial_params()
  state = optimizer.init(params)
  _, good = value_and_task_grads(losses_of)(params)
  bad = {"trunk": good["trunk"].at[1, 0, 0].set(jnp.nan), "heads": good["heads"]}
  update = jax.jit(optimizer.update)
  updates, state = update(bad, state, params)
  assert not any(leaf.any() for leaf in jax.tree.leaves(updates))
  assert state[1].total_notfinite == 1
  updates, state = update(good, state, params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
  assert any(leaf.any() for leaf in jax.tree.leaves(updates))
  assert state[1].last_finite


@pytest.mark.parametrize("name", NAMES)
def test_as_the_aggregator_of_optax(name):
  aggregating = optax.experimental.aggregating
  optimizer = aggregating.process(optax.identity(), make(name), optax.adam(0.01))
  before, after, state = train(optimizer, initial_params(), losses_of)
  assert (after < before).all()
  assert state[1].weights.shape == (NUM_TASKS,)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_extra_arguments_are_ignored(name):
  params = initial_params()
  _, task_grads = value_and_task_grads(losses_of)(params)
  chain = optax.chain(make(name), optax.sgd(0.1))
  plain, _ = chain.update(task_grads, chain.init(params), params)
  extra, _ = chain.update(task_grads, chain.init(params), params, value=1.0, other="x")
  jax.tree.map(np.testing.assert_array_equal, plain, extra)


def test_nash_takes_one_backward_pass_between_updates_in_a_users_step():
  optimizer = optax.chain(
    balancers.nash_mtl(NUM_TASKS, update_every=5), optax.sgd(0.05)
  )

  def step(carry, _):
    params, state = carry
    nash_state = state[0]

    def every_task():
      _, task_grads = value_and_task_grads(losses_of)(params)
      return optimizer.update(task_grads, state, params)

    def held():
      gradient = jax.grad(lambda p: nash_state.weights @ losses_of(p))(params)
      return optimizer.update(gradient, state, params, combined=True)

    updates, state = jax.lax.cond(nash_state.steps_left == 0, every_task, held)
    return (optax.apply_updates(params, updates), state), None

  def always(carry, _):
    params, state = carry
    _, task_grads = value_and_task_grads(losses_of)(params)
    updates, state = optimizer.update(task_grads, state, params)
    return (optax.apply_updates(params, updates), state), None

  params = initial_params()
  carry = params, optimizer.init(params)
  (one, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=40))(carry)
  (other, _), _ = jax.jit(lambda c: jax.lax.scan(always, c, length=40))(carry)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), one, other)
  assert (losses_of(one) < losses_of(params)).all()


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


class Equinox(eqx.Module):
  """The same in Equinox."""

  trunk: eqx.nn.Linear
  heads: eqx.nn.Linear

  def __init__(self, key):
    keys = jax.random.split(key)
    self.trunk = eqx.nn.Linear(4, 8, key=keys[0])
    self.heads = eqx.nn.Linear(8, NUM_TASKS, key=keys[1])

  def __call__(self, x):
    return self.heads(jnp.tanh(self.trunk(x)))


def mean_squares(predictions):
  return jnp.mean((predictions - TARGETS) ** 2, axis=0)


def plain_model():
  return initial_params(), losses_of


def linen_model():
  net = Linen()
  params = net.init(jax.random.key(0), X)["params"]
  return params, lambda params: mean_squares(net.apply({"params": params}, X))


def nnx_model():
  graph, params = nnx.split(Nnx(nnx.Rngs(0)))
  return params, lambda params: mean_squares(nnx.merge(graph, params)(X))


def equinox_model():
  params, static = eqx.partition(Equinox(jax.random.key(0)), eqx.is_inexact_array)
  return params, lambda params: mean_squares(
    jax.vmap(eqx.combine(params, static))(jnp.asarray(X))
  )


MODELS = {
  "dict": plain_model,
  "linen": linen_model,
  "nnx": nnx_model,
  "equinox": equinox_model,
}


@pytest.mark.parametrize("library", MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_trains_parameters_of_every_library(name, library):
  params, losses_of = MODELS[library]()
  balancer = make(name, shared=lambda path: "trunk" in jax.tree_util.keystr(path))
  before, after, _ = train(optax.chain(balancer, optax.adam(0.01)), params, losses_of)
  assert (after < before).all()
  # the trunk alone is in the Gramian
  _, task_grads = value_and_task_grads(losses_of)(params)
  trunk = [
    leaf.reshape(NUM_TASKS, -1)
    for path, leaf in jax.tree_util.tree_leaves_with_path(task_grads)
    if "trunk" in jax.tree_util.keystr(path)
  ]
  assert trunk
  norms = np.linalg.norm(np.concatenate(trunk, axis=1), axis=1)
  _, first = balancer.update(task_grads, balancer.init(params))
  np.testing.assert_allclose(first.gramian.norms, norms, 1e-4)
