"""Three regressions on a shared layer, to train with a gradient balancer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from igb_jax import balancers
from igb_jax.training.balancing import make_balancer
from igb_jax.training.step import init_state, make_train_step

SHARED = {"shared": True, "heads": False}
TASKS = ("one", "two", "three")
X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
TARGETS = np.stack([X.sum(1), 10 * X[:, 0], np.sin(X[:, 1])], axis=1)
BATCH = np.full(3, 0.1, np.float32)


def part(name: str):
  """A gradient balancer of three tasks."""
  balancer = balancers.create(name, num_tasks=3, steps_per_epoch=4).gradient
  assert balancer is not None
  return balancer


def families() -> list[str]:
  """The first method of each kind that a step can tell from another."""
  found = {}
  for name, kind in balancers.names().items():
    if kind == "gradient":
      method = part(name)
      needs_grads, no_sum = method.weigh is None, method.apply is None
      family = needs_grads, no_sum, method.draws, method.keeps_grads
      found.setdefault(family, name)
  return list(found.values())


FAMILIES = families()


def losses_of(params, batch):
  hidden = jnp.tanh(X @ params["shared"]["w"])
  predictions = hidden @ params["heads"]["w"] + params["heads"]["b"]
  return jnp.mean((predictions - TARGETS) ** 2, axis=0) + batch


def initial_params():
  keys = jax.random.split(jax.random.key(0))
  return {
    "shared": {"w": 0.5 * jax.random.normal(keys[0], (4, 8))},
    "heads": {"w": 0.3 * jax.random.normal(keys[1], (8, 3)), "b": jnp.zeros(3)},
  }


def present_of(batch):
  """A task is absent where the batch is NaN."""
  return ~jnp.isnan(batch)


def compiled(spec: str, *options: str, optimizer=None, masked: bool = False):
  """The jitted step, and what makes its first state of a seed."""
  balancer = make_balancer(spec, options, task_names=TASKS, steps_per_epoch=4)
  optimizer = optimizer or optax.sgd(0.05)

  def init(seed: int = 0):
    return init_state(
      initial_params(),
      balancer=balancer,
      optimizer=optimizer,
      plateau=optax.contrib.reduce_on_plateau(),
      key=jax.random.key(seed),
    )

  mask = present_of if masked else None
  return make_train_step(losses_of, balancer, optimizer, present_of=mask), init


def gradient_of(state):
  """The state of the gradient balancer."""
  found = state.balancer.gradient
  assert found is not None
  return found


compiled_once = functools.cache(compiled)  # for the tests that take the same step


def make(spec: str, *options: str, **keywords):
  """A step and its first state."""
  step, init = compiled_once(spec, *options, **keywords)
  return step, init()
