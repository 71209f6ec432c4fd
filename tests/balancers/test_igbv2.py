"""IGBv2: its schedule against NumPy, what it learns, and what never reaches it."""

import functools
import inspect

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from benchmarks import igbv2_learns
from igb_jax import balancers
from igb_jax.balancers import sac

NUM_TASKS = 3
STEPS_PER_EPOCH = 6
BUFFER = 16
SMALL = {
  "buffer_size": BUFFER, "update_every": 5, "num_updates": 4, "batch_size": 8,
  "hidden_sizes": (16, 16),
}  # fmt: skip
WARM_UP, START, BASE_END = 3 * STEPS_PER_EPOCH, 5 * STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH


def make(**hyperparameters) -> balancers.LossBalancer:
  return balancers.igbv2(NUM_TASKS, STEPS_PER_EPOCH, **{**SMALL, **hyperparameters})


def scripted_losses(num_steps: int, seed: int = 0) -> np.ndarray:
  generator = np.random.default_rng(seed)
  return np.exp(generator.normal(size=(num_steps, NUM_TASKS))).astype(np.float32)


@functools.lru_cache
def trajectory(num_steps: int = 45, seed: int = 0):
  """States before and after every step, and the weighted losses."""
  balancer = make()
  update = jax.jit(balancer.update)
  state = balancer.init(jax.random.key(seed))
  states, weighted = [state], []
  for losses in scripted_losses(num_steps):
    values, state = update(losses, state)
    states.append(state)
    weighted.append(values)
  return states, np.array(weighted)


def num_agent_updates(state) -> int:
  return int(state.agent.actor_optimizer[0].count)


def test_no_transition_before_the_base_epoch_has_ended():
  states, _ = trajectory()
  sizes = [int(state.replay.size) for state in states]
  assert sizes[: BASE_END + 1] == [0] * (BASE_END + 1)
  expected = [min(number, BUFFER) for number in range(1, 46 - BASE_END)]
  assert sizes[BASE_END + 1 :] == expected  # one more at each step, then it wraps


def test_transitions_equal_those_computed_by_hand():
  states, _ = trajectory()
  losses = scripted_losses(45)
  base = losses[STEPS_PER_EPOCH:BASE_END].mean(axis=0)
  weights = np.array([state.weights for state in states[1:]])
  ring = {}
  for step in range(BASE_END, 45):
    reward = ((losses[step - 1] - losses[step]) / base).min()
    entry = losses[step - 1], weights[step - 1], reward, losses[step]
    ring[(step - BASE_END) % BUFFER] = entry
    stored = states[step + 1].replay.transitions
    for slot, expected in ring.items():
      for actual, value in zip(stored, expected, strict=True):
        np.testing.assert_allclose(actual[slot], value, 1e-4, 1e-6)
  np.testing.assert_allclose(states[-1].base_losses, base, 1e-5)


def test_reward_grows_with_the_learning_rate_ratio():
  states, _ = trajectory()
  state, losses = states[BASE_END], scripted_losses(45)[BASE_END]
  _, once = make().update(losses, state)
  _, thrice = make().update(losses, state, learning_rate_ratio=jnp.float32(3.0))
  assert once.replay.transitions.reward[0] != 0
  np.testing.assert_allclose(
    thrice.replay.transitions.reward[0], 3 * once.replay.transitions.reward[0], 1e-6
  )


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_ratio_that_makes_no_sense_is_refused(ratio):
  balancer = make()
  state = balancer.init(jax.random.key(0))
  with pytest.raises(ValueError, match="learning_rate_ratio must be finite and pos"):
    balancer.update(jnp.ones(NUM_TASKS), state, learning_rate_ratio=ratio)


def test_number_and_steps_of_the_agents_updates():
  states, _ = trajectory()
  for step in range(45):
    before, after = (num_agent_updates(states[step + k]) for k in (0, 1))
    due = step >= WARM_UP and step % 5 == 0
    fill = int(states[step + 1].replay.size) / BUFFER
    assert after - before == (int(4 * (1 + fill)) if due else 0)
    for before_leaf, after_leaf in zip(
      jax.tree.leaves(states[step].agent),
      jax.tree.leaves(states[step + 1].agent),
      strict=True,
    ):
      assert due == (before_leaf != after_leaf).any() or before_leaf.size < 20


def test_the_size_of_a_batch_grows_with_the_buffer(monkeypatch):
  seen, noises, hyperparameters = [], [], []
  agent = sac.agent

  def spy(*arguments, **keywords):
    hyperparameters.append(keywords)
    original = agent(*arguments, **keywords)

    def update(state, batch, noise, mask):
      jax.debug.callback(lambda mask: seen.append(mask.copy()), mask)
      jax.debug.callback(lambda *noise: noises.extend(noise), *noise)
      return original.update(state, batch, noise, mask)

    return original._replace(update=update)

  monkeypatch.setattr(sac, "agent", spy)
  balancer = make(num_updates=1, gamma=0.5, tau=0.1, learning_rate=1e-2)
  assert hyperparameters == [
    {
      "gamma": 0.5,
      "tau": 0.1,
      "learning_rate": 1e-2,
      "initial_alpha": 0.2,
      "hidden_sizes": (16, 16),
    }
  ]
  states, _ = trajectory()
  losses = scripted_losses(45)
  for step in (20, 25, 40):
    seen.clear()
    _, after = balancer.update(losses[step], states[step])
    jax.effects_barrier()
    size = int(after.replay.size)
    assert [mask.shape for mask in seen] == [(16,)] * int(1 + size / BUFFER)
    assert seen[0].sum() == int(8 * (1 + size / BUFFER))
  # fresh noise for both actions of every update of every round
  assert len({noise.tobytes() for noise in noises}) == len(noises) >= 8


def test_igbv2_and_its_agent_have_the_same_defaults():
  of_balancer = inspect.signature(balancers.igbv2).parameters
  for name, parameter in inspect.signature(sac.agent).parameters.items():
    assert of_balancer[name].default == parameter.default


def test_the_ratio_is_held_constant_under_differentiation():
  states, _ = trajectory()
  losses = scripted_losses(45)

  def total(ratio):
    return make().update(losses[40], states[40], learning_rate_ratio=ratio)[0].sum()

  assert jax.grad(total)(jnp.float32(2.0)) == 0


def test_a_ratio_that_is_no_scalar_is_refused():
  states, _ = trajectory()
  with pytest.raises(
    ValueError, match=r"learning_rate_ratio must be a scalar, got \(1,"
  ):
    make().update(jnp.ones(NUM_TASKS), states[0], learning_rate_ratio=jnp.ones(1))


def test_sizes_that_would_overflow_are_refused():
  with pytest.raises(ValueError, match=r"below 2\^31, got 4, 4096 and 1000000"):
    make(batch_size=4096, buffer_size=1_000_000)


def test_other_epochs_of_the_schedule():
  balancer = make(base_epoch=0, warmup_epochs=1, start_epoch=2, update_every=1)
  update = jax.jit(balancer.update)
  state = balancer.init(jax.random.key(0))
  agent = sac.agent(NUM_TASKS, hidden_sizes=(16, 16))
  for step, losses in enumerate(scripted_losses(15)):
    before = num_agent_updates(state)
    _, state = update(losses, state, deterministic=True)
    assert state.replay.size == max(0, step + 1 - STEPS_PER_EPOCH)
    assert (num_agent_updates(state) > before) == (step >= STEPS_PER_EPOCH)
    mean = agent.act(state.agent, jnp.asarray(losses), jnp.zeros(NUM_TASKS))
    acts = np.allclose(state.weights, mean, 1e-5)
    assert acts == (step >= 2 * STEPS_PER_EPOCH)


def test_weights_are_random_before_the_start_epoch_and_the_actors_after():
  states, weighted = trajectory()
  losses = scripted_losses(45)
  balancer = make()
  agent = sac.agent(NUM_TASKS, hidden_sizes=(16, 16))
  for step in range(45):
    _, state = balancer.update(losses[step], states[step], deterministic=True)
    mean = agent.act(state.agent, jnp.asarray(losses[step]), jnp.zeros(NUM_TASKS))
    chosen = states[step + 1].weights
    if step < START:  # by chance, whatever the actor says
      np.testing.assert_allclose(state.weights, chosen, 1e-6)
      assert (np.abs(state.weights - mean) > 1e-4).any()
    else:
      np.testing.assert_allclose(state.weights, mean, 1e-6)
      assert (np.abs(state.weights - chosen) > 1e-4).any()  # a sample is not the mean
    np.testing.assert_allclose(chosen.sum(), NUM_TASKS, 1e-5)
    assert (chosen > 0).all()
    np.testing.assert_allclose(
      weighted[step], chosen * np.log(losses[step]), 1e-5, 1e-6
    )


def test_random_weights_are_softmaxes_of_normal_logits():
  balancer = balancers.igbv2(NUM_TASKS, 1000, **SMALL)

  @jax.jit
  def run(state):
    def step(state, _):
      state = balancer.update(jnp.ones(NUM_TASKS), state)[1]
      return state, state.weights

    return jax.lax.scan(step, state, length=2000)[1]

  logits = np.log(run(balancer.init(jax.random.key(1))))
  differences = logits[:, 0] - logits[:, 1]
  assert abs(differences.mean()) < 0.15
  assert abs(differences.std() - np.sqrt(2)) < 0.15


# -------------------------------------------------------------------- bad numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [8, BASE_END, 20, 35])
def test_losses_that_are_not_finite_are_counted_and_never_stored(bad, step):
  balancer = make()
  update = jax.jit(balancer.update)
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
  balancer = make()
  update = jax.jit(balancer.update)
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
  update = jax.jit(make().update)
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
  update = jax.jit(make().update)
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
  _, state = make().update(losses, states[BASE_END], learning_rate_ratio=ratio)
  assert state.replay.size == stored
  assert state.num_outliers == 1 - stored


def test_no_update_without_a_transition():
  balancer = make()
  update = jax.jit(balancer.update)
  state = balancer.init(jax.random.key(0))
  for _ in range(30):
    _, state = update(jnp.array([1.0, jnp.nan, 1.0]), state)
  assert state.replay.size == 0
  assert num_agent_updates(state) == 0
  assert state.num_nonfinite == 30


# ------------------------------------------------------------------ vmap and storage


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

  single = jax.jit(balancer.update)
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


@pytest.mark.parametrize("levels", [1, 2])
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
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "state", half)
    checkpointer.wait_until_finished()
    by_orbax = checkpointer.restore(tmp_path / "state", template)
  update = jax.jit(make().update)
  for restored in (by_flax, by_orbax):
    state = restored
    for losses in scripted_losses(45)[BASE_END + BUFFER // 2 :]:
      _, state = update(losses, state)
    jax.tree.map(np.testing.assert_array_equal, state, states[-1])


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_for_every_platform(platform):
  balancer = make()
  state = balancer.init(jax.random.key(0))
  exported = jax.export.export(jax.jit(balancer.update), platforms=[platform])(
    jnp.ones(NUM_TASKS), state
  )
  assert "f64" not in exported.mlir_module()


# ------------------------------------------------------------------------ learning


def test_the_actor_learns_which_task_needs_the_weight():
  """At least 9 of 10 seeds; random weights stay where they are."""
  num_steps = 2000
  igbv2 = balancers.igbv2(igbv2_learns.NUM_TASKS, igbv2_learns.STEPS_PER_EPOCH)
  learnt = igbv2_learns.simulate(igbv2, num_steps=num_steps, num_seeds=10)
  before = learnt[:, : 5 * igbv2_learns.STEPS_PER_EPOCH].mean(axis=1)
  after = learnt[:, -500:].mean(axis=1)
  assert (np.abs(before - 1) < 0.15).all()
  assert (after > 1.4).sum() >= 9
  rlw = balancers.random_loss_weighting(igbv2_learns.NUM_TASKS, log=True)
  random = igbv2_learns.simulate(rlw, num_steps=num_steps, num_seeds=10)
  assert (np.abs(random[:, -500:].mean(axis=1) - 1) < 0.15).all()
