"""The paths of every method on the two-parameter problem that this literature draws.

    python -m examples.toy --out toy.png

Every method starts from five points (dots) and should end (stars) on the Pareto set,
the grey line. Methods that need positive losses are not drawn, but named.
Reference: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
NeurIPS 2021, figure 1; with the first loss times 0.1 it is figure 1 of Navon et al.,
"Multi-Task Learning as a Bargaining Game", ICML 2022.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro

from experiments.problems import load
from experiments.problems.toy import STARTS, front, losses_of
from experiments.standings.plan import SINGLE, make, parse, unfit
from igb_jax import value_and_balanced_grad
from igb_jax.balancers.methods import METHODS


@dataclasses.dataclass(frozen=True)
class Options:
  """Draws the paths of every method."""

  out: Path = Path("toy.png")
  """The picture."""
  steps: int = 30_000
  """Steps of Adam at the learning rate 1e-3."""
  scale: float = 1.0
  """What the first loss is multiplied by; 0.1 in the figure of Nash-MTL."""
  methods: tuple[str, ...] | None = None
  """Names of the methods; all that fit by default."""


def fits(name: str) -> bool:
  """Whether a method can follow two losses that may be negative."""
  return name != SINGLE and unfit(parse(name), *load("toy")) is None


def paths(name: str, options: Options) -> np.ndarray:
  """Parameters on the way from each start, f[5, 101, 2]."""
  balancer = make(parse(name), ("first", "second"), steps_per_epoch=1000)

  def losses(params):
    return losses_of(params["shared"], options.scale)

  balanced = value_and_balanced_grad(losses, balancer)
  adam = optax.adam(1e-3)

  def step(carry: Any, _: None) -> Any:
    params, state, opt_state = carry
    _, grads, state = balanced(params, state=state)
    updates, opt_state = adam.update(grads, opt_state)
    return (optax.apply_updates(params, updates), state, opt_state), None

  def some_steps(carry: Any, _: None) -> Any:
    carry, _ = jax.lax.scan(step, carry, length=options.steps // 100)
    return carry, carry[0]["shared"]

  def run(start, key):
    params = {"shared": start, "heads": {}}
    carry: Any = params, balancer.init(params, key), adam.init(params)
    return jnp.concatenate(
      [start[None], jax.lax.scan(some_steps, carry, length=100)[1]]
    )

  keys = jax.random.split(jax.random.key(0), len(STARTS))
  return np.asarray(jax.jit(jax.vmap(run))(STARTS, keys))


def main() -> None:
  """Draws the picture, and says which methods are not in it."""
  options = tyro.cli(Options)
  names = options.methods or [name for name in METHODS if fits(name)]
  x, y = np.meshgrid(np.linspace(-10, 10, 101), np.linspace(-10, 10, 101))
  points = jnp.stack([x.ravel(), y.ravel()], axis=1).astype(jnp.float32)
  heights = jax.vmap(losses_of)(points).sum(axis=1).reshape(x.shape)
  columns = min(6, len(names))
  rows = -(-len(names) // columns)
  figure, axes = plt.subplots(
    rows,
    columns,
    figsize=(2 * columns, 2.1 * rows),
    squeeze=False,
    layout="constrained",
  )
  for axis in axes.flat:
    axis.set_axis_off()
  for name, axis in zip(names, axes.flat, strict=False):
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[], xlim=(-10, 10), ylim=(-10, 10))
    axis.set_title(name, fontsize=9)
    axis.contour(x, y, heights, levels=20, linewidths=0.3, cmap="Greys")
    axis.plot(*front().T, color="tab:gray", linewidth=2)
    for path in paths(name, options):
      axis.plot(*path.T, linewidth=1)
      axis.plot(*path[0], "k.", markersize=3)
      axis.plot(*path[-1], "k*", markersize=5)
  figure.savefig(options.out, dpi=110)
  left_out = [name for name in METHODS if name not in names]
  print(f"wrote {options.out}; not in it: {', '.join(left_out)}")


if __name__ == "__main__":
  main()
