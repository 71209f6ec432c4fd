"""The soft actor-critic agent against the published one, and its replay buffer."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.balancers import sac

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "sac.npz")


def dense(prefix: str) -> dict:
  return {"kernel": GOLDEN[f"{prefix}.weight"].T, "bias": GOLDEN[f"{prefix}.bias"]}


def golden_actor(step: int) -> dict:
  prefix = f"step{step}/actor"
  return {
    "params": {
      "hidden": {
        "Dense_0": dense(f"{prefix}/a_net.0"),
        "Dense_1": dense(f"{prefix}/a_net.2"),
      },
      "Dense_0": dense(f"{prefix}/mu_layer"),
      "Dense_1": dense(f"{prefix}/log_std_layer"),
    }
  }


def golden_critic(step: int, which: str) -> dict:
  prefix = f"step{step}/{which}"
  params = {}
  for index, name in enumerate(("first", "second"), start=1):
    params[name] = {
      "Dense_0": dense(f"{prefix}/Q_{index}.0"),
      "Dense_1": dense(f"{prefix}/Q_{index}.2"),
    }
    params[f"Dense_{index - 1}"] = dense(f"{prefix}/Q_{index}.4")
  return {"params": params}


def golden_state(agent: sac.Agent) -> sac.AgentState:
  return agent.init(jax.random.key(0))._replace(
    actor=jax.tree.map(jnp.asarray, golden_actor(0)),
    critic=jax.tree.map(jnp.asarray, golden_critic(0, "critic")),
    target_critic=jax.tree.map(jnp.asarray, golden_critic(0, "target")),
    log_alpha=jnp.float32(GOLDEN["step0/log_alpha"]),
  )


def golden_batch(update: int) -> tuple[sac.Transitions, sac.Noise]:
  rows = GOLDEN[f"update{update}/indices"]
  batch = sac.Transitions(
    GOLDEN["buffer_state"][rows],
    GOLDEN["buffer_action"][rows],
    GOLDEN["buffer_reward"][rows, 0],
    GOLDEN["buffer_next_state"][rows],
  )
  noise = sac.Noise(
    GOLDEN[f"update{update}/noise_next"], GOLDEN[f"update{update}/noise_pi"]
  )
  return batch, noise


def assert_close(actual, expected, tolerance=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, tolerance, tolerance),
    actual,
    expected,
  )


@pytest.mark.parametrize("padding", [0, 128])
def test_three_updates_equal_the_published_agent(padding):
  agent = sac.agent(num_tasks=3)
  state = golden_state(agent)
  start = state
  update = jax.jit(agent.update)
  mask = jnp.repeat(jnp.array([1.0, 0.0]), np.array([128, padding]))
  for index in range(3):
    batch, noise = golden_batch(index)
    # what the mask leaves out may be anything
    batch, noise = jax.tree.map(
      lambda x: np.concatenate([x, 7 + np.zeros((padding, *x.shape[1:]), x.dtype)]),
      (batch, noise),
    )
    state = update(state, batch, noise, mask)
    assert_close(state.actor, golden_actor(index + 1))
    assert_close(state.critic, golden_critic(index + 1, "critic"))
    assert_close(state.target_critic, golden_critic(index + 1, "target"))
    assert_close(state.log_alpha, GOLDEN[f"step{index + 1}/log_alpha"])
  # the numbers move by more than the tolerance, or this would show nothing
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state, start)
  for part in (moved.actor, moved.critic, moved.log_alpha):
    assert max(jax.tree.leaves(part)) > 5e-4


def test_initial_parameters_have_the_published_shapes_and_bounds():
  state = sac.agent(num_tasks=3).init(jax.random.key(0))
  for actual, expected in (
    (state.actor, golden_actor(0)),
    (state.critic, golden_critic(0, "critic")),
  ):
    assert jax.tree.map(jnp.shape, actual) == jax.tree.map(jnp.shape, expected)
  hidden = state.actor["params"]["hidden"]
  assert 0.9 / np.sqrt(3) < np.abs(hidden["Dense_0"]["kernel"]).max() <= 1 / np.sqrt(3)
  bound = 1 / np.sqrt(128)
  assert 0.9 * bound < np.abs(hidden["Dense_1"]["kernel"]).max() <= bound
  assert_close(state.target_critic, state.critic, 0)
  np.testing.assert_allclose(state.log_alpha, np.log(0.2), 1e-6)


@pytest.mark.parametrize("num_tasks", [1, 2, 11, 64])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_actions_are_positive_and_sum_to_the_number_of_tasks(num_tasks, scale):
  agent = sac.agent(num_tasks=num_tasks)
  state = agent.init(jax.random.key(0))
  losses = scale * jnp.arange(1.0, num_tasks + 1)
  weights = agent.act(state, losses, jax.random.normal(jax.random.key(1), (num_tasks,)))
  assert (weights > 0).all()
  np.testing.assert_allclose(weights.sum(), num_tasks, 1e-5)


def test_it_learns_which_action_is_rewarded():
  """One step of a bandit: the reward is the weight of the second task."""
  agent = sac.agent(num_tasks=2, learning_rate=3e-3, gamma=0.0)

  @jax.jit
  def train(key):
    state = agent.init(key)

    def body(index, state):
      keys = jax.random.split(jax.random.fold_in(key, index), 4)
      losses = jnp.ones((64, 2))
      noise = jax.random.normal(keys[0], (64, 2))
      weights = jax.vmap(agent.act, (None, 0, 0))(state, losses, noise)
      batch = sac.Transitions(losses, weights, 10 * weights[:, 1], losses)
      noise = sac.Noise(*(jax.random.normal(k, (64, 2)) for k in keys[1:3]))
      return agent.update(state, batch, noise, jnp.ones(64))

    state = jax.lax.fori_loop(0, 400, body, state)
    return agent.act(state, jnp.ones(2), jnp.zeros(2))

  for seed in range(3):
    assert train(jax.random.key(seed))[1] > 1.5


# ------------------------------------------------------------------------- replay


def transition(value: float) -> sac.Transitions:
  vector = jnp.full(2, value)
  return sac.Transitions(vector, vector + 0.1, jnp.float32(value + 0.2), vector + 0.3)


def test_the_ring_buffer_wraps():
  replay = sac.empty(3, num_tasks=2)
  sizes = []
  for value in range(5):
    replay = sac.add(replay, transition(value), jnp.bool_(True))
    sizes.append(int(replay.size))
  assert sizes == [1, 2, 3, 3, 3]
  assert replay.next_slot == 2
  assert replay.transitions.losses[:, 0].tolist() == [3, 4, 2]
  np.testing.assert_allclose(replay.transitions.weights[:, 1], [3.1, 4.1, 2.1], 1e-6)
  np.testing.assert_allclose(replay.transitions.reward, [3.2, 4.2, 2.2], 1e-6)
  np.testing.assert_allclose(replay.transitions.next_losses[:, 0], [3.3, 4.3, 2.3])


def test_nothing_is_stored_where_the_condition_fails():
  replay = sac.add(sac.empty(3, num_tasks=2), transition(1.0), jnp.bool_(True))
  same = sac.add(replay, transition(jnp.nan), jnp.bool_(False))
  jax.tree.map(np.testing.assert_array_equal, same, replay)


def test_samples_uniformly_what_is_there():
  replay = sac.empty(10, num_tasks=2)
  for value in range(4):
    replay = sac.add(replay, transition(value), jnp.bool_(True))
  drawn = sac.sample(replay, 4000, jax.random.key(0))
  values, counts = np.unique(drawn.losses[:, 0], return_counts=True)
  assert values.tolist() == [0, 1, 2, 3]
  assert (np.abs(counts - 1000) < 150).all()
  np.testing.assert_allclose(drawn.reward, drawn.losses[:, 0] + 0.2, 1e-6)
