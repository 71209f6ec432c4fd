"""Improvable gap balancing, learnt form (IGBv2): soft actor-critic inside the step.

State L (the losses), action w = K softmax(u), weighted loss_k = w_k log(L_k + epsilon)
with epsilon 0 by default. Step t:

1. once the base epoch has ended, the reward of the step before is

       r = alpha min_k (L_{t-1} - L_t)_k / L_base_k,    alpha = initial / current
                                                                learning rate

   and (L_{t-1}, w_{t-1}, r, L_t) goes into a ring buffer;
2. from the warm-up's end on, every 50 steps: with k = 1 + fill of the buffer, int(25 k)
   updates of the agent, each on int(128 k) transitions drawn with replacement;
3. w_t is random (as RLW) before the start epoch, then the actor's action at L_t.

A step that lacks a task makes no transition, nor does the one after it. The actor sees
the latest loss of the absent task, and acts by a softmax over the others.

A transition out of all proportion, with a loss above 1,000 of its base loss before or
after or a reward beyond +-1,000, is not stored either. The published code stores every
one, after which the critics' Adams, which remember squares, would not learn for some
90,000 updates. An agent whose task stays that high above its base loss learns nothing
more (`num_outliers` counts). A task that had no loss in the base epoch counts in no
reward. Nor does a loss enter the base losses that is above 1,000 times their mean so
far; but the first of the base epoch does, whatever it is.

Reference: Dai et al., "Improvable Gap Balancing for Multi-Task Learning", UAI 2023,
section 3.3, Algorithm 2 and equation 4. `igb_jax.balancers.sac` has the agent. The
published code for QM9 reads the learning rate anew each epoch, so that its alpha is
always 1; this follows the paper.
"""

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers import sac
from igb_jax.balancers.checks import check_count, check_epsilon, check_positive
from igb_jax.balancers.common import (
  constant_float32,
  increment,
  is_valid,
  key_data,
  log_losses,
  softmax_weights,
  split_key_data,
  update_mean,
)
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer

# Real rewards are of order 1 and below, and losses seldom rise above tens of their
# base; squared, these bounds are still something that Adam can forget.
_LARGEST_REWARD = 1e3
_LARGEST_RELATIVE_LOSS = 1e3


class IGBv2State(NamedTuple):
  """State of `igbv2`.

  Attributes:
    step: i32[], number of updates so far.
    key: u32[2], data of the threefry key of the next step.
    base_count: i32[K], valid losses seen in the base epoch.
    base_losses: f32[K], their mean so far; L_base once the base epoch has ended.
    previous_losses: f32[K], every task's loss at the latest step at which it was
      present and all losses were finite.
    previous_finite: bool[], whether those are the losses of the step before.
    agent: the agent's state.
    replay: the ring buffer of transitions.
    num_nonfinite: i32[], steps whose losses, of the tasks present, were not all finite;
      they reach neither buffer nor agent.
    num_outliers: i32[], steps of the base epoch of which a loss was left out, and
      transitions that were not stored since something was out of all proportion.
    num_rejected: i32[], updates of the agent that were undone since their result was
      not finite.
    weights: f32[K], of the latest update; they sum to the number of tasks present.
  """

  step: jax.Array
  key: jax.Array
  base_count: jax.Array
  base_losses: jax.Array
  previous_losses: jax.Array
  previous_finite: jax.Array
  agent: sac.AgentState
  replay: sac.Replay
  num_nonfinite: jax.Array
  num_outliers: jax.Array
  num_rejected: jax.Array
  weights: jax.Array


@method(
  "igbv2",
  "loss",
  paper="Dai et al., UAI 2023",
  forward_passes=1,
  backward_passes="1",
  draws=True,
  needs_positive=True,
  equivariant=False,
  scale_invariant=False,
  takes_log=True,
  normalised=True,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
def igbv2(
  num_tasks: int,
  steps_per_epoch: int,
  *,
  base_epoch: int = 1,
  warmup_epochs: int = 3,
  start_epoch: int = 5,
  update_every: int = 50,
  num_updates: int = 25,
  batch_size: int = 128,
  buffer_size: int = 10_000,
  learning_rate: jax.typing.ArrayLike = 3e-4,
  gamma: jax.typing.ArrayLike = 0.99,
  tau: jax.typing.ArrayLike = 0.005,
  initial_alpha: jax.typing.ArrayLike = 0.2,
  hidden_sizes: Sequence[int] = (128, 128),
  epsilon: jax.typing.ArrayLike = 0.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Improvable gap balancing by an agent that learns during training.

  `update` takes two extra arguments: `learning_rate_ratio`, the initial over the
  current learning rate of the model, 1 by default (a Python number that is not finite
  and positive is a ValueError; a traced one that is not finite stores no transition);
  and `deterministic`, with which the actor acts with its mean instead of a sample.

  Mapped over seeds by `jax.vmap`, the agents learn at the steps at which any of them is
  due, not at every step, whether or not the step counter is mapped.

  Args:
    num_tasks: K.
    steps_per_epoch: number of updates that make an epoch.
    base_epoch: the epoch, from 0, over which the base losses are averaged.
    warmup_epochs: epochs before the agent's first update.
    start_epoch: the epoch, from 0, from which on the actor chooses the weights.
    update_every: steps between rounds of the agent's updates.
    num_updates: updates in a round with an empty buffer; twice as many with a full one.
    batch_size: transitions in an update with an empty buffer; twice as many with a full
      one.
    buffer_size: transitions that the ring buffer holds.
    learning_rate: the learning rate of the agent's Adams. The paper takes 1e-4 in
      combination with MGDA, PCGrad or Nash-MTL.
    gamma: discount, in [0, 1).
    tau: share of the critics that enters their slow copy at each update, in (0, 1].
    initial_alpha: the agent's temperature at the start.
    hidden_sizes: widths of the hidden layers of actor and critics.
    epsilon: added to a loss before its logarithm is taken, so that it may come near 0.
    absent: see `Absent`. A step that remembers a loss makes a transition too, with a
      reward of at most 0.

  Returns:
    A `LossBalancer`; state `IGBv2State`. Its `init` needs a key and raises ValueError
    without one.

  Example:
    >>> balancer = igbv2(num_tasks=3, steps_per_epoch=10)
    >>> state = balancer.init(jax.random.key(0))
    >>> losses = jnp.array([1.0, 2.0, 0.5])
    >>> weighted, state = balancer.update(losses, state, learning_rate_ratio=1.0)
    >>> print(f"{state.weights.sum():.3f}")
    3.000
  """
  num_tasks = check_count("num_tasks", num_tasks)
  steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
  base_epoch = check_count("base_epoch", base_epoch, minimum=0)
  warmup_epochs = check_count("warmup_epochs", warmup_epochs, minimum=0)
  start_epoch = check_count("start_epoch", start_epoch, minimum=0)
  update_every = check_count("update_every", update_every)
  num_updates = check_count("num_updates", num_updates)
  batch_size = check_count("batch_size", batch_size)
  buffer_size = check_count("buffer_size", buffer_size)
  if max(num_updates, batch_size) * buffer_size >= 2**31:
    raise ValueError(
      "num_updates and batch_size times buffer_size must be below 2^31, got "
      f"{num_updates}, {batch_size} and {buffer_size}."
    )
  epsilon = check_epsilon(epsilon)
  agent = sac.agent(
    num_tasks,
    learning_rate=learning_rate,
    gamma=gamma,
    tau=tau,
    initial_alpha=initial_alpha,
    hidden_sizes=hidden_sizes,
  )
  base_start = base_epoch * steps_per_epoch
  base_end = base_start + steps_per_epoch

  def init(key: jax.Array | None = None) -> IGBv2State:
    data, agent_key = split_key_data(key_data(key, "igbv2"))
    return IGBv2State(
      step=jnp.zeros((), jnp.int32),
      key=data,
      base_count=jnp.zeros(num_tasks, jnp.int32),
      base_losses=jnp.zeros(num_tasks, jnp.float32),
      previous_losses=jnp.zeros(num_tasks, jnp.float32),
      previous_finite=jnp.zeros((), bool),
      agent=agent.init(agent_key),
      replay=sac.empty(buffer_size, num_tasks),
      num_nonfinite=jnp.zeros((), jnp.int32),
      num_outliers=jnp.zeros((), jnp.int32),
      num_rejected=jnp.zeros((), jnp.int32),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  learn_if = sac.rounds(
    agent,
    num_tasks,
    num_updates=num_updates,
    batch_size=batch_size,
    buffer_size=buffer_size,
  )

  def update(
    losses: jax.Array,
    state: IGBv2State,
    present: jax.Array | None,
    *,
    learning_rate_ratio: jax.typing.ArrayLike = 1.0,
    deterministic: jax.typing.ArrayLike = False,
    **extra: Any,
  ) -> tuple[jax.Array, IGBv2State]:
    del extra
    if isinstance(learning_rate_ratio, numbers.Real):
      check_positive("learning_rate_ratio", learning_rate_ratio)
    ratio = jax.lax.stop_gradient(jnp.asarray(learning_rate_ratio, jnp.float32))
    if ratio.shape:
      raise ValueError(f"learning_rate_ratio must be a scalar, got {ratio.shape}.")
    constant = constant_float32(losses)
    finite = jnp.isfinite(constant).all()
    data, key = split_key_data(state.key)
    learn_key, random_key, action_key = jax.random.split(key, 3)

    has_base = state.step >= base_end
    for_base = (state.step >= base_start) & ~has_base & is_valid(constant, present)
    too_large = constant > _LARGEST_RELATIVE_LOSS * state.base_losses
    outliers = for_base & too_large & (state.base_count > 0)
    base_losses, base_count = update_mean(
      state.base_losses, state.base_count, constant, for_base & ~outliers
    )
    decline = jnp.where(
      base_count > 0, (state.previous_losses - constant) / base_losses, jnp.inf
    )
    reward = ratio * jnp.min(decline)
    transition = sac.Transitions(state.previous_losses, state.weights, reward, constant)
    known = finite if present is None else finite & present
    all_known = known.all()
    complete = has_base & all_known & state.previous_finite & jnp.isfinite(reward)
    complete &= state.weights.any()  # none where the step before lacked every task
    before, now = jnp.abs(state.previous_losses), jnp.abs(constant)
    scale = jnp.where(base_count > 0, base_losses, jnp.minimum(before, now))
    in_proportion = (jnp.maximum(before, now) <= _LARGEST_RELATIVE_LOSS * scale).all()
    in_proportion &= jnp.abs(reward) <= _LARGEST_REWARD
    replay = sac.add(state.replay, transition, complete & in_proportion)

    due = (state.step >= warmup_epochs * steps_per_epoch) & (replay.size > 0)
    due &= state.step % update_every == 0
    agent_state, num_rejected = learn_if(due, state.agent, replay, learn_key)

    safe_losses = jnp.where(known, constant, state.previous_losses)
    noise = jax.random.normal(action_key, (num_tasks,), jnp.float32)
    action = agent.act(agent_state, safe_losses, jnp.where(deterministic, 0.0, noise))
    if present is not None:
      action = softmax_weights(jnp.log(action), present)
    by_chance = softmax_weights(
      jax.random.normal(random_key, (num_tasks,), jnp.float32), present
    )
    explores = state.step < start_epoch * steps_per_epoch
    weights = jnp.where(explores, by_chance, action)

    return weights * log_losses(losses, epsilon), IGBv2State(
      step=increment(state.step),
      key=data,
      base_count=base_count,
      base_losses=base_losses,
      previous_losses=safe_losses,
      previous_finite=all_known,
      agent=agent_state,
      replay=replay,
      num_nonfinite=state.num_nonfinite + ~finite,
      num_outliers=state.num_outliers + (outliers.any() | (complete & ~in_proportion)),
      num_rejected=state.num_rejected + num_rejected,
      weights=weights,
    )

  return loss_balancer(num_tasks, init, update, absent)
