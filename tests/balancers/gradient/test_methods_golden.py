"""Methods of the second list of golden numbers, four calls in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import make_gradient
from tests.balancers.gradient.published import (
  KINDS,
  TASK_COUNTS,
  assert_near,
  balanced,
  balanced_by,
  golden,
)

# name of the golden numbers, method, options, kinds where its absolute epsilon is seen
CASES = [
  ("dbmtl", "dbmtl", {}, ("small",)),
  ("dbmtl_decay", "dbmtl", {"sigma": 0.5}, ("small",)),
  ("ntkmtl", "ntkmtl", {}, ()),
  ("ntkmtl75", "ntkmtl", {"exponent": 0.75}, ()),
  ("ntkmtl_noclip", "ntkmtl", {"max_norm": None}, ()),
  ("upgrad_exact", "upgrad", {}, ()),
  ("dualproj_exact", "dualproj", {}, ()),
  ("config", "config", {}, ()),
]
# these compile for seconds each
FEWER = [
  pytest.param(k, marks=[pytest.mark.slow] if k in (2, 5) else []) for k in TASK_COUNTS
]
FAIR = [
  ("fairgrad1", "fairgrad", {"alpha": 1.0}),
  ("fairgrad2", "fairgrad", {}),
  ("fairgrad05", "fairgrad", {"alpha": 0.5}),
]


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
@pytest.mark.parametrize(("key", "name", "options", "apart"), CASES)
def test_matches_published_code(key, name, options, apart, num_tasks):
  results, states = balanced("methods.npz", name, num_tasks, **options)
  expected = golden("methods.npz", key, num_tasks)
  assert_near(results, expected, 1e-4, dict.fromkeys(apart, 1e-3))
  assert (states.residual < 1e-5).all()


@pytest.mark.parametrize("num_tasks", FEWER)
@pytest.mark.parametrize(("key", "name", "options"), FAIR)
def test_fair_weights_are_those_of_the_published_code_where_it_converged(
  key, name, options, num_tasks
):
  results, states = balanced("methods.npz", name, num_tasks, **options)
  expected = golden("methods.npz", key, num_tasks)
  assert KINDS[-1] == "small"  # where the published least squares does not move
  assert_near(results[:-1], expected[:-1], 1e-3)
  assert (states.residual < 1e-5).all()
  alpha = options.get("alpha", 2.0)
  jacobians = golden("methods.npz", "J", num_tasks).astype(np.float64)
  x = states.weights.astype(np.float64) / num_tasks
  products = np.einsum("...kp,...jp,...j->...k", jacobians, jacobians, x)
  np.testing.assert_allclose(products, x ** (-1 / alpha), 2e-3)


@pytest.mark.parametrize("num_tasks", FEWER)
def test_pivrg_weighs_by_scores(num_tasks):
  balancer = balancers.pivrg(num_tasks)
  results, states = [], []
  for index, kind in enumerate(KINDS):
    jacobians = golden("methods.npz", "J", num_tasks)[index].astype(np.float32)
    scores = golden("methods.npz", "pivrg_scores", num_tasks)[index].astype(np.float32)
    update = jax.jit(balancer.update)
    state = balancer.init(jacobians[0, 0])
    for jacobian, score in zip(jacobians, scores, strict=True):
      result, state = update(jacobian, state, scores=score)
      results.append(result)
      states.append(state)
    expected = golden("methods.npz", "pivrg", num_tasks)[index]
    if kind != "small":
      found = np.stack(results[-len(jacobians) :])
      assert_near(found, expected, 1e-3)
  assert all(state.residual < 1e-5 for state in states)
  with pytest.raises(ValueError, match=rf"scores must have the shape \({num_tasks},\)"):
    balancer.update(jnp.ones((num_tasks, 2)), balancer.init(jnp.ones(2)), scores=[1.0])


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
def test_smoothed_weights_are_those_of_crmogm(num_tasks):
  balancer = balancers.smooth_weights(balancers.upgrad(num_tasks))
  results, states = balanced_by(balancer, "methods.npz", num_tasks)
  expected = golden("methods.npz", "crmogm_upgrad", num_tasks)
  assert_near(results, expected, 1e-4)
  assert states.memory[0] is None


@pytest.mark.parametrize("length", ["max", "frobenius", "unit", 0.01])
def test_unit_gradients_have_the_length_that_was_asked_for(length):
  jacobian = golden("methods.npz", "J", 3)[0, 0].astype(np.float32)
  balancer = balancers.unit_gradients(3, length=length)
  result, state = balancer.update(jnp.asarray(jacobian), balancer.init(jacobian[0]))
  norms = np.linalg.norm(jacobian, axis=1)
  units = (jacobian / norms[:, None]).sum(axis=0)
  factor = {
    "max": norms.max(),
    "frobenius": np.linalg.norm(jacobian),
    "unit": 1 / np.linalg.norm(units),
  }.get(str(length), length)
  np.testing.assert_allclose(result, factor * units, 1e-4, 1e-5 * factor)
  np.testing.assert_allclose(state.weights, factor / norms, 1e-5)


def test_without_memory_db_mtl_is_the_sum_of_unit_gradients():
  grads = jnp.asarray(golden("methods.npz", "J", 5)[0, 0], jnp.float32)
  once, other = balancers.db_mtl(5, beta=0.0), balancers.unit_gradients(5)
  found = once.update(grads, once.init(grads[0]))[0]
  expected = other.update(grads, other.init(grads[0]))[0]
  np.testing.assert_allclose(found, expected, 1e-5, 1e-5)
  assert once.init(grads[0]).memory is None


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: balancers.unit_gradients(2, length="long"), "length must be 'max' or"),
    (lambda: balancers.unit_gradients(2, length=0), "length must be .* positive, got"),
    (lambda: balancers.db_mtl(2, beta=2.0), "beta must be from 0 to 1, got 2.0"),
    (lambda: balancers.ntkmtl(2, exponent=-1), "exponent must be .* got -1"),
    (lambda: balancers.smooth_weights(balancers.moco(2)), "does not; see"),
    (lambda: balancers.smooth_weights(balancers.mgda(2), 1.5), "decay must be from 0"),
  ],
)
def test_numbers_are_checked(make, message):
  with pytest.raises(ValueError, match=message):
    make()


@pytest.mark.parametrize("name", ["fairgrad", "pivrg"])
def test_the_violation_says_that_there_is_no_solution(name):
  angles = 2 * np.pi * np.arange(5) / 5  # gradients whose hull contains zero
  grads = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1), jnp.float32)
  balancer = make_gradient(name, 5)
  update = jax.jit(balancer.update)
  _, state = update(grads, balancer.init(grads[0]))
  assert state.violation > 0.1
  _, state = update(grads + jnp.array([2.0, 0.0]), state)
  assert state.violation < 1e-4


def test_parameters_that_are_integers_need_no_buffers():
  params = {"w": jnp.zeros(4), "count": jnp.zeros((), jnp.int32)}
  grads = {"w": jnp.ones((2, 4)), "count": None}
  for name in ("dbmtl", "excess", "moco", "mgda"):
    balancer = make_gradient(name, 2)
    result, _ = balancer.update(grads, balancer.init(params))
    assert result["count"] is None
    assert result["w"].shape == (4,)


def test_unit_gradients_that_nearly_cancel_give_a_unit_vector():
  g = np.random.default_rng(0).normal(size=(2, 50))
  grads = jnp.asarray(np.stack([g[0], -g[0] + 1e-3 * g[1]]), jnp.float32)
  balancer = balancers.unit_gradients(2, length="unit")
  result, _ = balancer.update(grads, balancer.init(grads[0]))
  np.testing.assert_allclose(jnp.linalg.norm(result), 1.0, 1e-2)
