"""Gradients in float64 keep their digits and their range; in bfloat16 their dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers.solvers import Gramian

NAMES = [name for name, kind in balancers.names().items() if kind == "gradient"]


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


def make(name, num_tasks, **options):
  balancer = balancers.create(name, num_tasks=num_tasks, **options).gradient
  assert balancer is not None
  return balancer


def test_a_plain_sum_of_gradients_that_nearly_cancel_keeps_their_difference():
  small = 1e-9 * np.arange(1.0, 5.0)
  grads = jnp.asarray(np.stack([np.ones(4), -1 + small]))
  balancer = make("cagrad", 2, c=0)
  result, _ = jax.jit(balancer.update)(grads, balancer.init(grads[0]))
  assert result.dtype == jnp.float64
  np.testing.assert_allclose(result, small, 1e-6)


@pytest.mark.parametrize("value", [1 + 1e-10, 1e39, 1e-50])
@pytest.mark.parametrize("name", ["pcgrad", "cagrad"])
def test_what_belongs_to_one_task_comes_back_as_it_is(name, value):
  shared = {"head": False, "trunk": True}
  balancer = make(name, 2, shared=shared)
  grads = {"head": jnp.array([[value], [0.0]]), "trunk": jnp.eye(2, 3)}
  params = jax.tree.map(lambda leaf: leaf[0], grads)
  result, state = jax.jit(balancer.update)(grads, balancer.init(params), params)
  np.testing.assert_array_equal(result["head"], [value])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e39, 1e200])
def test_cosines_are_those_of_float64_at_every_scale(scale):
  rows = np.random.default_rng(0).normal(size=(3, 50))
  gramian = jax.jit(Gramian.of)([jnp.asarray(scale * rows)])
  norms = np.linalg.norm(rows, axis=1)
  units = rows / norms[:, None]
  np.testing.assert_allclose(gramian.cosines, units @ units.T, 1e-6, 1e-7)
  limits = np.finfo(np.float32)
  expected = np.clip(scale * norms, limits.tiny, limits.max)
  np.testing.assert_allclose(gramian.norms, expected, 1e-6)
  assert {leaf.dtype for leaf in gramian} == {jnp.dtype("float32")}


def test_cosines_of_gradients_that_differ_in_their_tenth_digit():
  """In float32 they would be the same; the cosine is right, to float32's own digits."""
  rows = np.array([[1.0, 0.0, 1e-10], [1e8, 1e-2, 0.0]])
  gramian = jax.jit(Gramian.of)([jnp.asarray(rows)])
  np.testing.assert_allclose(gramian.norms, np.linalg.norm(rows, axis=1), 1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_states_are_float32_and_results_have_the_dtype_of_the_gradients(name, dtype):
  balancer = make(name, 3)
  grads = jnp.asarray(np.random.default_rng(0).normal(size=(3, 20)), dtype)
  begun = balancer.init(grads[0])
  result, state = jax.jit(balancer.update)(grads, begun, grads[0])
  assert result.dtype == grads.dtype
  assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(
    lambda x: x.dtype, begun
  )


def test_leaves_of_several_dtypes_are_summed_together():
  rows = np.random.default_rng(0).normal(size=(3, 40))
  whole = Gramian.of([jnp.asarray(rows)])
  parts = Gramian.of([jnp.asarray(rows[:, :15], "float32"), jnp.asarray(rows[:, 15:])])
  np.testing.assert_allclose(parts.cosines, whole.cosines, 1e-5, 1e-6)
