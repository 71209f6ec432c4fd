"""What the gradient balancers that solve a problem take inside a compiled step.

    python -m benchmarks.solver_times

Jacobians are K x 2 K and float32, so that nearly everything is the solver: Gaussian,
and in every other one the first two tasks conflict. A compiled loop solves 64 of them
one after another, without the dispatch that a call of its own takes. Microseconds of
one, median [min, max] of the repetitions. The aims are 200 at K = 11 and 1,000 at K =
40, for upgrad, which solves K problems, 10,000.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.timing import machine
from igb_jax import balancers
from igb_jax.balancers.methods import METHODS, GradientTraits

NUMBER = 64


@dataclasses.dataclass(frozen=True)
class Options:
  """Times the solvers of gradient balancers inside a compiled loop."""

  num_tasks: tuple[int, ...] = (3, 11, 40)
  """Numbers of tasks, K."""
  repetitions: int = 10
  """How often the loop is timed."""


def jacobians(number: int, num_tasks: int) -> np.ndarray:
  """f32[N, K, 2 K]: Gaussian, and in every other one the first two tasks conflict.

  Args:
    number: N.
    num_tasks: K.
  """
  random = np.random.default_rng(num_tasks)
  found = random.normal(size=(number, num_tasks, 2 * num_tasks))
  found[1::2, 1] = 0.1 * found[1::2, 1] - found[1::2, 0]
  return found.astype(np.float32)


def microseconds(name: str, num_tasks: int, repetitions: int) -> np.ndarray:
  """The time of one solve in each repetition.

  Args:
    name: the name of the method in `create`.
    num_tasks: K.
    repetitions: how often the loop is timed.
  """
  gradient = balancers.create(name, num_tasks=num_tasks).gradient
  assert gradient is not None
  state = gradient.init(jnp.zeros(2 * num_tasks))

  @jax.jit
  def loop(each: jax.Array) -> jax.Array:
    return jax.lax.map(lambda jacobian: gradient.update(jacobian, state)[0], each)

  given = jnp.asarray(jacobians(NUMBER, num_tasks))
  jax.block_until_ready(loop(given))
  found = []
  for _ in range(repetitions):
    start = time.perf_counter()
    jax.block_until_ready(loop(given))
    found.append(1e6 * (time.perf_counter() - start) / NUMBER)
  return np.array(found)


def main() -> None:
  """Prints the table."""
  options = tyro.cli(Options)
  counts = options.num_tasks
  print(f"{machine()}\n\nMicroseconds of a solve:\n")
  print(f"| method | {' | '.join(f'K = {count}' for count in counts)} |")
  print(f"|---|{'---|' * len(counts)}")
  for name, method in METHODS.items():
    if not (isinstance(method.traits, GradientTraits) and method.traits.solves):
      continue
    cells = [name]
    for count in counts:
      times = microseconds(name, count, options.repetitions)
      cells.append(f"{np.median(times):.0f} [{times.min():.0f}, {times.max():.0f}]")
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
  main()
