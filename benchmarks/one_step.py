"""What each form of a balanced step costs, on a net of twelve equal layers.

    python -m benchmarks.one_step

Temporary memory is what XLA plans. Times are medians of steps that take turns, divided
by those of ew.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import machine, measure
from igb_jax import balancers, value_and_balanced_grad

WIDTH, DEPTH, BATCH, NUM_TASKS = 1024, 12, 64, 8
BLOCKS, COUNT = 5, 2


def trunk(params: Any, x: jax.Array) -> jax.Array:
  """What the heads read."""
  for kernel in params["layers"]:
    x = jnp.tanh(x @ kernel)
  return x


def heads(params: Any, features: jax.Array, x: jax.Array) -> jax.Array:
  """f32[K]: the losses."""
  return ((features @ params["heads"] - jnp.sin(x[:, :NUM_TASKS])) ** 2).mean(axis=0)


def compiled(
  spec: str, params: Any, x: jax.Array, shared: Any, at_features: bool, keeps: bool
) -> tuple[Callable[[], Any], float]:
  """A step, and the megabytes of temporary memory that it takes."""
  balancer = balancers.create(spec, num_tasks=NUM_TASKS, shared=shared)
  fun = heads if at_features else lambda p, x: heads(p, trunk(p, x), x)
  balanced = value_and_balanced_grad(
    fun, balancer, trunk=trunk if at_features else None, keep_task_grads=keeps
  )
  state = balancer.init(params)
  function = jax.jit(lambda params, x, state: balanced(params, x, state=state))
  step: Any = function.lower(params, x, state).compile()
  memory = step.memory_analysis().temp_size_in_bytes / 1e6
  return lambda: jax.block_until_ready(step(params, x, state)), memory


def print_forms() -> None:
  """The table."""
  keys = jax.random.split(jax.random.key(0), DEPTH + 2)
  params = {
    "layers": [jax.random.normal(k, (WIDTH, WIDTH)) / WIDTH**0.5 for k in keys[2:]],
    "heads": jax.random.normal(keys[0], (WIDTH, NUM_TASKS)) / WIDTH**0.5,
  }
  x = jax.random.normal(keys[1], (BATCH, WIDTH))
  every = {"layers": True, "heads": False}
  last = {"layers": [False] * (DEPTH - 1) + [True], "heads": False}
  # name -> specification, what is shared, at the features, task gradients are kept
  forms = {
    "ew": ("ew", None, False, True),
    "mgda, all layers shared": ("mgda", every, False, True),
    "mgda, keep_task_grads=False": ("mgda", every, False, False),
    "mgda, the last layer shared": ("mgda", last, False, True),
    "mgda, trunk=": ("mgda", None, True, True),
  }
  steps, memory = {}, {}
  for name, form in forms.items():
    spec, *others = form
    step, memory[name] = compiled(spec, params, x, *others)
    steps[name] = step, COUNT
  seconds = measure(steps, BLOCKS)
  of_ew = np.median(seconds["ew"])
  print(f"{DEPTH} layers of {WIDTH} x {WIDTH}, a batch of {BATCH}, K = {NUM_TASKS}\n")
  print("| form | temporary MB | / ew, median [min, max] |\n|---|---|---|")
  for name, values in seconds.items():
    ratio = values / of_ew
    print(
      f"| {name} | {memory[name]:.0f} | {np.median(ratio):.1f} "
      f"[{ratio.min():.1f}, {ratio.max():.1f}] |"
    )


def main() -> None:
  """Measures and prints the table."""
  print(f"{jax.devices()[0].device_kind}; {machine()}\n")
  print_forms()


if __name__ == "__main__":
  main()
