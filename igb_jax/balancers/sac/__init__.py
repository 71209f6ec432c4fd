"""The soft actor-critic agent of IGBv2, which can be used on its own."""

from igb_jax.balancers.sac.agent import Agent, AgentState, Noise, agent
from igb_jax.balancers.sac.densities import SIMPLEX, SQUASHED, Density
from igb_jax.balancers.sac.replay import Replay, Transitions, add, empty, sample
from igb_jax.balancers.sac.rounds import rounds

__all__ = [
  "SIMPLEX",
  "SQUASHED",
  "Agent",
  "AgentState",
  "Density",
  "Noise",
  "Replay",
  "Transitions",
  "add",
  "agent",
  "empty",
  "rounds",
  "sample",
]
