"""The paths of every method on the two-parameter problem that this literature draws.

    python examples/toy.py --out toy.png

Every method starts from five points (dots) and should end (stars) on the Pareto set,
the grey line. Methods that need positive losses are not drawn, but named.
Reference: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
NeurIPS 2021, figure 1; with the first loss times 0.1 it is figure 1 of Navon et al.,
"Multi-Task Learning as a Bargaining Game", ICML 2022.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro

from igb_jax import balancers, value_and_balanced_grad
from igb_jax.balancers.methods import METHODS

STARTS = np.array([(-8.5, 7.5), (0, 0), (9, 9), (-7.5, -0.5), (9, -1)], np.float32)
# options that a method cannot be made without
OPTIONS = {
  "cosmos": {"preference": (1.0, 1.0)},
  "pbi": {"preference": (1.0, 1.0)},
  "stchraw": {"mu": 1.0},
}
# ratios of losses or roots of their product, which must be positive as for a logarithm
RATIOS = [
  "dwa", "famo", "gls", "go4align", "gradnorm", "imtll", "relobralo", "slaw", "uw",
  "uwso",
]  # fmt: skip


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


def losses_of(t: jax.Array, scale: float = 1.0) -> jax.Array:
  """The two losses at the parameters [2]."""
  t1, t2 = t
  f1 = jnp.abs(0.5 * (-t1 - 7) - jnp.tanh(-t2))
  f2 = jnp.abs(0.5 * (-t1 + 3) - jnp.tanh(-t2) + 2)
  f1, f2 = (jnp.log(jnp.maximum(f, 5e-6)) + 6 for f in (f1, f2))
  valley = 0.1 * (-t2 - 8) ** 2
  g1, g2 = (((-t1 + side) ** 2 + valley) / 10 - 20 for side in (7, -7))
  c1, c2 = jnp.maximum(jnp.tanh(t2 / 2), 0), jnp.maximum(jnp.tanh(-t2 / 2), 0)
  return jnp.stack([scale * (c1 * f1 + c2 * g1), c1 * f2 + c2 * g2])


def front() -> np.ndarray:
  """Points of the Pareto set, f[N, 2]: the minima of weighted sums below t2 = 0."""
  share = np.linspace(0, 1, 201)[:, None]
  t1, t2 = 7 * (2 * share - 1), np.linspace(-12, -4, 2001)
  lowest = share * (7 - t1) ** 2 + (1 - share) * (7 + t1) ** 2
  values = np.tanh(-t2 / 2) * ((lowest + 0.1 * (t2 + 8) ** 2) / 10 - 20)
  return np.stack([t1[:, 0], t2[values.argmin(axis=1)]], axis=1)


def fits(name: str) -> bool:
  """Whether a method can follow two losses that may be negative."""
  traits = METHODS[name].traits
  takes_log = getattr(traits, "takes_log", False)
  other = takes_log or name in RATIOS or name == "stl" or "rep_norms" in traits.needs
  return not other and getattr(traits, "fewest_tasks", 1) <= 2


def paths(name: str, options: Options) -> np.ndarray:
  """Parameters on the way from each start, f[5, 101, 2]."""
  balancer = balancers.create(
    name, num_tasks=2, steps_per_epoch=1000, **OPTIONS.get(name, {})
  )
  losses = functools.partial(losses_of, scale=options.scale)
  balanced = value_and_balanced_grad(losses, balancer)
  adam = optax.adam(1e-3)

  def step(carry, _):
    t, state, opt_state = carry
    _, grads, state = balanced(t, state=state)
    updates, opt_state = adam.update(grads, opt_state)
    return (t + jnp.asarray(updates), state, opt_state), None

  def some_steps(carry, _):
    carry, _ = jax.lax.scan(step, carry, length=options.steps // 100)
    return carry, carry[0]

  def run(start, key):
    carry = start, balancer.init(start, key), adam.init(start)
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
