"""NTKMTL-SR: published numbers, and norms that a step finds by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igb_jax
from igb_jax import balancers
from tests.balancers.loss.published import CALLS, METHODS


@pytest.mark.parametrize("num_tasks", CALLS)
@pytest.mark.parametrize(("key", "exponent"), [("ntksr", 0.5), ("ntksr75", 0.75)])
def test_a_step_with_a_trunk_is_that_of_the_published_code(key, exponent, num_tasks):
  x, w, h, c, y = (
    jnp.asarray(METHODS[f"net_{each}_{num_tasks}"], jnp.float32) for each in "XWHcY"
  )

  def trunk(params, x):
    return jnp.tanh(x @ params["W"].T)

  def losses_of(params, z, x):
    del x
    return jnp.mean((z @ params["H"].T + c - y) ** 2, axis=0)

  balancer = balancers.ntkmtl_sr(num_tasks, exponent=exponent)
  balanced = jax.jit(igb_jax.value_and_balanced_grad(losses_of, balancer, trunk=trunk))
  _, grads, state = balanced({"W": w, "H": h}, x, state=balancer.init())
  np.testing.assert_allclose(state.weights, METHODS[f"{key}_w_{num_tasks}"], 1e-4)
  for name in "WH":
    expected = METHODS[f"{key}_grad{name}_{num_tasks}"]
    np.testing.assert_allclose(grads[name], expected, 1e-4, 1e-5)


@pytest.mark.parametrize("num_tasks", CALLS)
def test_norms_may_be_passed(num_tasks):
  gradients = METHODS[f"ntksr_dz_{num_tasks}"]
  norms = (gradients**2).sum(axis=(2, 3)).astype(np.float32)
  balancer = balancers.ntkmtl_sr(num_tasks)
  losses = jnp.ones(num_tasks)
  weighted, state = balancer.update(losses, balancer.init(), rep_norms=norms)
  np.testing.assert_allclose(state.weights, METHODS[f"ntksr_w_{num_tasks}"], 1e-5)
  np.testing.assert_array_equal(weighted, state.weights)
  summed = jnp.asarray(gradients.mean(axis=0), jnp.float32)
  np.testing.assert_allclose(igb_jax.rep_norms(summed, 4), norms, 1e-4)


def test_without_norms_it_says_what_to_pass():
  balancer = balancers.ntkmtl_sr(2)
  with pytest.raises(ValueError, match=r"ntksr needs rep_norms.* a trunk="):
    balancer.update(jnp.ones(2), balancer.init())
  with pytest.raises(ValueError, match=r"\(number of chunks, 2\), got \(2,\)"):
    balancer.update(jnp.ones(2), balancer.init(), rep_norms=jnp.ones(2))
  with pytest.raises(ValueError, match=r"shape \(K, rows, ...\), got \(2,\)"):
    igb_jax.rep_norms(jnp.ones(2), 4)


def test_chunks_of_different_sizes_and_fewer_rows_than_chunks():
  rows = jnp.ones((1, 5, 1)) / 5  # the mean of five values
  np.testing.assert_allclose(igb_jax.rep_norms(rows, 2), [[1 / 3], [1 / 2]], 1e-6)
  np.testing.assert_allclose(igb_jax.rep_norms(rows, 9), jnp.ones((5, 1)), 1e-6)


def test_a_task_without_a_gradient_has_no_weight():
  balancer = balancers.ntkmtl_sr(3)
  norms = jnp.array([[1.0, 0.0, 4.0]])
  _, state = balancer.update(jnp.ones(3), balancer.init(), rep_norms=norms)
  np.testing.assert_allclose(state.weights, [5**0.5, 0, 1.25**0.5], 1e-6)
