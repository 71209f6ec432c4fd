"""Tasks that are absent: no weight, no contribution, no history; over all balancers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.tables import GRADIENT as GRADIENT_NAMES
from tests.balancers.tables import LOSS as LOSS_NAMES
from tests.balancers.tables import having
from tests.small_balancers import small_loss_balancer

STEPS_PER_EPOCH = 4
NAMES = balancers.names()
RANDOM = having("loss", draws=True)
SUMMED = having("gradient", heads="summed")
BAD = [np.nan, np.inf, -1.0, 0.0, 5.0]  # the last is none, and absent all the same
OTHERS = np.array([0, 2])
MASK = np.array([True, False, True])


@functools.cache  # so that tests share what they compile
def make_loss(name: str, num_tasks: int = 3) -> balancers.LossBalancer:
  return small_loss_balancer(name, num_tasks, STEPS_PER_EPOCH, hidden_sizes=(8,))


@functools.partial(jax.jit, static_argnums=0)
def scan(balancer, losses, masks, state):
  """Runs all steps; returns the final state, and what each step gave."""

  def step(state, inputs):
    losses, present = inputs
    weighted, state = balancer.update(losses, state, present=present)
    return state, (weighted, state.weights)

  return jax.lax.scan(step, state, (losses, masks))


@functools.partial(jax.jit, static_argnums=0)
def weigh(balancer, losses, state, present):
  return balancer.update(losses, state, present=present)


@functools.cache
def begun(name: str):
  """A state after all of a method's phases have begun, every task present."""
  balancer = make_loss(name)
  losses = random_losses(24)
  return scan(
    balancer, losses, np.ones((24, 3), bool), balancer.init(jax.random.key(0))
  )[0]


def random_losses(num_steps: int, seed: int = 0) -> np.ndarray:
  generator = np.random.default_rng(seed)
  return np.exp(generator.normal(size=(num_steps, 3))).astype(np.float32)


def assert_trees_equal(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


# ------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=[pytest.mark.slow] * (n == "igbv2")) for n in LOSS_NAMES],
)
def test_an_absent_loss_gives_nothing_and_changes_nothing(name):
  balancer = make_loss(name)
  derivative = jax.jit(
    jax.jacrev(lambda losses, state: weigh(balancer, losses, state, MASK)[0])
  )
  states = []
  for bad in BAD:
    losses = random_losses(1, seed=1)[0]
    losses[1] = bad
    weighted, state = weigh(balancer, losses, begun(name), MASK)
    assert weighted[1] == state.weights[1] == 0
    assert np.isfinite(weighted).all()
    jacobian = derivative(losses, begun(name))
    assert not jacobian[1].any()
    assert not jacobian[:, 1].any()
    assert np.isfinite(jacobian).all()
    states.append(state)
    for leaf in jax.tree.leaves(state):
      assert np.isfinite(leaf).all()
  for state in states[1:]:
    assert_trees_equal(state, states[0])


@pytest.mark.parametrize("name", sorted(set(LOSS_NAMES) - set(RANDOM)))
def test_the_others_are_weighed_as_by_the_smaller_problem(name):
  losses = random_losses(30)
  smaller_losses = losses[:, OTHERS]
  losses[:, 1] = np.nan
  three, two = make_loss(name, 3), make_loss(name, 2)
  masks = np.broadcast_to(MASK, losses.shape)
  _, (weighted, weights) = scan(three, losses, masks, three.init())
  _, (expected, expected_weights) = scan(
    two, smaller_losses, np.ones_like(smaller_losses, bool), two.init()
  )
  np.testing.assert_allclose(weighted[:, OTHERS], expected, 1e-5, 1e-6)
  np.testing.assert_allclose(weights[:, OTHERS], expected_weights, 1e-5)
  assert not weighted[:, 1].any()
  assert not weights[:, 1].any()


@pytest.mark.parametrize("name", RANDOM)
def test_random_weights_sum_to_the_number_of_tasks_present(name):
  balancer = make_loss(name)
  masks = np.random.default_rng(0).random((30, 3)) < 0.6
  state = balancer.init(jax.random.key(0))
  _, (_, weights) = scan(balancer, random_losses(30), masks, state)
  assert ((np.asarray(weights) > 0) == masks).all()
  np.testing.assert_allclose(weights.sum(axis=1), masks.sum(axis=1), 1e-5)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_where_no_task_is_present_the_state_stays_as_it_is(name):
  before = begun(name)
  losses = jnp.full(3, jnp.nan)
  weighted, after = weigh(make_loss(name), losses, before, np.zeros(3, bool))
  assert weighted.tolist() == after.weights.tolist() == [0, 0, 0]
  assert_trees_equal(after._replace(weights=before.weights), before)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_a_mask_of_all_tasks_changes_nothing(name):
  balancer = make_loss(name)
  losses = random_losses(1, seed=1)[0]
  plain = weigh(balancer, losses, begun(name), None)
  masked = weigh(balancer, losses, begun(name), np.ones(3, bool))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), masked, plain)


def random_presence() -> tuple[np.ndarray, np.ndarray]:
  """Losses of 40 steps, NaN where they are absent, and the masks."""
  losses, masks = random_losses(40), np.random.default_rng(2).random((40, 3)) < 0.6
  masks[~masks.any(axis=1), 0] = True  # a step without any task does not count
  losses[~masks] = np.nan
  return losses, masks


@pytest.mark.parametrize("name", ["uw", "uwlog"])
def test_uw_learns_from_the_steps_of_each_task(name):
  losses, masks = random_presence()
  three, one = make_loss(name, 3), make_loss(name, 1)
  state, _ = scan(three, losses, masks, three.init())
  for task in range(3):
    values = losses[masks[:, task], task, None]
    alone, _ = scan(one, values, np.ones_like(values, bool), one.init())
    np.testing.assert_allclose(state.log_variance[task], alone.log_variance[0], 1e-5)


@pytest.mark.parametrize("name", ["dwa", "dwalog"])
def test_dwa_keeps_the_latest_losses_of_each_task(name):
  losses, masks = random_presence()
  balancer = make_loss(name)
  state, _ = scan(balancer, losses, masks, balancer.init())
  for task in range(3):
    np.testing.assert_array_equal(
      state.window[:, task], losses[masks[:, task], task][-4:]
    )


@pytest.mark.parametrize("name", ["dwa", "dwalog"])
@pytest.mark.parametrize("kind", ["late", "gap", "now and then", "once", "no number"])
def test_dwa_weighs_equal_constant_losses_equally_whenever_they_are_there(name, kind):
  balancer = balancers.create(name, num_tasks=3).loss
  assert balancer is not None
  losses, masks = np.full((200, 3), 0.01, np.float32), np.ones((200, 3), bool)
  there = {
    "late": np.arange(200) >= 60,
    "gap": (np.arange(200) < 10) | (np.arange(200) >= 70),
    "now and then": np.arange(200) % 3 == 0,
    "once": np.arange(200) != 30,
    "no number": np.ones(200, bool),
  }[kind]
  masks[:, 1] = there
  losses[~there, 1] = np.nan
  if kind == "no number":
    losses[20, 1] = np.nan
  _, (_, weights) = scan(balancer, losses, masks, balancer.init())
  np.testing.assert_allclose(weights, masks, 1e-5)


@pytest.mark.parametrize("missing", [0, 1])
def test_dwa_compares_tasks_once_their_own_windows_are_full(missing):
  balancer = balancers.create("dwa", num_tasks=2, window=3).loss
  assert balancer is not None
  losses = np.stack([0.9 ** np.arange(20), np.ones(20)], axis=1).astype(np.float32)
  masks = np.ones((20, 2), bool)
  masks[0, missing] = False
  _, (_, weights) = scan(balancer, losses, masks, balancer.init())
  full = 6 if missing == 0 else 5  # the step of the sixth loss of the first task
  np.testing.assert_allclose(weights[1:full], 1, 1e-6)
  assert (weights[full:, 0] < 0.99).all()  # it falls, and the other does not


@pytest.mark.parametrize("name", ["igbv1", "igbv2"])
def test_base_losses_are_means_over_the_steps_of_each_task(name):
  losses, masks = random_presence()
  balancer = make_loss(name)
  state, _ = scan(balancer, losses, masks, balancer.init(jax.random.key(0)))
  base = slice(STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH)
  np.testing.assert_allclose(state.base_losses, np.nanmean(losses[base], axis=0), 1e-5)
  np.testing.assert_array_equal(state.base_count, masks[base].sum(axis=0))


@pytest.mark.parametrize("step", [8, 14, 23])
def test_igbv2_records_no_transition_with_a_step_that_lacks_a_task(step):
  balancer = make_loss("igbv2")
  masks = np.ones((24, 3), bool)
  losses = random_losses(24)
  masks[step, 1] = False
  losses[step, 1] = np.nan
  state, _ = scan(balancer, losses, masks, balancer.init(jax.random.key(0)))
  missing = 1 if step == 23 else 2  # to the step and from it
  assert begun("igbv2").replay.size - state.replay.size == missing
  assert state.num_nonfinite == 0
  if step == 23:
    np.testing.assert_array_equal(
      state.previous_losses, [losses[23, 0], losses[22, 1], losses[23, 2]]
    )


@pytest.mark.parametrize("step", [8, 14, 23])
def test_igbv2_records_no_transition_with_a_step_that_lacks_every_task(step):
  balancer = make_loss("igbv2")
  masks = np.ones((24, 3), bool)
  masks[step] = False
  state, _ = scan(balancer, random_losses(24), masks, balancer.init(jax.random.key(0)))
  # the state does not know of the step itself: one step fewer, and none from it
  missing = 1 if step == 23 else 2
  assert begun("igbv2").replay.size - state.replay.size == missing
  stored = np.asarray(state.replay.transitions.weights)[: state.replay.size]
  np.testing.assert_allclose(stored.sum(axis=1), 3, 1e-5)


def test_igbv2_learns_from_a_task_whose_labels_begin_after_the_base_epoch():
  balancer = make_loss("igbv2")
  masks = np.ones((24, 3), bool)
  masks[: 2 * STEPS_PER_EPOCH + 1, 1] = False
  losses = random_losses(24)
  losses[20, 1] = 1e12
  state, _ = scan(balancer, losses, masks, balancer.init(jax.random.key(0)))
  assert state.base_count[1] == 0
  full = 24 - 2 * STEPS_PER_EPOCH - 1
  assert state.num_outliers == 2  # to the step of the outlier and from it
  assert state.replay.size == full - 1 - 2
  assert state.replay.transitions.losses.max() < 1e6


def test_igbv2s_action_is_restricted_to_the_tasks_present():
  balancer = make_loss("igbv2")
  losses = random_losses(1, seed=1)[0]
  _, state = weigh(balancer, losses, begun("igbv2"), None)  # after which nothing is due
  _, whole = weigh(balancer, losses, state, None)
  _, partial = weigh(balancer, losses, state, MASK)
  shares = whole.weights[OTHERS] / whole.weights[OTHERS].sum()
  np.testing.assert_allclose(partial.weights[OTHERS], 2 * shares, 1e-5)


# ---------------------------------------------------------------------- gradients

PARAMS = {"trunk": jnp.zeros((4, 3)), "heads": jnp.zeros(5)}


@functools.cache
def make_gradient(name: str, num_tasks: int = 3, **options):
  balancer = balancers.create(name, num_tasks=num_tasks, **options).gradient
  assert balancer is not None
  return balancer


@functools.partial(jax.jit, static_argnums=0)
def update(balancer, task_grads, state, present):
  return balancer.update(task_grads, state, present=present)


def stacked(num_tasks: int = 3, seed: int = 0):
  generator = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: generator.normal(size=(num_tasks, *leaf.shape)).astype(np.float32),
    PARAMS,
  )


@pytest.mark.parametrize("name", GRADIENT_NAMES)
def test_an_absent_gradient_gives_nothing(name):
  balancer = make_gradient(name)
  results = []
  for bad in BAD:
    task_grads = stacked()
    for leaf in jax.tree.leaves(task_grads):
      leaf[1] = bad
    results.append(update(balancer, task_grads, balancer.init(PARAMS), MASK))
  assert results[0][1].weights[1] == 0
  for leaf in jax.tree.leaves(results[0]):
    assert np.isfinite(leaf).all()
  for result in results[1:]:
    assert_trees_equal(result, results[0])


def jacobian_of(kind: str, num_tasks: int) -> np.ndarray:
  generator = np.random.default_rng(num_tasks)
  gauss = generator.normal(size=(num_tasks, 50))
  one_zero = gauss.copy()
  one_zero[0] = 0
  return {
    "gaussian": gauss,
    "common direction": gauss + 3,
    "scales": gauss * 10.0 ** np.linspace(-12, 12, num_tasks)[:, None],
    "one zero": one_zero,
    "all zero": np.zeros_like(gauss),
    "dependent": generator.normal(size=(num_tasks, 1)) * gauss[:1],
  }[kind].astype(np.float32)


@pytest.mark.parametrize(
  "num_tasks", [3, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 6))]
)
@pytest.mark.parametrize(
  "kind",
  ["gaussian", "common direction", "scales", "one zero", "all zero", "dependent"],
)
@pytest.mark.parametrize("name", GRADIENT_NAMES)
def test_the_others_are_balanced_as_by_the_smaller_problem(name, kind, num_tasks):
  if name == "pcgrad" and num_tasks == 6:
    pytest.skip("its orders are random")
  absent = num_tasks - 1
  present = np.arange(num_tasks) != absent
  jacobian = jacobian_of(kind, num_tasks)
  jacobian[absent] = np.nan
  balancer, smaller = make_gradient(name, num_tasks), make_gradient(name, absent)
  params = jnp.zeros(50)
  result, state = update(balancer, jacobian, balancer.init(params), present)
  expected, expected_state = update(
    smaller, jacobian[:absent], smaller.init(params), None
  )
  terms = np.abs(expected_state.weights) * expected_state.gramian.norms
  np.testing.assert_allclose(result, expected, 1e-3, 1e-4 * terms.sum())
  if kind != "dependent":  # where the weights are not unique
    largest = np.abs(expected_state.weights).max()
    np.testing.assert_allclose(
      state.weights[:absent], expected_state.weights, 1e-3, 1e-6 * largest
    )
  assert state.weights[absent] == 0
  if name != "pcgrad":
    assert state.residual < 1e-4


@pytest.mark.parametrize("name", GRADIENT_NAMES)
def test_leaves_that_are_not_shared_lack_the_absent_task_too(name):
  balancer = balancers.create(
    name, num_tasks=3, shared={"trunk": True, "heads": False}
  ).gradient
  assert balancer is not None
  task_grads = stacked()
  task_grads["heads"][1] = np.nan
  result, state = update(balancer, task_grads, balancer.init(PARAMS), MASK)
  weights = [1, 1] if name in SUMMED else state.weights[OTHERS]
  expected = np.asarray(weights) @ task_grads["heads"][OTHERS]
  np.testing.assert_allclose(result["heads"], expected, 1e-4, 1e-5)


@pytest.mark.parametrize("name", GRADIENT_NAMES)
def test_without_any_task_the_gradient_is_zero_and_the_state_stays(name):
  balancer = make_gradient(name)
  _, before = update(balancer, stacked(), balancer.init(PARAMS), None)
  bad = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), stacked())
  result, after = update(balancer, bad, before, np.zeros(3, bool))
  for leaf in jax.tree.leaves(result):
    assert not leaf.any()
  assert not after.weights.any()
  assert_trees_equal(after._replace(weights=before.weights), before)


@pytest.mark.parametrize("name", GRADIENT_NAMES)
def test_a_mask_of_all_tasks_changes_no_gradient(name):
  balancer = make_gradient(name)
  plain = update(balancer, stacked(), balancer.init(PARAMS), None)
  masked = update(balancer, stacked(), balancer.init(PARAMS), np.ones(3, bool))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), masked, plain)


def test_nash_leaves_absent_tasks_out_of_the_sum_of_its_held_weights():
  balancer = make_gradient("nashmtl", update_every=4, max_norm=1e6)
  _, state = update(balancer, stacked(), balancer.init(PARAMS), None)
  held = np.array(state.weights)
  for step, mask in enumerate([MASK, ~MASK, np.ones(3, bool)]):
    task_grads = stacked(seed=step + 1)
    weights = np.where(mask, held, 0)
    expected = jax.tree.map(lambda g, w=weights: np.tensordot(w, g, 1), task_grads)
    combined, combined_state = balancer.update(
      expected, state, PARAMS, combined=True, present=mask
    )
    for leaf in jax.tree.leaves(task_grads):
      leaf[~mask] = np.nan
    result, state = update(balancer, task_grads, state, mask)
    np.testing.assert_array_equal(state.weights, weights)
    np.testing.assert_array_equal(state.held, held)
    assert state.steps_left == 2 - step
    assert_trees_equal(combined_state, state)
    for values in (result, combined):
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), values, expected
      )


def test_nash_holds_no_weight_for_a_task_that_was_absent_at_the_update():
  balancer = make_gradient("nashmtl", update_every=3)
  _, state = update(balancer, stacked(), balancer.init(PARAMS), MASK)
  assert state.held[1] == 0
  _, state = update(balancer, stacked(seed=1), state, np.ones(3, bool))
  assert state.weights[1] == 0


# --------------------------------------------------------------------- all of them


@pytest.mark.parametrize(
  ("present", "error", "message"),
  [
    ([True, True], ValueError, r"present must have the shape \(3,\).*got \(2,\)"),
    (True, ValueError, r"present must have the shape \(3,\).*got \(\)"),
    ([1, 0, 1], TypeError, "present must hold bools, .* got int32"),
    ([1.0, 0.0, 1.0], TypeError, "present must hold bools, .* got float32"),
  ],
)
@pytest.mark.parametrize("name", NAMES)
def test_the_mask_is_checked_while_tracing(name, present, error, message):
  loss = NAMES[name] == "loss"
  balancer = make_loss(name) if loss else make_gradient(name)
  state = balancer.init(jax.random.key(0) if loss else PARAMS)
  inputs = jnp.ones(3) if loss else stacked()

  def call(mask):
    return balancer.update(inputs, state, present=mask)

  with pytest.raises(error, match=message):
    jax.eval_shape(call, jnp.asarray(present))


@pytest.mark.parametrize("name", NAMES)
def test_masks_may_differ_from_step_to_step_without_a_retrace(name):
  traces = []
  loss = NAMES[name] == "loss"
  balancer = make_loss(name) if loss else make_gradient(name)
  state = balancer.init(jax.random.key(0) if loss else PARAMS)

  @jax.jit
  def step(inputs, state, present):
    traces.append(None)
    return balancer.update(inputs, state, present=present)[1]

  for mask in (MASK, ~MASK, np.ones(3, bool), np.zeros(3, bool)):
    state = step(np.ones(3, np.float32) if loss else stacked(), state, mask)
  assert len(traces) == 1
