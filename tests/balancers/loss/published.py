"""Golden numbers of loss balancers, and runs of one method."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from igb_jax import balancers
from tests.balancers.contract import slow_but
from tests.balancers.losses import run_each

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "loss.npz")
METHODS = np.load(Path(__file__).parents[2] / "golden" / "methods.npz")
# each compiles anew, so the fast tests have two of them
TASK_COUNTS = slow_but([3, 11], [2, 3, 11])
CALLS = slow_but([3, 11], [2, 3, 11, 5])  # of methods.npz


def assert_matches(name: str, num_tasks: int, rtol: float = 1e-4) -> None:
  """Weighted losses and derivatives over 90 steps are those of the published code."""
  losses = GOLDEN[f"losses_{num_tasks}"]
  balancer = balancers.create(
    name,
    num_tasks=num_tasks,
    steps_per_epoch=int(GOLDEN[f"steps_per_epoch_{num_tasks}"]),
  ).loss
  assert balancer is not None
  run = run_each(balancer, {"": (losses, 0)})[""]
  expected = GOLDEN[f"{name}_weighted_{num_tasks}"]
  # log L passes through 0, where only an absolute tolerance makes sense
  atol = rtol * np.abs(expected).mean() * 1e-2
  np.testing.assert_allclose(run.weighted, expected, rtol, atol)
  np.testing.assert_allclose(run.slopes, GOLDEN[f"{name}_coef_{num_tasks}"], rtol)


def assert_has_coefficients(
  key: str, num_tasks: int, rtol: float = 1e-4, **options: Any
) -> None:
  """Derivatives over 60 steps are those of the published code's total.

  Args:
    key: of the golden numbers; the name of the method unless `options` has it.
    num_tasks: K.
    rtol: how near.
    **options: of `create`; its `spec` is the method's name.
  """
  balancer = balancers.create(
    options.pop("spec", key), num_tasks=num_tasks, **options
  ).loss
  assert balancer is not None
  run = run_each(balancer, {"": (METHODS[f"losses_{num_tasks}"], 0)})[""]
  expected = METHODS[f"{key}_coef_{num_tasks}"]
  # weights that may be negative pass through 0
  atol = 1e-6 * np.abs(expected).max() if (expected < 0).any() else 0
  np.testing.assert_allclose(run.slopes, expected, rtol, atol)


@functools.partial(jax.jit, static_argnums=0)
def scan(balancer, losses, masks=None, seed=0):
  """The final state, and weighted losses and weights of each step."""

  def step(state, inputs):
    losses, present = inputs
    weighted, state = balancer.update(losses, state, present=present)
    return state, (weighted, state.weights)

  return jax.lax.scan(step, balancer.init(jax.random.key(seed)), (losses, masks))


def random_presence(
  num_steps: int = 40, num_tasks: int = 3
) -> tuple[np.ndarray, np.ndarray]:
  """Losses, NaN where they are absent, and the masks."""
  generator = np.random.default_rng(0)
  losses = np.exp(generator.normal(size=(num_steps, num_tasks))).astype(np.float32)
  masks = np.random.default_rng(2).random(losses.shape) < 0.6
  masks[~masks.any(axis=1), 0] = True  # a step without any task does not count
  losses[~masks] = np.nan
  return losses, masks
