"""Gradients in float64 keep their digits and their range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.balancers.solvers import Gramian
from tests.balancers.contract import (
  having,
  init,
  make_gradient,
  one_of_each_family,
)


@pytest.fixture(autouse=True)
def x64():
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize(
  "name",
  [name for name in one_of_each_family() if name in having("gradient", heads="summed")],
)
def test_what_belongs_to_one_task_comes_back_as_it_is(name):
  values = np.array([1 + 1e-10, 1e39, 1e-50])
  balancer = make_gradient(name, 2, shared={"head": False, "trunk": True})
  grads = {"head": jnp.stack([values, 0 * values]), "trunk": jnp.eye(2, 3)}
  params = jax.tree.map(lambda leaf: leaf[0], grads)
  result, state = jax.jit(balancer.update)(grads, init(balancer, params), params)
  np.testing.assert_array_equal(result["head"], values)
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


def test_leaves_of_several_dtypes_are_summed_together():
  rows = np.random.default_rng(0).normal(size=(3, 40))
  whole = Gramian.of([jnp.asarray(rows)])
  parts = Gramian.of([jnp.asarray(rows[:, :15], "float32"), jnp.asarray(rows[:, 15:])])
  np.testing.assert_allclose(parts.cosines, whole.cosines, 1e-5, 1e-6)
