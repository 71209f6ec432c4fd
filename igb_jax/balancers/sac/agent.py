"""Soft actor-critic (SAC) whose actions are task weights.

State s = L, action a = K softmax(u) with u = mu(s) + std(s) z, z ~ N(0, I). One update
on a batch of transitions (s, a, r, s'):

    y       = r + gamma (min_i Qbar_i(s', a') - alpha log pi(a' | s')),  a' ~ pi(s')
    critic  : descend  sum_i mean (Q_i(s, a) - y)^2
    actor   : descend  mean (alpha log pi(b | s) - min_i Q_i(s, b)),     b ~ pi(s)
    alpha   : descend  -log alpha mean (log pi(b | s) + target entropy)
    target  : Qbar <- (1 - tau) Qbar + tau Q

in this order, each by an Adam of its own; the target entropy is -K. The published
log pi corrects for a tanh squash, though the action here is a softmax, which is not
even invertible. It is what produced the published numbers, so it is kept; see
`densities`.

Reference: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018; Dai
et al., UAI 2023, section 3.3.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_count, check_positive
from igb_jax.balancers.common import softmax_weights
from igb_jax.balancers.sac.densities import SQUASHED, Density
from igb_jax.balancers.sac.networks import Actor, TwinCritic
from igb_jax.balancers.sac.replay import Transitions

Params = Any  # flax types its variables too widely to compute with


class AgentState(NamedTuple):
  """State of the agent.

  Attributes:
    actor: parameters of the actor.
    critic: parameters of the twin critics.
    target_critic: their slow copy.
    log_alpha: f32[], logarithm of the temperature.
    actor_optimizer: Adam's state for the actor.
    critic_optimizer: Adam's state for the critics.
    alpha_optimizer: Adam's state for the temperature.
  """

  actor: Params
  critic: Params
  target_critic: Params
  log_alpha: jax.Array
  actor_optimizer: optax.OptState
  critic_optimizer: optax.OptState
  alpha_optimizer: optax.OptState


class Noise(NamedTuple):
  """Standard normals that an update uses.

  Attributes:
    next_action: f32[N, K], for the action a' at the next state.
    action: f32[N, K], for the action b at the state.
  """

  next_action: jax.Array
  action: jax.Array


class ActFn(Protocol):
  """`act(state, losses, noise) -> weights`."""

  def __call__(
    self, state: AgentState, losses: jax.Array, noise: jax.Array
  ) -> jax.Array:
    """The action.

    Args:
      state: the agent's state.
      losses: f32[K].
      noise: f32[K], standard normals; zeros act with the mean.

    Returns:
      f32[K], positive weights that sum to K.
    """
    ...


class AgentUpdateFn(Protocol):
  """`update(state, batch, noise, mask) -> state`."""

  def __call__(
    self, state: AgentState, batch: Transitions, noise: Noise, mask: jax.Array
  ) -> AgentState:
    """Learns from a batch.

    Args:
      state: the agent's state.
      batch: `Transitions` of leading axis N.
      noise: the random numbers of the actions.
      mask: f32[N], 1 for the transitions that count and 0 for the others.

    Returns:
      The new state.
    """
    ...


class Agent(NamedTuple):
  """The agent: three pure functions.

  Attributes:
    init: `init(key) -> AgentState`.
    act: see `ActFn`.
    update: see `AgentUpdateFn`.
  """

  init: Callable[[jax.Array], AgentState]
  act: ActFn
  update: AgentUpdateFn


def agent(
  num_tasks: int,
  *,
  learning_rate: jax.typing.ArrayLike = 3e-4,
  gamma: jax.typing.ArrayLike = 0.99,
  tau: jax.typing.ArrayLike = 0.005,
  initial_alpha: jax.typing.ArrayLike = 0.2,
  hidden_sizes: Sequence[int] = (128, 128),
  density: Density = SQUASHED,
) -> Agent:
  """Makes the agent.

  Args:
    num_tasks: K.
    learning_rate: the learning rate of the three Adams.
    gamma: discount of the next state's value, in [0, 1).
    tau: share of the critics that enters their slow copy at each update, in (0, 1].
    initial_alpha: temperature at the start.
    hidden_sizes: widths of the hidden layers of actor and critics.
    density: how probable an action is, and the target entropy.

  Returns:
    An `Agent`.

  Raises:
    TypeError: an argument is not a number of the kind that is needed.
    ValueError: an argument is out of its range.

  Example:
    >>> sac = agent(num_tasks=3)
    >>> state = sac.init(jax.random.key(0))
    >>> weights = sac.act(state, jnp.array([1.0, 0.5, 2.0]), jnp.zeros(3))
    >>> print(f"{weights.sum():.3f}")
    3.000
  """
  num_tasks = check_count("num_tasks", num_tasks)
  learning_rate = check_positive("learning_rate", learning_rate)
  initial_alpha = check_positive("initial_alpha", initial_alpha)
  tau = check_positive("tau", tau)
  if isinstance(tau, float) and tau > 1:
    raise ValueError(f"tau must be at most 1, got {tau}.")
  gamma = check_positive("gamma", gamma, or_zero=True)
  if isinstance(gamma, float) and gamma >= 1:
    raise ValueError(f"gamma must be below 1, got {gamma}.")
  if not isinstance(hidden_sizes, Sequence):
    raise TypeError(f"hidden_sizes must be a sequence of integers, got {hidden_sizes}.")
  hidden_sizes = tuple(check_count("hidden_sizes", size) for size in hidden_sizes)
  actor: Any = Actor(num_tasks, hidden_sizes)
  critic: Any = TwinCritic(hidden_sizes)
  optimizer = optax.adam(learning_rate)
  target_entropy = density.target_entropy(num_tasks)

  def init(key: jax.Array) -> AgentState:
    actor_key, critic_key = jax.random.split(key)
    losses = jnp.ones(num_tasks, jnp.float32)
    actor_params = actor.init(actor_key, losses)
    critic_params = critic.init(critic_key, losses, losses)
    log_alpha = jnp.log(jnp.asarray(initial_alpha, jnp.float32))
    return AgentState(
      actor=actor_params,
      critic=critic_params,
      target_critic=jax.tree.map(jnp.copy, critic_params),
      log_alpha=log_alpha,
      actor_optimizer=optimizer.init(actor_params),
      critic_optimizer=optimizer.init(critic_params),
      alpha_optimizer=optimizer.init(log_alpha),
    )

  def act(state: AgentState, losses: jax.Array, noise: jax.Array) -> jax.Array:
    mu, std = actor.apply(state.actor, losses)
    return softmax_weights(mu + std * noise)

  def policy(
    params: Params, losses: jax.Array, noise: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Actions f32[N, K] and their log-probabilities f32[N]."""
    mu, std = actor.apply(params, losses)
    u = mu + std * noise
    return num_tasks * jax.nn.softmax(u), density.log_prob(std, noise, u)

  def update(
    state: AgentState, batch: Transitions, noise: Noise, mask: jax.Array
  ) -> AgentState:
    alpha = jnp.exp(state.log_alpha)

    def mean(values: jax.Array) -> jax.Array:
      return jnp.sum(mask * values, axis=-1) / jnp.sum(mask)

    def descend(
      objective: Callable[[Any], tuple[jax.Array, Any]],
      params: Any,
      optimizer_state: optax.OptState,
    ) -> tuple[Any, optax.OptState, Any]:
      gradient, aux = jax.grad(objective, has_aux=True)(params)
      step, optimizer_state = optimizer.update(gradient, optimizer_state)
      return optax.apply_updates(params, step), optimizer_state, aux

    next_weights, next_log_prob = policy(
      state.actor, batch.next_losses, noise.next_action
    )
    next_values = critic.apply(state.target_critic, batch.next_losses, next_weights)
    target = batch.reward + gamma * (
      jnp.min(next_values, axis=0) - alpha * next_log_prob
    )

    def critic_objective(params):
      values = critic.apply(params, batch.losses, batch.weights)
      return mean((values - target) ** 2).sum(), None

    critic_params, critic_optimizer, _ = descend(
      critic_objective, state.critic, state.critic_optimizer
    )

    def actor_objective(params):
      weights, log_prob = policy(params, batch.losses, noise.action)
      value = jnp.min(critic.apply(critic_params, batch.losses, weights), axis=0)
      return mean(alpha * log_prob - value), log_prob

    actor_params, actor_optimizer, log_prob = descend(
      actor_objective, state.actor, state.actor_optimizer
    )

    def alpha_objective(log_alpha):
      return -log_alpha * mean(log_prob + target_entropy), None

    log_alpha, alpha_optimizer, _ = descend(
      alpha_objective, state.log_alpha, state.alpha_optimizer
    )
    return AgentState(
      actor=actor_params,
      critic=critic_params,
      target_critic=optax.incremental_update(critic_params, state.target_critic, tau),
      log_alpha=log_alpha,
      actor_optimizer=actor_optimizer,
      critic_optimizer=critic_optimizer,
      alpha_optimizer=alpha_optimizer,
    )

  return Agent(init, act, update)
