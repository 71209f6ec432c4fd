"""The training step with a gradient balancer.

What a step does it asks no method's name for; so one method of each family is enough.
`tests/test_balanced_grads.py` has what every method must do.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from igb_jax import balancers
from igb_jax.training import records
from igb_jax.training.balancing import make_balancer
from igb_jax.training.step import init_state, make_train_step

from .gradient_problem import (
  BATCH,
  FAMILIES,
  SHARED,
  compiled,
  compiled_once,
  gradient_of,
  initial_params,
  losses_of,
  make,
  part,
  present_of,
)


def test_there_is_a_method_of_each_family():
  found = [part(name) for name in FAMILIES]
  assert any(method.weigh is not None for method in found)
  assert any(method.apply is None for method in found)
  assert any(method.draws for method in found)
  assert any(method.keeps_grads for method in found)


@pytest.mark.parametrize(
  ("spec", "options"),
  [
    *((f"igbv1+{name}", {}) for name in FAMILIES),
    ("ew+mgda", {}),
    ("si+mgda", {}),
    ("ew+nashmtl", {"update_every": 3}),
  ],
)
def test_equals_a_step_by_hand_on_stacked_gradients(spec, options):
  """Heads and all stacked, as DESIGN's picture of one step has it, and tasks lack.

  The head of a task without labels stays as it is.
  """
  step, state = make(
    spec, *(f"{name}={value}" for name, value in options.items()), masked=True
  )
  parts = balancers.create(
    spec, num_tasks=3, steps_per_epoch=4, shared=SHARED, **options
  )
  assert parts.loss is not None
  assert parts.gradient is not None
  loss, gradient_balancer = parts.loss, parts.gradient

  @jax.jit
  def by_hand(params, loss_state, gradient_state, batch):
    present = present_of(batch)
    task_grads, loss_state = jax.jacrev(
      lambda p: loss.update(losses_of(p, batch), loss_state, present=present),
      has_aux=True,
    )(params)
    gradient, gradient_state = gradient_balancer.update(
      task_grads, gradient_state, present=present
    )
    params = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)
    return params, loss_state, gradient_state

  hand = initial_params(), parts.loss.init(), parts.gradient.init(initial_params())
  if hand[2].key is not None:  # which the run chooses
    key = gradient_of(state).key + 0
    hand = *hand[:2], hand[2]._replace(key=key)
  # whole base epochs first, whose losses igbv1 needs
  lacking = [None] * 9 + [1, 1, 2, None]
  for lacks in lacking:
    batch = BATCH.copy()
    if lacks is not None:
      batch[lacks] = np.nan
    heads = np.array(state.params["heads"]["w"])
    hand = by_hand(*hand, batch)
    state = step(state, batch)
    if lacks is not None:
      np.testing.assert_array_equal(
        state.params["heads"]["w"][:, lacks], heads[:, lacks]
      )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), state.params, hand[0]
  )
  np.testing.assert_allclose(gradient_of(state).weights, hand[2].weights, 1e-3, 1e-4)
  assert state.failure.step == -1
  sums = jax.device_get(state.sums)
  assert sums.present.tolist() == [13, 11, 12]
  if not options:  # else the Gramian of a step may be an earlier one's
    assert sums.gradient.pairs.tolist() == [[13, 11, 12], [11, 11, 10], [12, 10, 12]]
  record = records.GradientRecord.of(sums.gradient)
  np.testing.assert_allclose(np.diagonal(record.cosines), 1, 1e-5)
  assert 1 <= record.condition_number < 1e6  # of the tasks that were there


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_without_any_task_does_not_enter_the_means(name):
  step, state = make(f"igbv1+{name}", masked=True)
  state = step(state, BATCH)
  once = records.GradientRecord.of(jax.device_get(state.sums.gradient))
  for _ in range(3):
    state = step(state, np.full(3, np.nan, np.float32))
  sums = jax.device_get(state.sums)
  assert (sums.steps, sums.gradient.steps) == (4, 1)
  assert (sums.gradient.pairs == 1).all()
  again = records.GradientRecord.of(sums.gradient)
  jax.tree.map(
    np.testing.assert_array_equal, dataclasses.asdict(again), dataclasses.asdict(once)
  )


def test_igbv1_and_mgda_on_two_quadratics_equal_numpy():
  """L_k = |x - c_k|^2 D_k / 2 + 1: losses, weights and trajectory, all by hand."""
  centers = np.array([[1.0, -2.0, 0.5], [-1.5, 1.0, 2.0]])
  curvatures = np.array([[1.0, 0.5, 2.0], [8.0, 3.0, 1.0]])
  num_steps, rate, steps_per_epoch = 40, 0.05, 5

  def quadratics(params, batch):
    offsets = params["shared"] - jnp.asarray(centers, jnp.float32)
    return (offsets**2 * curvatures).sum(axis=1) / 2 + params["heads"]

  balancer = make_balancer(
    "igbv1+mgda", (), task_names=("a", "b"), steps_per_epoch=steps_per_epoch
  )
  optimizer = optax.sgd(rate)
  state = init_state(
    {"shared": jnp.zeros(3), "heads": jnp.ones(2)},
    balancer=balancer,
    optimizer=optimizer,
    plateau=optax.contrib.reduce_on_plateau(),
    key=jax.random.key(0),
  )
  step = make_train_step(quadratics, balancer, optimizer)

  x, heads = np.zeros(3), np.ones(2)
  base = np.zeros(2)
  inner_weights = []
  for index in range(num_steps):
    offsets = x - centers
    losses = (offsets**2 * curvatures).sum(axis=1) / 2 + heads
    if steps_per_epoch <= index < 2 * steps_per_epoch:
      base += losses / steps_per_epoch
    weights = np.ones(2)
    if index >= 2 * steps_per_epoch:
      gaps = np.exp(losses / base)
      weights = 2 * gaps / gaps.sum()
    # of w log L
    first, second = weights[:, None] * (offsets * curvatures) / losses[:, None]
    difference = first - second
    share = np.clip(-(second @ difference) / (difference @ difference), 0, 1)
    combination = 2 * np.array([share, 1 - share])
    x = x - rate * (combination[0] * first + combination[1] * second)
    heads = heads - rate * combination * weights / losses
    inner_weights.append(share)

    state = step(state, np.zeros(0, np.float32))
    np.testing.assert_allclose(state.balancer.loss.weights, weights, 1e-4)
    np.testing.assert_allclose(gradient_of(state).weights, combination, 1e-3, 1e-4)
    np.testing.assert_allclose(state.params["shared"], x, 1e-4, 1e-5)
    np.testing.assert_allclose(state.params["heads"], heads, 1e-4, 1e-5)
  assert any(0.01 < share < 0.99 for share in inner_weights)  # not a corner throughout


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_trains(name):
  step, init = compiled(name, optimizer=optax.adam(0.02))
  state = init()
  before = losses_of(state.params, 0)
  for _ in range(200):
    state = step(state, BATCH)
  assert (losses_of(state.params, 0) < before).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_sums_what_the_balancer_saw(name):
  step, state = make(name)
  weights, cosines, residuals, conflicts = [], [], [], []
  for _ in range(4):
    state = step(state, BATCH)
    seen = jax.device_get(gradient_of(state))
    weights.append(np.array(seen.weights))
    cosines.append(np.array(seen.gramian.cosines))
    residuals.append(float(seen.residual))
    upper = seen.gramian.cosines[np.triu_indices(3, 1)]
    conflicts.append((upper < 0).mean())
  record = records.GradientRecord.of(jax.device_get(state.sums.gradient))
  np.testing.assert_allclose(record.weights, np.mean(weights, axis=0), 1e-5)
  np.testing.assert_allclose(record.cosines, np.mean(cosines, axis=0), 1e-5, 1e-6)
  assert record.residual == pytest.approx(np.mean(residuals), abs=1e-9)
  assert record.worst_residual == pytest.approx(np.max(residuals), abs=1e-9)
  assert record.conflict_share == pytest.approx(np.mean(conflicts))
  assert 1 <= record.condition_number < 1e7


def test_condition_number_is_that_of_the_gramian():
  step, state = make("mgda")
  jacobian = jax.jacrev(losses_of)(initial_params(), BATCH)["shared"]["w"].reshape(
    3, -1
  )
  state = step(state, BATCH)
  record = records.GradientRecord.of(jax.device_get(state.sums.gradient))
  expected = np.linalg.cond(np.asarray(jacobian @ jacobian.T, np.float64))
  assert record.condition_number == pytest.approx(expected, rel=1e-3)


def test_a_singular_gramian_has_the_largest_condition_number_that_float32_tells():
  for jacobian in (
    np.ones((3, 4)),
    np.zeros((3, 4)),
    np.eye(3, 4) * [[1], [1e15], [1]],
  ):
    gramian = balancers.solvers.Gramian.of([jnp.asarray(jacobian)])
    assert gramian.condition_number() == pytest.approx(2.0**23)


@pytest.mark.parametrize("every", [2, 5])
def test_nash_holds_its_weights_with_one_backward_pass(every):
  step, state = make("ew+nashmtl", f"update_every={every}")
  reference, reference_state = make("ew+nashmtl")
  weights = []
  for index in range(2 * every):
    if index % every == 0:  # at an update both are the same
      reference_state = reference_state._replace(
        params=jax.tree.map(jnp.copy, state.params)
      )
      reference_state = reference(reference_state, BATCH)
    state = step(state, BATCH)
    weights.append(np.array(gradient_of(state).weights))
    if index % every == 0:
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6),
        state.params,
        reference_state.params,
      )
  for index, value in enumerate(weights):
    np.testing.assert_array_equal(value, weights[index - index % every])
  assert (weights[0] != weights[-1]).any()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_with_bad_numbers_changes_nothing_but_the_failure(name):
  step, init = compiled_once(name)
  for value in (np.nan, np.inf):
    state = step(init(), BATCH)
    before = jax.tree.map(jnp.copy, state)
    state = step(state, np.array([0.1, value, 0.1], np.float32))
    jax.tree.map(
      np.testing.assert_array_equal,
      state._replace(failure=None),
      before._replace(failure=None),
    )
    assert state.failure.step == 1


@pytest.mark.parametrize("name", [name for name in FAMILIES if part(name).draws])
def test_draws_follow_the_runs_seed(name):
  _, init = compiled_once(name)
  keys = [gradient_of(init(seed)).key for seed in (0, 0, 1)]
  assert (keys[0] == keys[1]).all()
  assert (keys[0] != keys[2]).any()
