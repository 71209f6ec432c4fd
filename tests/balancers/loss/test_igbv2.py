"""IGBv2: its schedule against NumPy, and what its actor has to say."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers import sac
from tests.balancers.loss.igbv2_runs import (
  BASE_END,
  BUFFER,
  NUM_TASKS,
  SMALL,
  START,
  STEPS_PER_EPOCH,
  WARM_UP,
  make,
  num_agent_updates,
  scripted_losses,
  trajectory,
  updater,
)


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
  _, once = updater()(losses, state)
  _, thrice = updater()(losses, state, learning_rate_ratio=jnp.float32(3.0))
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
  options = {"num_updates": 1, "gamma": 0.5, "tau": 0.1, "learning_rate": 1e-2}
  balancer = balancers.igbv2(NUM_TASKS, STEPS_PER_EPOCH, **{**SMALL, **options})
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
  of_agent = inspect.signature(sac.agent).parameters
  assert {*of_agent} - {*of_balancer} == {"density"}  # the published one
  for name, parameter in of_agent.items() - {("density", of_agent["density"])}:
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


def test_other_epochs_of_the_schedule():
  balancer = make(base_epoch=0, warmup_epochs=1, start_epoch=2, update_every=1)
  update = jax.jit(functools.partial(balancer.update, deterministic=True))
  state = balancer.init(jax.random.key(0))
  agent = sac.agent(NUM_TASKS, hidden_sizes=(16, 16))
  act = jax.jit(agent.act)
  for step, losses in enumerate(scripted_losses(15)):
    before = num_agent_updates(state)
    _, state = update(losses, state)
    assert state.replay.size == max(0, step + 1 - STEPS_PER_EPOCH)
    assert (num_agent_updates(state) > before) == (step >= STEPS_PER_EPOCH)
    mean = act(state.agent, jnp.asarray(losses), jnp.zeros(NUM_TASKS))
    acts = np.allclose(state.weights, mean, 1e-5)
    assert acts == (step >= 2 * STEPS_PER_EPOCH)


def test_weights_are_random_before_the_start_epoch_and_the_actors_after():
  states, weighted = trajectory()
  losses = scripted_losses(45)
  deterministic = jax.jit(functools.partial(make().update, deterministic=True))
  agent = sac.agent(NUM_TASKS, hidden_sizes=(16, 16))
  act = jax.jit(agent.act)
  for step in range(45):
    _, state = deterministic(losses[step], states[step])
    mean = act(state.agent, jnp.asarray(losses[step]), jnp.zeros(NUM_TASKS))
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


@pytest.mark.parametrize(
  ("options", "error", "message"),
  [
    ({"warmup_epochs": -1}, ValueError, "warmup_epochs must be at least 0, got -1"),
    ({"start_epoch": 0.5}, TypeError, r"start_epoch must be an integer, got 0\.5"),
    ({"update_every": 0}, ValueError, "update_every must be at least 1, got 0"),
    ({"num_updates": 0}, ValueError, "num_updates must be at least 1, got 0"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"buffer_size": 0}, ValueError, "buffer_size must be at least 1, got 0"),
    ({"learning_rate": 0.0}, ValueError, r"learning_rate must be .*got 0\.0"),
    ({"gamma": 1.0}, ValueError, r"gamma must be below 1, got 1\.0"),
    ({"gamma": -0.5}, ValueError, r"gamma must be .*got -0\.5"),
    ({"tau": 1.5}, ValueError, r"tau must be at most 1, got 1\.5"),
    ({"tau": np.nan}, ValueError, "tau must be .*got nan"),
    ({"initial_alpha": 0}, ValueError, "initial_alpha must be .*got 0"),
    ({"hidden_sizes": (128, 0)}, ValueError, "hidden_sizes must be at least 1, got 0"),
    ({"hidden_sizes": (1.5,)}, TypeError, r"hidden_sizes must be .*got 1\.5"),
    ({"batch_size": 4096, "buffer_size": 1_000_000}, ValueError, "4, 4096 and 1000000"),
  ],
)
def test_hyperparameters_are_checked(options, error, message):
  with pytest.raises(error, match=message):
    balancers.igbv2(3, 3, **{**SMALL, **options})


@pytest.mark.slow
def test_numbers_may_be_traced():
  """All that a run leaves behind depends on them, traced or not."""
  numbers = {"learning_rate": 0.05, "gamma": 0.5, "tau": 0.5, "initial_alpha": 0.9}

  def run(numbers):
    balancer = balancers.igbv2(
      3, 1, base_epoch=0, warmup_epochs=1, start_epoch=1, update_every=2, num_updates=2,
      batch_size=4, buffer_size=10, hidden_sizes=(4,), **numbers,
    )  # fmt: skip
    steps = jnp.arange(8.0)[:, None]
    losses = jnp.array([3.0, 2.0, 1.5]) / (1 + steps * jnp.array([0.3, 0.1, 0.2]))

    def step(state, losses):
      weighted, state = balancer.update(losses, state)
      return state, weighted

    state = jax.lax.scan(step, balancer.init(jax.random.key(0)), losses)[0]
    floats = [x.ravel() for x in jax.tree.leaves(state) if x.dtype == jnp.float32]
    return jnp.concatenate(floats)

  traced = jax.jit(run)
  expected = jax.jit(lambda: run(numbers))()
  np.testing.assert_allclose(traced(numbers), expected, 1e-4, 1e-5)
  for name, value in numbers.items():
    halved = traced(numbers | {name: value / 2})
    assert not np.allclose(halved, expected, 1e-7, 1e-9), name
