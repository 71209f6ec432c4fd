"""Gradients of several devices; `test_shard_map.py` runs this file.

JAX must be told of virtual devices before it starts, hence a process of its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from igb_jax import value_and_task_grads
from igb_jax.balancers.gradient.pcgrad import project_conflicts
from igb_jax.balancers.solvers import Gramian, Mean
from tests.balancers.contract import GRADIENT, init, make_gradient, slow_but

NUM_TASKS = 3
OVER_ROWS = PartitionSpec(None, "devices")  # of task gradients; axis 0 is the tasks
SHARED = {"bias": True, "heads": False, "kernel": True}

# one with weights, one with memory of its own, one whose memory is shaped as gradients
NAMES = slow_but(["cagrad", "gradvac", "dbmtl"], GRADIENT)


def mesh(axis_type):
  return jax.make_mesh((2,), ("devices",), (axis_type,))


def task_grads(seed=0):
  generator = np.random.default_rng(seed)
  shapes = {"bias": (8,), "heads": (4,), "kernel": (8, 5)}
  return {
    name: generator.normal(size=(NUM_TASKS, *shape)).astype(np.float32)
    for name, shape in shapes.items()
  }


@functools.cache  # so that tests share what they compile
def two_updates(name, **options):
  """A function of task gradients, the result of a second update; and it compiled."""
  balancer = make_gradient(name, NUM_TASKS, shared=SHARED, **options)
  losses = jnp.ones(NUM_TASKS)  # for methods that ask for them

  def result(grads):
    state = init(balancer, jax.tree.map(lambda leaf: leaf[0], grads))
    _, state = balancer.update(grads, state, losses=losses)
    return balancer.update(grads, state, losses=losses)[0]

  return result, jax.jit(result)


def assert_close(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), actual, expected
  )


@pytest.mark.parametrize("name", NAMES)
def test_every_device_balances_its_own_gradients_in_shard_map(name):
  holds = make_gradient(name, NUM_TASKS).update_every > 1
  # weights that are held are not for gradients that differ per device
  update, compiled = two_updates(name, **({"update_every": 1} if holds else {}))
  of_devices = [task_grads(seed) for seed in range(2)]

  def on_device(grads):
    result = update(jax.tree.map(lambda leaf: leaf[0], grads))
    return jax.tree.map(lambda leaf: leaf[None], result)

  spec = PartitionSpec("devices")
  results = jax.jit(
    jax.shard_map(on_device, mesh=mesh(AxisType.Auto), in_specs=spec, out_specs=spec)
  )(jax.tree.map(lambda *leaves: np.stack(leaves), *of_devices))
  expected = map(compiled, of_devices)
  assert_close(results, jax.tree.map(lambda *leaves: np.stack(leaves), *expected))


def test_pcgrads_orders_may_differ_where_the_gradients_do_not():
  gramian = Gramian.of([jnp.asarray(task_grads()["kernel"])])
  forwards = jnp.tile(jnp.arange(NUM_TASKS), (NUM_TASKS, 1))
  orders = jnp.concatenate([forwards, forwards[:, ::-1]])  # those of either device
  spec = PartitionSpec("devices")
  weights = jax.jit(
    jax.shard_map(
      project_conflicts,
      mesh=mesh(AxisType.Auto),
      in_specs=(PartitionSpec(), spec),
      out_specs=spec,
    )
  )(gramian, orders)
  expected = [project_conflicts(gramian, own) for own in jnp.split(orders, 2)]
  assert_close(weights, np.concatenate(expected))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_divided_over_devices_give_the_same_and_stay_divided(name):
  explicit = mesh(AxisType.Explicit)
  divided = jax.device_put(task_grads(), NamedSharding(explicit, OVER_ROWS))
  _, update = two_updates(name)
  result = update(divided)
  assert_close(result, update(task_grads()))
  rows = NamedSharding(explicit, PartitionSpec("devices"))
  for leaf in jax.tree.leaves(result):
    assert leaf.sharding.is_equivalent_to(rows, leaf.ndim)
  for platform in ("cuda", "tpu"):
    update.trace(divided).lower(lowering_platforms=(platform,))


def test_products_of_divided_gradients_without_jit_and_under_vmap():
  def products(leaves):
    gramian = Gramian.of(leaves)
    return gramian, Mean.of(leaves, gramian)

  leaves = [task_grads()["kernel"]]
  divided = jax.device_put(leaves, NamedSharding(mesh(AxisType.Explicit), OVER_ROWS))
  expected = products(leaves)
  assert_close(products(divided), expected)
  twice = [jnp.stack([leaf, leaf]) for leaf in divided]
  several = jax.vmap(products)(twice)
  assert_close(several, jax.tree.map(lambda leaf: np.stack([leaf] * 2), expected))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
  ("batch_size", "unroll"),
  [
    (1, True),
    (2, None),
    pytest.param(1, False, marks=pytest.mark.slow),
    pytest.param(3, None, marks=pytest.mark.slow),
  ],
)
def test_task_grads_equal_jacrev_in_shard_map(batch_size, unroll, own):
  def losses_of(params, inputs):
    products = inputs @ params
    return jnp.stack([products.sum(), jnp.sin(products).sum(), (products**2).mean()])

  def run(task_grads_of):
    def on_device(params, inputs):
      if own:  # if not, their gradients are summed over the devices
        params = jax.lax.pcast(params, "devices", to="varying")
      return task_grads_of(params, inputs)

    inputs = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    over_rows = PartitionSpec("devices")
    function = jax.shard_map(
      on_device,
      mesh=mesh(AxisType.Auto),
      in_specs=(PartitionSpec(), over_rows),
      out_specs=over_rows if own else PartitionSpec(),
    )
    return jax.jit(function)(jnp.arange(4.0), inputs)

  actual = value_and_task_grads(losses_of, batch_size=batch_size, unroll=unroll)
  assert_close(run(lambda *args: actual(*args)[1]), run(jax.jacrev(losses_of)))
