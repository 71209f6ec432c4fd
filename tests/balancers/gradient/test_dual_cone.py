"""Projections on the dual cone where gradients of different sizes nearly cancel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.balancers.contract import make_gradient, to_numpy


@pytest.mark.parametrize("name", ["dualproj", "upgrad"])
def test_no_conflict_where_gradients_nearly_cancel(name):
  """In as many dimensions as there are tasks, and one. Unrefined it is -2e-5."""
  generator = np.random.default_rng(0)
  jacobians = generator.normal(size=(1000, 3, 4))
  jacobians *= 10 ** generator.uniform(-4, 4, size=(1000, 3, 1))
  balancer = make_gradient(name, 3)
  state = balancer.init(jnp.zeros(4))
  rounded = jacobians.astype(np.float32)
  results = to_numpy(jax.jit(jax.vmap(lambda j: balancer.update(j, state)[0]))(rounded))
  products = np.einsum("nkp,np->nk", rounded.astype(np.float64), results)
  sizes = np.linalg.norm(rounded, axis=2) * np.linalg.norm(results, axis=1)[:, None]
  assert (products / sizes).min() > -1e-5
