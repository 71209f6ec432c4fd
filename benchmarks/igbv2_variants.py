"""What keeps IGBv2's agent from learning: one change at a time, in the league.

    python -m benchmarks.igbv2_variants --out results/igbv2

Every variant goes through the league's protocol: the learning rate by validation, then
fresh seeds. Each is compared with the published form and with `si` on the same seeds,
by Wilcoxon's signed-rank test with Holm's correction over all variants and problems.
What is played lies in OUT, one file each, and is not played again.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.problems import load
from experiments.standings import cells
from experiments.standings.plan import Cell
from experiments.standings.ranking import ALPHA, differences_of, holm, signed_rank
from igb_jax import balancers
from igb_jax.balancers import sac
from igb_jax.balancers.common import log_losses

SMOOTHING = 0.9
STEPS = 100  # what stands for an epoch where the schedule is in steps

Change = Callable[[sac.Agent], sac.Agent]


class Variant(NamedTuple):
  """IGBv2 with something changed.

  Attributes:
    change: what becomes of its agent.
    density: how probable its actions are.
    smooth: whether it sees exponential means of the losses.
    steps: the steps of an epoch in its schedule; None for those of the problem.
  """

  change: Change = lambda agent: agent
  density: sac.Density = sac.SQUASHED
  smooth: bool = False
  steps: int | None = None


def scaled_rewards(agent: sac.Agent) -> sac.Agent:
  """An agent whose rewards have the standard deviation 1 in every batch."""

  def update(state: Any, batch: Any, noise: Any, mask: jax.Array) -> Any:
    mean = jnp.sum(mask * batch.reward) / mask.sum()
    variance = jnp.sum(mask * (batch.reward - mean) ** 2) / mask.sum()
    reward = batch.reward / jnp.sqrt(variance + 1e-12)
    return agent.update(state, batch._replace(reward=reward), noise, mask)

  return agent._replace(update=update)


def log_states(agent: sac.Agent) -> sac.Agent:
  """An agent that sees the logarithms of the losses."""

  def log(losses: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(losses, 1e-12))

  def act(state: Any, losses: jax.Array, noise: jax.Array) -> jax.Array:
    return agent.act(state, log(losses), noise)

  def update(state: Any, batch: Any, *rest: Any) -> Any:
    seen = batch._replace(losses=log(batch.losses), next_losses=log(batch.next_losses))
    return agent.update(state, seen, *rest)

  return agent._replace(act=act, update=update)


VARIANTS = {
  "published": Variant(),
  "scaled rewards": Variant(scaled_rewards),
  "smoothed losses": Variant(smooth=True),
  "log losses": Variant(log_states),
  "density on the simplex": Variant(density=sac.SIMPLEX),
  "schedule in steps": Variant(steps=STEPS),
  "all": Variant(
    lambda agent: scaled_rewards(log_states(agent)), sac.SIMPLEX, True, STEPS
  ),
}


class SmoothedState(NamedTuple):
  """State of a balancer that sees exponential means of the losses."""

  means: jax.Array
  inner: Any
  weights: jax.Array


def smoothed(balancer: balancers.LossBalancer, num_tasks: int) -> Any:
  """Weighs the logarithms of the losses by what the balancer makes of their means."""

  def init(key: jax.Array | None = None) -> SmoothedState:
    return SmoothedState(
      jnp.full(num_tasks, jnp.nan), balancer.init(key), jnp.ones(num_tasks)
    )

  def update(losses: Any, state: SmoothedState, **extra: Any) -> Any:
    now = jax.lax.stop_gradient(jnp.asarray(losses))
    means = SMOOTHING * state.means + (1 - SMOOTHING) * now
    means = jnp.where(jnp.isnan(state.means), now, means)
    _, inner = balancer.update(means, state.inner, **extra)
    weighted = inner.weights * log_losses(losses, 0.0)
    return weighted, SmoothedState(means, inner, inner.weights)

  return balancers.LossBalancer(init, update)


def make(variant: Variant, num_tasks: int, steps_per_epoch: int) -> balancers.Balancer:
  """The balancer of a variant."""
  published = sac.agent

  def agent(*args: Any, **options: Any) -> sac.Agent:
    return variant.change(published(*args, density=variant.density, **options))

  # only the agent is another; a parameter for it would be in every user's way
  with mock.patch.object(sac, "agent", agent):
    loss = balancers.igbv2(num_tasks, variant.steps or steps_per_epoch)
  if variant.smooth:
    loss = smoothed(loss, num_tasks)
  return balancers.create("ew", num_tasks=num_tasks)._replace(loss=loss)


@dataclasses.dataclass(frozen=True)
class Config:
  """Plays variants of IGBv2 on problems of the league."""

  out: Path
  """Folder of what is played."""
  problems: tuple[str, ...] = ("digits", "diamonds", "helmholtz")
  """Names of the problems."""
  variants: tuple[str, ...] = tuple(VARIANTS)
  """Names of the variants."""
  seeds: int = 10
  """Number of fresh seeds."""


def scores_of(config: Config, problem: str, name: str) -> np.ndarray:
  """The scores of the seeds, played if they are not there; lower is better."""
  cell = Cell(problem, name.replace(" ", "_"))
  content = cells.read(cell, config.out)
  if content is None:
    named = Cell(problem, "igbv2" if name in VARIANTS else name)
    balancer = None
    if name in VARIANTS:
      task, training = load(problem)
      steps = training.steps_per_epoch(task)
      balancer = make(VARIANTS[name], len(task.task_names), steps)
    content = cells.play(named, config.seeds, 3, balancer=balancer)
    cells.write(cell, config.out, content)
  return cells.score(np.array(content["test"], float), content, content["base"])


def main() -> None:
  """Plays what is missing, and prints the table."""
  config = tyro.cli(Config, description=__doc__)
  found = {
    (problem, name): scores_of(config, problem, name)
    for problem in config.problems
    for name in ("ew", "si", *config.variants)
  }
  for other in ("published", "si"):
    p_values, signs = {}, {}
    for (problem, name), scores in found.items():
      if name in config.variants and name != other:
        pair = (np.nan_to_num(s, nan=np.inf) for s in (scores, found[problem, other]))
        key = problem, name
        p_values[key], signs[key] = signed_rank(differences_of(*pair))
    corrected = holm(p_values)
    print(f"against {other}: mean score, p-value after Holm's correction")
    for name in ("ew", "si", *config.variants):
      line = []
      for problem in config.problems:
        text = f"{np.nanmean(found[problem, name]):.4g}"
        if (problem, name) in corrected:
          p = corrected[problem, name]
          verdict = "better" if signs[problem, name] < 0 else "worse"
          text += f" (p = {p:.3f}{', ' + verdict if p < ALPHA else ''})"
        line.append(f"{problem} {text}")
      print(f"  {name}: {'; '.join(line)}", flush=True)


if __name__ == "__main__":
  main()
