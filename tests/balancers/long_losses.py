"""Loss balancers over thousands of steps: on smooth courses, and after an outlier."""

import functools

import jax
import numpy as np

from igb_jax.balancers.common import all_finite
from tests.balancers.contract import loss_traits, parameters_of, to_numpy
from tests.balancers.losses import make_loss

LONG = 10_000
COURSES = {
  "constant": np.tile([[0.5, 2.0, 1e-3]], (LONG, 1)),
  "falling": 10 ** np.outer(np.linspace(0, -30, LONG), [1.0, 1.0, 0.0]),
  "zero": np.tile([[0.0, 1.0, 2.0]], (LONG, 1)),
  "negative": np.tile([[-0.1, 1.0, 2.0]], (LONG, 1)),
}


@functools.cache
def long_weights(name: str) -> dict[str, np.ndarray]:
  """f32[T, 3] of each course."""
  balancer = make_loss(name, 3, steps_per_epoch=100)

  def run(losses):
    def step(state, losses):
      _, state = balancer.update(losses, state)
      return state, state.weights

    return jax.lax.scan(step, balancer.init(jax.random.key(0)), losses)[1]

  courses = np.stack(list(COURSES.values())).astype(np.float32)
  return dict(zip(COURSES, to_numpy(jax.jit(jax.vmap(run))(courses)), strict=True))


@functools.cache
def distances_after_outliers(name: str, value: float) -> list[float]:
  """After one outlier at three steps; the tasks differ in size."""
  options = {
    "window": 25, "buffer_size": 1000, "batch_size": 32, "learning_rate": 3e-3,
    "update_every": 3, "warmup_epochs": 2, "start_epoch": 3,
  }  # fmt: skip
  known = parameters_of(name)
  chosen = {key: each for key, each in options.items() if key in known}
  if not loss_traits(name).draws:
    chosen.pop("learning_rate", None)
  balancer = make_loss(name, 3, 20, **chosen)
  generator = np.random.default_rng(0)
  noise = np.exp(0.1 * generator.normal(size=(1200, 3)))
  clean = (noise * [2.0, 4.0, 8.0]).astype(np.float32)
  places = (5, 200, 500)
  courses = np.stack([clean] * (1 + len(places)))
  for index, place in enumerate(places):
    courses[1 + index, place, 1] = value

  def run(losses):
    def step(state, losses):
      _, state = balancer.update(losses, state)
      return state, (state.weights, all_finite(state))

    return jax.lax.scan(step, balancer.init(jax.random.key(0)), losses)[1]

  weights, finite = to_numpy(jax.jit(jax.vmap(run))(courses))
  assert finite.all()
  found = []
  for index, place in enumerate(places):
    late = slice(place + 500, place + 600)
    expected = weights[0, late]
    difference = np.abs(weights[1 + index, late] - expected)
    found.append(float((difference / np.maximum(expected, 1e-6)).mean()))
  return found
