"""Nash-MTL against the published code and a float64 solver, its claims, clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax import balancers, value_and_task_grads
from tests.balancers.contract import assert_close, init, make_gradient
from tests.balancers.gradient.nearly import lengths
from tests.balancers.gradient.published import (
  FEWER,
  TASK_COUNTS,
  assert_close_or_better,
  balanced,
  errors,
  golden,
)
from tests.balancers.jacobians import (
  SAMPLES,
  SEVERAL,
  sample,
  solve_many,
  solved,
)

# ECOS fails on small gradients and some scaled ones
NOT_CONVERGED = {*(f"small_{k}" for k in TASK_COUNTS), "scaled_5", "scaled_11"}
PARAMS = {"heads": jnp.zeros(5), "trunk": {"b": jnp.zeros(3), "w": jnp.zeros((4, 3))}}
MASK = {"heads": False, "trunk": True}


def miss(jacobian: np.ndarray, result: np.ndarray) -> float:
  """By how much a direction misses G a = 1 / a, clipped or not."""
  weights = np.linalg.lstsq(jacobian.T, result, rcond=None)[0]
  products = weights * (jacobian @ jacobian.T @ weights)  # equal where it is solved
  return np.abs(products / products.mean() - 1).max()


@pytest.mark.parametrize("num_tasks", FEWER)
def test_matches_published_code_or_solves_the_equation_better(num_tasks):
  assert_close_or_better("nashmtl", num_tasks, miss, NOT_CONVERGED)


@pytest.mark.parametrize("num_tasks", FEWER)
def test_equals_fairgrad_of_a_float64_solver(num_tasks):
  # FairGrad with alpha = 1 is the same equation; not clipped there
  results, _ = balanced("gradient.npz", "nashmtl", num_tasks, max_norm=1e6)
  expected = golden("gradient.npz", "tjd_fairgrad", num_tasks)
  jacobians = golden("gradient.npz", "J", num_tasks).astype(np.float64)
  norms = lengths(results)
  np.testing.assert_allclose(norms, np.sqrt(num_tasks), 1e-4)
  directions = expected * (norms / lengths(expected))[..., None]
  for index in np.argwhere(errors(results, directions) >= 1e-3):
    at = tuple(index)
    assert miss(jacobians[at], results[at].astype(np.float64)) < miss(
      jacobians[at], expected[at]
    )


@pytest.mark.parametrize("num_tasks", SEVERAL)
def test_its_equation_holds_in_float64(num_tasks):
  kinds = ["gaussian", "common direction", "scales"]
  given = np.stack([sample(kind, num_tasks) for kind in kinds])
  for jacobian, result, weights in zip(
    *_parts(solve_many("nashmtl", given, max_norm=1e6)), strict=True
  ):
    norms = lengths(jacobian)
    units = jacobian / norms[:, None]
    # y = a |g|, so that nothing over- or underflows
    y = weights * norms
    np.testing.assert_allclose(y * (units @ units.T @ y), 1, 1e-4)
    np.testing.assert_allclose(result, weights @ jacobian, 1e-3, 1e-5)


def _parts(found):
  return found.jacobian, found.result, np.asarray(found.state.weights, np.float64)


@pytest.mark.parametrize("num_tasks", [1, *SEVERAL])
def test_no_weight_is_negative(num_tasks):
  for kind in SAMPLES:
    assert (solved("nashmtl", num_tasks)[kind].state.weights >= 0).all()


def test_one_task_has_a_unit_vector_and_a_zero_gradient_the_largest_weight():
  jacobian, result, _ = solved("nashmtl", 1)["gaussian"]
  np.testing.assert_allclose(result, jacobian[0] / lengths(jacobian[0]), 1e-5, 1e-6)
  jacobian, _, state = solved("nashmtl", 3)["one zero"]
  assert state.weights[0] == pytest.approx(1 / lengths(jacobian)[1:].min(), rel=1e-5)


# -------------------------------------------------- where there may be no solution


@pytest.mark.parametrize("num_orthogonal", [1, 4])
def test_holds_for_tasks_beside_others_that_have_no_solution(num_orthogonal):
  jacobians = np.zeros((100, 12, 2 + num_orthogonal))
  conflicting = 12 - num_orthogonal
  generator = np.random.default_rng(0)
  jacobians[:, :conflicting, :2] = generator.normal(size=(100, conflicting, 2))
  jacobians[:, conflicting:, 2:] = np.eye(num_orthogonal)
  assert (solve_many("nashmtl", jacobians).state.residual < 1e-4).all()


def without_solution() -> dict[str, np.ndarray]:
  generator = np.random.default_rng(0)
  gauss = generator.normal(size=(100, 4, 50))
  one_zero = gauss.copy()
  one_zero[:, 0] = 0
  opposite = gauss.copy()
  opposite[:, 1::2] = -2 * opposite[:, ::2]
  one_pair = gauss.copy()
  one_pair[:, 1] = -one_pair[:, 0]
  inside = np.zeros((1, 4, 50))
  inside[0, :, :2] = [[1.0, 0], [0, 2], [-1, 0.1], [-1, -1]]
  return {
    "opposite pairs": opposite,
    "one opposite pair": one_pair,
    "sum to zero": gauss - gauss.mean(axis=1, keepdims=True),
    "zero inside": inside,
    "one zero": one_zero,
  }


def test_the_state_says_that_no_weights_solve_the_equation():
  jacobians = np.concatenate(list(without_solution().values()))
  state = solve_many("nashmtl", jacobians.astype(np.float32)).state
  assert (state.violation > 0.1).all()
  assert (state.weights > 0).all()
  assert np.isfinite(state.weights).all()


@pytest.mark.parametrize("num_tasks", [2, 3, 11])
def test_the_state_says_that_the_equation_holds(num_tasks):
  gauss = np.random.default_rng(0).normal(size=(100, num_tasks, 50))
  conflicting = gauss - 0.99 * gauss.mean(axis=1, keepdims=True)  # 1 % of the mean
  jacobians = np.concatenate([gauss, gauss + 1, conflicting]).astype(np.float32)
  exact, _, states = solve_many("nashmtl", jacobians)
  weights = np.asarray(states.weights, np.float64)
  directions = np.einsum("nk,nkp->np", weights, exact)
  products = weights * np.einsum("nkp,np->nk", exact, directions)
  violations = np.abs(products - 1).max(axis=1)
  # what rounded weights make of it
  rounding = 2.0**-23 * ((weights * lengths(exact)) ** 2).max(axis=1)
  assert (violations < 1e-6 + 2 * rounding).all()
  assert (np.abs(states.violation - violations) < 1e-6 + 4 * rounding).all()


def test_violation_counts_only_tasks_that_are_present():
  balancer = balancers.nash_mtl(3)
  grads = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
  update = jax.jit(balancer.update)
  state = balancer.init(grads[0])
  present = jnp.array([True, True, False])
  assert update(grads, state, present=present)[1].violation < 1e-6
  # no weight solves a * 0 = 1 / a
  assert update(grads, state, present=jnp.ones(3, bool))[1].violation > 0.5


# ------------------------------------------------------------- clipping, held weights


def test_clips_the_shared_part_alone_at_a_norm_that_may_be_traced():
  generator = np.random.default_rng(0)
  grads = jax.tree.map(
    lambda leaf: np.float32(generator.normal(size=(3, *leaf.shape))), PARAMS
  )

  def run(max_norm):
    balancer = make_gradient("nashmtl", 3, max_norm=max_norm, shared=MASK)
    result, state = balancer.update(grads, init(balancer, PARAMS))
    return optax.tree.norm(result["trunk"]), result["heads"], state.weights

  norms, heads, weights = jax.jit(jax.vmap(run))(jnp.array([0.1, 1.0, 100.0]))
  np.testing.assert_allclose(norms, [0.1, 1.0, np.sqrt(3)], 1e-4)
  np.testing.assert_allclose(heads, weights @ grads["heads"], 1e-5)


def test_takes_one_backward_pass_between_updates_in_a_users_step():
  features = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
  targets = np.stack([features.sum(1), features[:, 0], 3 * np.sin(features[:, 1])], 1)

  def losses_of(params):
    return jnp.mean((jnp.tanh(features @ params["w"]) @ params["v"] - targets) ** 2, 0)

  optimizer = optax.chain(balancers.nash_mtl(3, update_every=5), optax.sgd(0.05))

  def every_task(params, state):
    _, task_grads = value_and_task_grads(losses_of)(params)
    return optimizer.update(task_grads, state, params)

  def one_pass(params, state):
    weights = state[0].weights

    def held():
      gradient = jax.grad(lambda p: weights @ losses_of(p))(params)
      return optimizer.update(gradient, state, params, combined=True)

    due = state[0].steps_left == 0
    return jax.lax.cond(due, lambda: every_task(params, state), held)

  def train(update):
    def step(carry, _):
      params, state = carry
      updates, state = update(params, state)
      return (optax.apply_updates(params, updates), state), None

    carry = params, optimizer.init(params)
    return jax.jit(lambda carry: jax.lax.scan(step, carry, length=40))(carry)[0][0]

  keys = jax.random.split(jax.random.key(0))
  params = {
    "w": 0.5 * jax.random.normal(keys[0], (4, 8)),
    "v": 0.3 * jax.random.normal(keys[1], (8, 3)),
  }
  one = train(one_pass)
  assert_close(one, train(every_task), 1e-3, 1e-4)
  assert (losses_of(one) < losses_of(params)).all()


def test_a_largest_norm_that_is_not_positive_is_refused():
  with pytest.raises(ValueError, match=r"max_norm must be .*, got -1\.0"):
    balancers.nash_mtl(3, max_norm=-1.0)
