"""A small net for tests of the balanced step, and the methods that they go over."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers.methods import METHODS, GradientTraits, LossTraits
from tests.balancers.contract import slow_but
from tests.needed_options import needed_options

STEPS_PER_EPOCH = 2


def trait(name: str, of: str) -> Any:
  """A trait of a method, or None where its kind has none of that name."""
  return METHODS[name].traits._asdict().get(of)


GRADIENT = [n for n in METHODS if isinstance(METHODS[n].traits, GradientTraits)]
LOSS = [n for n in METHODS if isinstance(METHODS[n].traits, LossTraits)]
LEAN = [n for n in GRADIENT if trait(n, "gramian_only")]


SLOW = pytest.mark.slow


def unlike(names: list[str]) -> list[str]:
  """Those that none before is like."""
  found = {}
  for name in names:
    its = METHODS[name].traits
    like = (its.draws, its._asdict().get("heads"), its._asdict().get("gramian_only"))
    found.setdefault(like, name)
  return list(found.values())


def sampled(names: list[str]) -> list[Any]:
  """All names, of which the slow tests take those that another is like."""
  return slow_but(unlike(names), names)


def trunk(params, x):
  return {"z": jnp.tanh(x @ params["trunk"]["w"] + params["trunk"]["b"])}


def heads(params, features, x):
  k = params["heads"].shape[1]
  targets = jnp.sin(jnp.outer(x[:, 0], jnp.arange(1, k + 1)))
  return ((features["z"] @ params["heads"] - targets) ** 2).mean(axis=0) + 0.1


def losses_of(params, x):
  return heads(params, trunk(params, x), x)


def needs(name: str, num_tasks: int) -> dict[str, Any]:
  """Extra arguments that a step cannot do without beside the losses, or none."""
  asked = set(trait(name, "needs")) - {"losses"}
  return {each: jnp.ones((1, num_tasks)) for each in asked}


def problem(num_tasks: int, seed: int = 0):
  """Parameters, a batch, and which parameters are shared."""
  keys = jax.random.split(jax.random.key(seed), 3)
  params = {
    "trunk": {"w": 0.5 * jax.random.normal(keys[0], (4, 6)), "b": jnp.zeros(6)},
    "heads": 0.3 * jax.random.normal(keys[1], (6, num_tasks)),
  }
  return params, jax.random.normal(keys[2], (8, 4)), {"trunk": True, "heads": False}


def make(spec: str, num_tasks: int, **options) -> Any:
  options |= needed_options(spec.split("+")[0], num_tasks)
  _, _, shared = problem(num_tasks)
  return balancers.create(
    spec,
    num_tasks=num_tasks,
    steps_per_epoch=STEPS_PER_EPOCH,
    shared=shared,
    **options,
  )


def assert_close(found, expected, tolerance: float):
  """Equal within a share of the largest entry of each leaf."""

  def close(a, b):
    if jnp.issubdtype(jnp.asarray(b).dtype, jnp.floating):
      scale = np.abs(b).max(initial=1e-12)
      np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)
    else:
      np.testing.assert_array_equal(a, b)

  jax.tree.map(close, found, expected)
