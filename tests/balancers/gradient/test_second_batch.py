"""A second batch beside the first, or its inner products with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import make_gradient


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
def test_a_second_batch_is_its_inner_products_with_the_first(name):
  generator = np.random.default_rng(0)
  first, second = (
    {"trunk": generator.normal(size=(3, 4)).astype(np.float32), "head": np.ones((3, 2))}
    for _ in range(2)
  )
  options = {"steps": 20, "learning_rate": 0.01} if name == "sdmgrad" else {}
  shared = {"trunk": True, "head": False}
  balancer = make_gradient(name, 3, shared=shared, **options)
  params = jax.tree.map(lambda leaf: leaf[0], first)
  state = balancer.init(params)
  present = np.array([True, True, False])
  products = first["trunk"] @ second["trunk"].T
  second["trunk"][2] = np.nan
  found, _ = balancer.update(first, state, present=present, task_grads_2=second)
  expected, _ = balancer.update(first, state, present=present, cross_gramian=products)
  plain, _ = balancer.update(first, state, present=present)
  np.testing.assert_allclose(found["trunk"], expected["trunk"], 1e-5, 1e-6)
  assert np.abs(found["trunk"] - plain["trunk"]).max() > 1e-4


def test_bad_second_batches_are_refused():
  grads = jnp.ones((2, 3))
  modo, exact = balancers.modo(2), balancers.sdmgrad(2)
  state = modo.init(grads[0])
  with pytest.raises(ValueError, match="task_grads_2 or cross_gramian, not both"):
    modo.update(grads, state, task_grads_2=grads, cross_gramian=jnp.eye(2))
  with pytest.raises(ValueError, match=r"must have the shape \(2, 2\), got \(3, 3\)"):
    modo.update(grads, state, cross_gramian=jnp.eye(3))
  with pytest.raises(ValueError, match="make the balancer with steps=20"):
    exact.update(grads, exact.init(grads[0]), cross_gramian=jnp.eye(2))
