"""DB-MTL against the published code, and without memory."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import FEWER, assert_published, golden


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize(
  ("key", "options"), [("dbmtl", {}), ("dbmtl_decay", {"sigma": 0.5})]
)
def test_matches_published_code(key, options, num_tasks):
  assert_published(key, "dbmtl", num_tasks, apart=("small",), **options)


def test_without_memory_db_mtl_is_the_sum_of_unit_gradients():
  grads = jnp.asarray(golden("methods.npz", "J", 5)[0, 0], jnp.float32)
  once, other = balancers.db_mtl(5, beta=0.0), balancers.unit_gradients(5)
  found = once.update(grads, once.init(grads[0]))[0]
  expected = other.update(grads, other.init(grads[0]))[0]
  np.testing.assert_allclose(found, expected, 1e-5, 1e-5)
  assert once.init(grads[0]).memory is None


def test_numbers_are_checked():
  with pytest.raises(ValueError, match=r"beta must be from 0 to 1, got 2\.0"):
    balancers.db_mtl(2, beta=2.0)
