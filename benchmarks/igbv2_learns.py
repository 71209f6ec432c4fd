"""Shows that IGBv2's agent learns: a task set whose right weights are known.

    python -m benchmarks.igbv2_learns --figure docs/figures/igbv2_learns.png

The first of three tasks forgets: its loss creeps up by 0.01 (1 - w / 3) a step, and
starts anew every 50 steps. The losses of the others stand still. So the weight of the
first task decides the smallest relative decline of the losses, which is the reward, and
the best that an agent can do is to give that task all of the weight. Random weights,
what IGBv2 does before its start epoch, leave it at 1.

Rewards are relative to the base losses. All losses are 0.01 in the base epoch, far
below what they are later, so that rewards lie between -1 and 0. With base losses of the
size of the later ones (`--base-loss 0.5`) rewards are fifty times smaller, the entropy
term of the objective outweighs them, and the weights stay random: that, too, is IGBv2.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from igb_jax import balancers

NUM_TASKS = 3
STEPS_PER_EPOCH = 100
FORGETTING = 0.01
PERIOD = 50
RESTING_LOSS = 0.5


def simulate(
  balancer: balancers.LossBalancer,
  *,
  num_steps: int,
  num_seeds: int,
  base_loss: float = 0.01,
) -> np.ndarray:
  """Runs the task set under a balancer, all seeds at once.

  Args:
    balancer: the loss balancer.
    num_steps: of each run.
    num_seeds: how many runs.
    base_loss: loss of every task until the base epoch has ended.

  Returns:
    f32[num_seeds, num_steps], the weight of the first task.
  """

  def run(key: jax.Array) -> jax.Array:
    def step(carry, index):
      state, first = carry
      losses = jnp.array([0.0, RESTING_LOSS, RESTING_LOSS]).at[0].set(first)
      losses = jnp.where(index < 2 * STEPS_PER_EPOCH, base_loss, losses)
      _, state = balancer.update(losses, state)
      first += FORGETTING * (1 - state.weights[0] / NUM_TASKS)
      first = jnp.where(index % PERIOD == 0, RESTING_LOSS, first)
      return (state, first), state.weights[0]

    carry = balancer.init(key), jnp.float32(RESTING_LOSS)
    return jax.lax.scan(step, carry, jnp.arange(num_steps))[1]

  keys = jax.random.split(jax.random.key(0), num_seeds)
  return np.asarray(jax.jit(jax.vmap(run))(keys))


@dataclasses.dataclass(frozen=True)
class Options:
  """Shows that IGBv2's agent learns."""

  figure: Path
  """Where the figure goes, a PNG."""
  steps: int = 3000
  """Steps of each run."""
  seeds: int = 10
  """Runs of each method."""
  base_loss: float = 0.01
  """Loss of every task until the base epoch has ended."""


def main() -> None:
  """Runs IGBv2 and random weights, prints means, and draws the figure."""
  options = tyro.cli(Options, description=__doc__)
  figure = Figure(figsize=(7, 4), layout="constrained")
  axes = figure.subplots()
  window = np.ones(100) / 100
  for name, colour in (("igbv2", "C0"), ("rlwlog", "C1")):
    balancer = balancers.create(
      name, num_tasks=NUM_TASKS, steps_per_epoch=STEPS_PER_EPOCH
    ).loss
    assert balancer is not None
    weights = simulate(
      balancer,
      num_steps=options.steps,
      num_seeds=options.seeds,
      base_loss=options.base_loss,
    )
    last = weights[:, -500:].mean(axis=1)
    print(
      f"{name}: mean weight of the first task over the last 500 steps, by seed: "
      f"{', '.join(f'{value:.2f}' for value in sorted(last))}"
    )
    for seed, values in enumerate(weights):
      smooth = np.convolve(values, window, mode="valid")
      label = name if seed == 0 else None
      axes.plot(np.arange(len(smooth)) + 100, smooth, colour, alpha=0.6, label=label)
  axes.axvline(5 * STEPS_PER_EPOCH, color="k", linestyle=":", label="start epoch")
  axes.set(
    xlabel="step",
    ylabel="weight of the task that forgets\n(mean of 100 steps; 3 is all)",
    title=f"IGBv2 against random weights, {options.seeds} seeds each",
  )
  axes.legend(loc="center right")
  axes.grid(alpha=0.3)
  options.figure.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(options.figure, dpi=120)


if __name__ == "__main__":
  main()
