"""What every gradient balancer makes of task gradients, by its traits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.balancers import jacobians
from tests.balancers.contract import (
  GRADIENT,
  assert_equal,
  assert_finite,
  direction,
  families_first,
  gradient_traits,
  having,
  init,
  make_gradient,
  mapped,
  relative_error,
  to_numpy,
  with_task_counts,
)
from tests.balancers.jacobians import (
  OTHER_KEY,
  SAMPLES,
  SEVERAL,
  TASK_COUNTS,
  solved,
)

SOLVING = having("gradient", solves=True)


def lengths(jacobian: np.ndarray) -> np.ndarray:
  return np.linalg.norm(jacobian, axis=1)


# ------------------------------------------------------------------ every input


@pytest.mark.parametrize(("name", "num_tasks"), with_task_counts(GRADIENT, TASK_COUNTS))
def test_finite_and_optimal_for_every_input(name, num_tasks):
  for kind, (_, result, state) in solved(name, num_tasks).items():
    assert_finite((result, state))
    assert state.weights.shape == (num_tasks,)
    assert state.weights.dtype == np.float32
    assert 0 <= state.residual < 1e-4, kind
    if not gradient_traits(name).solves:
      assert state.residual == 0


@pytest.mark.parametrize(
  ("name", "num_tasks"), with_task_counts(SOLVING, jacobians.MANY)
)
def test_optimal_for_many_tasks_of_any_rank(name, num_tasks):
  for label in jacobians.of_any_rank(num_tasks):
    _, result, state = solved(name, num_tasks)[label]
    assert_finite(result)
    assert state.residual < 1e-5, label


@pytest.mark.parametrize(
  ("name", "num_tasks"),
  with_task_counts(having("gradient", avoids_conflict=True), SEVERAL),
)
def test_never_conflicts_with_a_task(name, num_tasks):
  for kind in SAMPLES:
    jacobian, result, state = solved(name, num_tasks)[kind]
    norms = lengths(jacobian)
    units = jacobian / np.where(norms > 0, norms, 1)[:, None]
    terms = np.asarray(state.weights, np.float64) @ norms
    assert (units @ np.asarray(result, np.float64) >= -1e-5 * terms).all(), kind


@pytest.mark.parametrize(
  ("name", "num_tasks"), with_task_counts(having("gradient", equivariant=True), SEVERAL)
)
def test_permuting_tasks_changes_nothing(name, num_tasks):
  """With the same draws, where there are any."""
  order = jacobians.order_of(num_tasks)
  for kind in jacobians.PERMUTED:
    if name == "aligned" and kind == "scales":
      continue  # float32 rounds the eigenvalue that decides the length
    _, result, state = solved(name, num_tasks)[kind]
    _, permuted, permuted_state = solved(name, num_tasks)[f"{kind}, permuted"]
    assert relative_error(permuted, result) < 1e-3, kind
    # cosines of random gradients in float32 decide the small weights
    np.testing.assert_allclose(permuted_state.weights, state.weights[order], 5e-3, 1e-6)


@pytest.mark.parametrize(("name", "num_tasks"), with_task_counts(GRADIENT, [2, 3, 11]))
def test_a_common_scale_scales_the_result_by_a_power(name, num_tasks):
  degree = gradient_traits(name).degree
  if degree is None:
    pytest.skip("no power")
  _, result, state = solved(name, num_tasks)["gaussian"]
  for scale in jacobians.COMMON_SCALES:
    _, scaled, scaled_state = solved(name, num_tasks)[f"gaussian times {scale:g}"]
    expected = np.asarray(result, np.float64) * scale**degree
    assert relative_error(scaled, expected) < 1e-3, scale
    # the weights as the result, one power less
    weights = np.asarray(scaled_state.weights, np.float64) * scale ** (1 - degree)
    np.testing.assert_allclose(weights, state.weights, 1e-3, 1e-5)


@pytest.mark.parametrize(
  ("name", "num_tasks"),
  with_task_counts(having("gradient", scale_invariant=True), [2, 3, 11]),
)
def test_direction_does_not_depend_on_the_scale_of_any_task(name, num_tasks):
  _, result, _ = solved(name, num_tasks)["gaussian"]
  _, rescaled, _ = solved(name, num_tasks)["gaussian, each on its scale"]
  assert relative_error(direction(rescaled), direction(result)) < 1e-4


@pytest.mark.parametrize(
  ("name", "num_tasks"),
  with_task_counts(having("gradient", gramian_only=True), [3, 11]),
)
def test_the_gramian_is_all_that_a_rule_on_it_needs(name, num_tasks):
  _, result, state = solved(name, num_tasks)["gaussian"]
  _, rotated, rotated_state = solved(name, num_tasks)["gaussian, rotated"]
  assert relative_error(rotated, result @ jacobians.rotation()) < 1e-3
  np.testing.assert_allclose(rotated_state.weights, state.weights, 1e-3, 1e-5)
  assert make_gradient(name, num_tasks).weigh is not None


@pytest.mark.parametrize(("name", "num_tasks"), with_task_counts(GRADIENT, [1, 3]))
def test_tasks_that_agree_are_not_disturbed(name, num_tasks):
  jacobian, result, _ = solved(name, num_tasks)["in agreement"]
  assert relative_error(direction(result), direction(jacobian[0])) < 1e-5


def test_heads_get_the_plain_sum_where_weights_would_harm_or_there_are_none():
  no_weights = {"graddrop", "trimmed", "dbmtl"}
  published = {"pcgrad", "cagrad"}
  # weights below zero or of zero, with which heads would climb or not learn
  harmful = {"aligned", "krum", "pcd"}
  expected = no_weights | published | harmful
  assert set(having("gradient", heads="summed")) == expected


@pytest.mark.parametrize("name", having("gradient", heads="weighted"))
def test_tasks_without_a_shared_gradient_keep_a_weight_for_their_heads(name):
  """Zero-initialised heads give zero shared gradients; they must learn all the same."""
  assert (solved(name, 3)["all zero"].state.weights > 0).all()


@pytest.mark.parametrize("name", GRADIENT)
def test_the_key_given_to_init_is_all_the_randomness(name):
  draws = gradient_traits(name).draws
  num_tasks = 11 if draws else 3  # few tasks have few orders to draw
  balancer = make_gradient(name, num_tasks)
  assert balancer.draws == draws
  once, other = (solved(name, num_tasks)[kind] for kind in ("sum to zero", OTHER_KEY))
  if draws:
    assert relative_error(other.result, once.result) > 1e-3
    assert (other.state.key != once.state.key).any()
    keys = [balancer.init(jnp.zeros(2)).key, init(balancer, jnp.zeros(2)).key]
    assert_equal(*keys)  # `optax.chain` hands over none
  else:
    assert_equal(other[1:], once[1:])
    assert once.state.key is None


# ------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("name", families_first(GRADIENT))
def test_empty_leaves_bfloat16_and_extreme_entries(name):
  jacobian = solved(name, 3)["gaussian, rounded"].jacobian
  halves = np.stack([jacobian, np.ones_like(jacobian)])
  scalars = jnp.array([[0, 0, 0], [1e38, 1.0, 1e-30]], jnp.float32)
  task_grads = {"empty": jnp.zeros((2, 3, 0)), "scalar": scalars}
  in_float32 = task_grads | {"half": jnp.asarray(halves, jnp.float32)}
  task_grads["half"] = jnp.asarray(halves, jnp.bfloat16)
  balancer = make_gradient(name, 3)
  begun = init(balancer, jax.tree.map(lambda leaf: leaf[0, 0], task_grads))
  update = mapped(lambda grads: balancer.update(grads, begun, losses=jnp.ones(3)))
  results, states = update(task_grads)
  assert results["empty"].shape == (2, 0)
  assert results["half"].dtype == jnp.bfloat16
  assert states.weights.dtype == jnp.float32
  results, states = to_numpy((results, states))
  assert_finite(states)
  # bfloat16 is balanced in float32
  traits = gradient_traits(name)
  if traits.gramian_only or not traits.draws:  # where no entry has draws of its own
    expected, expected_states = to_numpy(update(in_float32))
    np.testing.assert_allclose(states.weights[0], expected_states.weights[0], 1e-5)
    assert relative_error(results["half"][0], expected["half"][0]) < 1e-2
  if traits.gramian_only:
    side = np.sqrt(float(jacobians.NUM_PARAMETERS))
    norms = [1e38, np.hypot(side, 1), side]
    np.testing.assert_allclose(states.gramian.norms[1], norms, 1e-5)


NUM_STEPS = 10_000
COURSES = {
  "constant": np.tile([[0.5, 2.0, 1e-3]], (NUM_STEPS, 1)),
  "falling": 10 ** np.outer(np.linspace(0, -30, NUM_STEPS), [1.0, 1.0, 0.0]),
  "zero": np.tile([[0.0, 1.0, 2.0]], (NUM_STEPS, 1)),
}


@pytest.mark.parametrize("name", families_first(GRADIENT))
def test_results_of_gradients_have_the_bound_of_the_gradients(name):
  """Weights of a gradient may be as large as the gradient is small; not the result."""
  balancer = make_gradient(name, 3)
  gradients = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)

  def run(lengths):
    def step(state, lengths):
      task_grads = lengths[:, None] * gradients
      result, state = balancer.update(task_grads, state, losses=lengths)
      return state, (jnp.linalg.norm(result), state.weights)

    return jax.lax.scan(step, init(balancer, jnp.zeros(20)), lengths)[1]

  courses = np.stack(list(COURSES.values())).astype(np.float32)
  results, weights = to_numpy(jax.jit(jax.vmap(run))(courses))
  assert_finite(weights)
  norms = np.linalg.norm(gradients, axis=1) * courses
  bound = 3 * norms.sum(axis=2)
  if gradient_traits(name).degree != 1:  # then it may be clipped at 1 instead
    bound = np.maximum(bound, 1.0)
  assert (results <= bound * (1 + 1e-5)).all()
