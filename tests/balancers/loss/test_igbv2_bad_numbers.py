"""IGBv2: losses that never reach its agent, tasks that a step lacks, and storage."""

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.balancers.loss.igbv2_runs import (
  BASE_END,
  BUFFER,
  NUM_TASKS,
  STEPS_PER_EPOCH,
  make,
  num_agent_updates,
  scripted_losses,
  trajectory,
  updater,
)
from tests.balancers.loss.published import scan
from tests.balancers.losses import STEPS_PER_EPOCH as FEW_STEPS
from tests.balancers.losses import make_loss, random_losses

OTHERS, MASK = np.array([0, 2]), np.array([True, False, True])


# -------------------------------------------------------------------- bad numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [8, BASE_END, 20, 35])
def test_losses_that_are_not_finite_are_counted_and_never_stored(bad, step):
  balancer, update = make(), updater()
  losses = scripted_losses(45)
  losses[step, 1] = bad
  state = balancer.init(jax.random.key(0))
  for index, values in enumerate(losses):
    _, state = update(values, state)
    if index == step:
      assert state.num_nonfinite == 1
    for leaf in jax.tree.leaves(state):
      assert np.isfinite(leaf).all()
    assert (state.weights > 0).all()
  assert state.num_nonfinite == 1
  assert state.num_rejected == 0
  # neither the bad step nor the one after it made a transition
  clean, _ = trajectory()
  missing = sum(at >= BASE_END for at in (step, step + 1))
  assert (state.replay.next_slot + missing) % BUFFER == clean[-1].replay.next_slot


def test_updates_whose_result_is_not_finite_are_undone_and_counted():
  balancer, update = make(), updater()
  losses = 1e30 * scripted_losses(45)  # finite, but its square is not
  state = balancer.init(jax.random.key(0))
  for values in losses:
    _, state = update(values, state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.agent))
  assert state.num_rejected > 0
  assert state.num_nonfinite == state.num_outliers == 0


@pytest.mark.parametrize("bad", [1e12, 1e30])
@pytest.mark.parametrize("step", [8, BASE_END - 1, BASE_END, 20, 35])
def test_losses_out_of_all_proportion_are_counted_and_never_stored(bad, step):
  update = updater()
  losses = scripted_losses(45)
  base = np.delete(losses[STEPS_PER_EPOCH:BASE_END, 1], range(6)[step - 6 : step - 5])
  losses[step, 1] = bad
  state = make().init(jax.random.key(0))
  for values in losses:
    _, state = update(values, state)
    for leaf in jax.tree.leaves(state.replay.transitions):
      assert (np.abs(leaf) < 1e3).all()
  transitions = sum(at >= BASE_END for at in (step, step + 1))
  assert state.num_outliers == transitions + (step < BASE_END)
  assert state.num_nonfinite == state.num_rejected == 0
  np.testing.assert_allclose(state.base_losses[1], base.mean(), 1e-5)


def test_the_first_loss_of_the_base_epoch_counts_whatever_it_is():
  update = updater()
  losses = scripted_losses(45)
  losses[STEPS_PER_EPOCH, 1] = 1e12
  state = make().init(jax.random.key(0))
  for values in losses:
    _, state = update(values, state)
  np.testing.assert_allclose(state.base_losses[1], 1e12 / STEPS_PER_EPOCH, 1e-5)
  assert state.num_outliers == 0
  assert state.replay.size == BUFFER
  assert (np.abs(state.replay.transitions.losses) < 1e3).all()


@pytest.mark.parametrize(("ratio", "stored"), [(1e2, 1), (1e8, 0)])
def test_a_reward_out_of_all_proportion_is_not_stored(ratio, stored):
  states, _ = trajectory()
  losses = scripted_losses(45)[BASE_END]
  _, state = updater()(losses, states[BASE_END], learning_rate_ratio=jnp.float32(ratio))
  assert state.replay.size == stored
  assert state.num_outliers == 1 - stored


def test_no_update_without_a_transition():
  balancer, update = make(), updater()
  state = balancer.init(jax.random.key(0))
  for _ in range(30):
    _, state = update(jnp.array([1.0, jnp.nan, 1.0]), state)
  assert state.replay.size == 0
  assert num_agent_updates(state) == 0
  assert state.num_nonfinite == 30


# -------------------------------------------------------------------- absent tasks


@functools.cache
def small():
  return make_loss("igbv2", 3)


@functools.cache
def begun():
  """A state after all phases have begun, every task present."""
  return scan(small(), random_losses(24, 3), np.ones((24, 3), bool))[0]


@jax.jit
def weigh(losses, state, present):
  return small().update(losses, state, present=present)


@pytest.mark.parametrize("step", [8, 14, 23])
def test_records_no_transition_with_a_step_that_lacks_a_task(step):
  masks = np.ones((24, 3), bool)
  losses = random_losses(24, 3)
  masks[step, 1] = False
  losses[step, 1] = np.nan
  state, _ = scan(small(), losses, masks)
  missing = 1 if step == 23 else 2  # to the step and from it
  assert begun().replay.size - state.replay.size == missing
  assert state.num_nonfinite == 0
  if step == 23:
    np.testing.assert_array_equal(
      state.previous_losses, [losses[23, 0], losses[22, 1], losses[23, 2]]
    )


@pytest.mark.parametrize("step", [8, 14, 23])
def test_records_no_transition_with_a_step_that_lacks_every_task(step):
  masks = np.ones((24, 3), bool)
  masks[step] = False
  state, _ = scan(small(), random_losses(24, 3), masks)
  # the state does not know of the step itself: one step fewer, and none from it
  missing = 1 if step == 23 else 2
  assert begun().replay.size - state.replay.size == missing
  stored = np.asarray(state.replay.transitions.weights)[: state.replay.size]
  np.testing.assert_allclose(stored.sum(axis=1), 3, 1e-5)


def test_learns_from_a_task_whose_labels_begin_after_the_base_epoch():
  masks = np.ones((24, 3), bool)
  masks[: 2 * FEW_STEPS + 1, 1] = False
  losses = random_losses(24, 3)
  losses[20, 1] = 1e12
  state, _ = scan(small(), losses, masks)
  assert state.base_count[1] == 0
  full = 24 - 2 * FEW_STEPS - 1
  assert state.num_outliers == 2  # to the step of the outlier and from it
  assert state.replay.size == full - 1 - 2
  assert state.replay.transitions.losses.max() < 1e6


def test_the_action_is_restricted_to_the_tasks_present():
  losses = random_losses(1, 3, seed=1)[0]
  _, state = weigh(losses, begun(), np.ones(3, bool))  # after which nothing is due
  _, whole = weigh(losses, state, np.ones(3, bool))
  _, partial = weigh(losses, state, MASK)
  shares = whole.weights[OTHERS] / whole.weights[OTHERS].sum()
  np.testing.assert_allclose(partial.weights[OTHERS], 2 * shares, 1e-5)


# ---------------------------------------------------------------- vmap and storage


@pytest.mark.slow
@pytest.mark.parametrize("shared_step", [True, False])
def test_vmap_over_seeds_equals_separate_runs(shared_step):
  """Also where the seeds' buffers fill differently and one has nothing to learn."""
  balancer = make()
  num_steps = 26
  losses = np.stack([scripted_losses(num_steps, seed) for seed in range(3)], axis=1)
  losses[:21, 1, 0] = np.nan
  losses[14:17, 2, 1] = np.nan
  keys = jax.random.split(jax.random.key(0), 3)
  axes = jax.tree.map(lambda _: 0, balancer.init(keys[0]))
  if shared_step:
    axes = axes._replace(step=None)
  states = jax.vmap(balancer.init, out_axes=axes)(keys)
  update = jax.jit(jax.vmap(balancer.update, in_axes=(0, axes), out_axes=(0, axes)))
  for values in losses:
    _, states = update(values, states)

  single = updater()
  for index, key in enumerate(keys):
    state = balancer.init(key)
    for values in losses:
      _, state = single(values[index], state)
    mapped = jax.tree.map(
      lambda leaf, axis, i=index: leaf if axis is None else leaf[i],
      states,
      axes,
      is_leaf=lambda leaf: leaf is None,
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), mapped, state
    )


@pytest.mark.parametrize("levels", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_agents_of_all_seeds_learn_in_a_branch_and_not_at_every_step(levels):
  balancer = make()
  init, update = balancer.init, balancer.update
  for _ in range(levels):
    init, update = jax.vmap(init), jax.vmap(update, in_axes=(None, 0))
  states = init(jax.random.split(jax.random.key(0), (2,) * levels))
  jaxpr = jax.make_jaxpr(update)(jnp.ones(NUM_TASKS), states)

  def loops(jaxpr, inside_branch):
    """Whether each loop of the program lies inside a branch."""
    for equation in jaxpr.eqns:
      if equation.primitive.name == "while":
        yield inside_branch
      branch = inside_branch or equation.primitive.name == "cond"
      for parameter in jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
      ):
        inner = getattr(parameter, "jaxpr", parameter)
        if hasattr(inner, "eqns"):
          yield from loops(inner, branch)

  found = list(loops(jaxpr.jaxpr, False))
  assert found
  assert all(found)


def test_the_state_continues_bit_for_bit_with_a_buffer_half_full(tmp_path):
  states, _ = trajectory()
  half = states[BASE_END + BUFFER // 2]
  assert half.replay.size == BUFFER // 2
  template = make().init(jax.random.key(9))
  by_flax = flax.serialization.from_bytes(template, flax.serialization.to_bytes(half))
  ocp = pytest.importorskip("orbax.checkpoint")
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "state", half)
    checkpointer.wait_until_finished()
    by_orbax = checkpointer.restore(tmp_path / "state", template)
  update = updater()
  for restored in (by_flax, by_orbax):
    state = restored
    for losses in scripted_losses(45)[BASE_END + BUFFER // 2 :]:
      _, state = update(losses, state)
    jax.tree.map(np.testing.assert_array_equal, state, states[-1])
