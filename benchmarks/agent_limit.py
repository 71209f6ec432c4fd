"""How near IGBv2's agent is to what its matrix products alone take.

    python -m benchmarks.agent_limit

An update of the agent on 256 transitions (a full buffer) against the same matrix
products and nothing else: no random numbers, no gathering from the buffer, no
activations, no Adam. The two take turns. A round has 50 updates and is taken every 50
steps, so that an update is also what IGBv2 adds to a step.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.timing import machine, measure
from igb_jax.balancers import sac

TRANSITIONS, WIDTH = 256, 128
_LOOP, _TURNS = 20, 3


@dataclasses.dataclass(frozen=True)
class Options:
  """Times an update of IGBv2's agent against its matrix products."""

  num_tasks: tuple[int, ...] = (3, 11, 40, 1000)
  """Numbers of tasks, K."""
  repetitions: int = 5
  """Loops of a turn; each has three."""


def shapes(num_tasks: int) -> list[tuple[int, int, int]]:
  """The products [m, n] @ [n, p] of an update, as (m, n, p).

  Args:
    num_tasks: K.
  """

  def forward(*sizes: int) -> list[tuple[int, int, int]]:
    return [(TRANSITIONS, a, b) for a, b in itertools.pairwise(sizes)]

  def kernels(*sizes: int) -> list[tuple[int, int, int]]:
    return [(a, TRANSITIONS, b) for a, b in itertools.pairwise(sizes)]

  def inputs(*sizes: int) -> list[tuple[int, int, int]]:
    return [(TRANSITIONS, b, a) for a, b in itertools.pairwise(sizes)]

  actor = (num_tasks, WIDTH, WIDTH, 2 * num_tasks)
  critic = (2 * num_tasks, WIDTH, WIDTH, 1)
  return [
    *forward(*actor),  # the next action
    *(2 * forward(*critic)),  # its value
    *(2 * [*forward(*critic), *kernels(*critic), *inputs(*critic[1:])]),
    *forward(*actor),
    *(2 * [*forward(*critic), *inputs(*critic)]),  # the value of the actor's action
    *kernels(*actor),
    *inputs(*actor[1:]),
  ]


def update_of(num_tasks: int) -> Callable[[], None]:
  """A compiled loop of updates of the agent, drawn from a full buffer.

  Args:
    num_tasks: K.
  """
  agent = sac.agent(num_tasks)
  learn_if = sac.rounds(
    agent, num_tasks, num_updates=_LOOP // 2, batch_size=128, buffer_size=10_000
  )
  state = agent.init(jax.random.key(0))
  replay = sac.empty(10_000, num_tasks)
  replay = jax.tree.map(
    lambda leaf: (
      jax.random.uniform(jax.random.key(1), leaf.shape) + 0.5
      if jnp.issubdtype(leaf.dtype, jnp.floating)
      else leaf
    ),
    replay,
  )._replace(size=jnp.int32(10_000))
  learn = jax.jit(learn_if)
  return lambda: wait(learn(jnp.bool(True), state, replay, jax.random.key(2)))


def products_of(num_tasks: int) -> Callable[[], None]:
  """A compiled loop of the same matrix products.

  Args:
    num_tasks: K.
  """
  random = np.random.default_rng(0)
  pairs = [
    (
      jnp.asarray(random.normal(size=(m, n)), jnp.float32),
      jnp.asarray(random.normal(size=(n, p)), jnp.float32),
    )
    for m, n, p in shapes(num_tasks)
  ]

  @jax.jit
  def loop(pairs: Any) -> jax.Array:
    def body(_: int, total: jax.Array) -> jax.Array:
      for a, b in pairs:  # the total keeps a product from leaving the loop
        product = jnp.dot(a + 0 * total, b, precision=jax.lax.Precision.HIGHEST)
        total = total + 1e-9 * product[0, 0]
      return total

    return jax.lax.fori_loop(0, _LOOP, body, jnp.float32(0))

  return lambda: wait(loop(pairs))


def wait(result: Any) -> None:
  """Returns when a result is there.

  Args:
    result: arrays.
  """
  jax.block_until_ready(result)


def main() -> None:
  """Prints the table."""
  options = tyro.cli(Options)
  print(f"{machine()}\n\nMilliseconds of an update, median [min, max]:\n")
  print("| K | update | products alone | ratio | GFLOP | GFLOP/s of the products |")
  print("|---|---|---|---|---|---|")
  for num_tasks in options.num_tasks:
    contenders = {
      "update": (update_of(num_tasks), options.repetitions),
      "products": (products_of(num_tasks), options.repetitions),
    }
    times = [1e3 / _LOOP * each for each in measure(contenders, _TURNS).values()]
    cells = [
      f"{np.median(each):.2f} [{each.min():.2f}, {each.max():.2f}]" for each in times
    ]
    work = sum(2e-9 * m * n * p for m, n, p in shapes(num_tasks))
    ratio = np.median(times[0]) / np.median(times[1])
    rate = work / (1e-3 * np.median(times[1]))
    print(
      f"| {num_tasks} | {' | '.join(cells)} | {ratio:.2f} | {work:.3f} | {rate:.0f} |",
      flush=True,
    )


if __name__ == "__main__":
  main()
