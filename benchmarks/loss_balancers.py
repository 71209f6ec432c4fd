"""What loss balancers cost that do more than weigh: the QM9 step, and k-means alone.

    python -m benchmarks.loss_balancers

1. The training step on QM9 (batch 120, K = 11) with FAMO, which looks at the losses
   after the step, and with NTKMTL-SR, which takes K backward passes through the heads,
   as a ratio to ew, as `benchmarks.gradient_balancers` has it.
2. The groups of GO4Align, in a compiled loop.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.gradient_balancers import Contender, Options, print_steps
from benchmarks.timing import machine
from igb_jax.balancers.solvers.grouping import group_means

CONTENDERS = {name: Contender(name, 5) for name in ("ew", "famo", "ntksr")}
SIZES = ((3, 2), (11, 5), (40, 5), (64, 5))  # numbers, groups
CALLS, TIMES = 1000, 9


def print_groups() -> None:
  """The second part."""
  print("| numbers | groups | microseconds, median | min | max |")
  print("|---|---|---|---|---|")
  for num, num_groups in SIZES:
    print(f"| {num} | {num_groups} | {_row(num, num_groups)} |")


def _row(num: int, num_groups: int) -> str:
  everyone = jnp.ones(num, bool)

  def again(_: int, x: jax.Array) -> jax.Array:
    moved = x + 1e-3 * jnp.roll(x, 1)  # or the groups would be known
    return (group_means(moved, num_groups, everyone) + x) / 2

  repeat = jax.jit(lambda x: jax.lax.fori_loop(0, CALLS, again, x))
  x = jnp.asarray(np.exp(np.random.default_rng(0).normal(size=num)), jnp.float32)
  jax.block_until_ready(repeat(x))
  found = []
  for _ in range(TIMES):
    start = time.perf_counter()
    jax.block_until_ready(repeat(x))
    found.append((time.perf_counter() - start) / CALLS * 1e6)
  return f"{np.median(found):.1f} | {min(found):.1f} | {max(found):.1f}"


def main() -> None:
  """Measures and prints both parts."""
  options = tyro.cli(Options, description=__doc__)
  print(f"{jax.devices()[0].device_kind}; {machine()}\n")
  print_steps(options, CONTENDERS)
  print()
  print_groups()


if __name__ == "__main__":
  main()
