"""Weights over 10,000 steps of losses, or gradients, that stay, fall, or are zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.small_balancers import small_loss_balancer

NUM_STEPS = 10_000
NAMES = balancers.names()
# where the weights are no softmax or mean: what bounds each of them
MAX_WEIGHT = {"uw": 1e6, "uwlog": 1e3}
COURSES = {
  "constant": np.tile([[0.5, 2.0, 1e-3]], (NUM_STEPS, 1)),
  "falling": 10 ** np.outer(np.linspace(0, -30, NUM_STEPS), [1.0, 1.0, 0.0]),
  "zero": np.tile([[0.0, 1.0, 2.0]], (NUM_STEPS, 1)),
  "negative": np.tile([[-0.1, 1.0, 2.0]], (NUM_STEPS, 1)),
}


@functools.partial(jax.jit, static_argnums=0)
def weights_of(balancer, losses):
  def step(state, losses):
    _, state = balancer.update(losses, state)
    return state, state.weights

  return jax.lax.scan(step, balancer.init(jax.random.key(0)), losses)[1]


@pytest.mark.parametrize("name", [n for n, kind in NAMES.items() if kind == "loss"])
def test_weights_of_losses_have_a_bound(name):
  balancer = small_loss_balancer(name, 3, steps_per_epoch=100, hidden_sizes=(8,))
  for course, losses in COURSES.items():
    weights = weights_of(balancer, losses.astype(np.float32))
    assert np.isfinite(weights).all(), course
    assert weights.max() <= MAX_WEIGHT.get(name, 3) * (1 + 1e-5), course


@pytest.mark.parametrize("name", [n for n, kind in NAMES.items() if kind == "gradient"])
def test_results_of_gradients_have_the_bound_of_the_gradients(name):
  """Weights of a gradient may be as large as the gradient is small; not the result."""
  balancer = balancers.create(name, num_tasks=3).gradient
  assert balancer is not None
  gradients = np.random.default_rng(0).normal(size=(3, 20))

  @jax.jit
  def run(lengths):
    def step(state, lengths):
      task_grads = lengths[:, None] * gradients.astype(np.float32)
      result, state = balancer.update(task_grads, state)
      return state, (jnp.linalg.norm(result), state.weights)

    return jax.lax.scan(step, balancer.init(jnp.zeros(20)), lengths)[1]

  for course in ("constant", "falling", "zero"):
    lengths = COURSES[course].astype(np.float32)
    norms = np.linalg.norm(gradients, axis=1) * lengths
    # nashmtl normalises its result, and clips it at 1; the others only combine
    bound = 1.0 if name == "nashmtl" else 3 * norms.sum(axis=1)
    results, weights = run(lengths)
    assert np.isfinite(weights).all(), course
    assert (results <= bound * (1 + 1e-5)).all(), course
    if name == "mgda":
      assert weights.max() <= 3 * (1 + 1e-5), course


def test_uwlog_trains_on_losses_below_one():
  """Two standardised regressions, whose gradients became infinite."""
  balancer = balancers.uncertainty_weighting(2, log=True)
  losses = np.full((1000, 2), 0.5, np.float32)
  assert weights_of(balancer, losses).max() == pytest.approx(1e3, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_uw_learns_nothing_from_losses_that_are_not_positive(value):
  balancer = balancers.uncertainty_weighting(2)
  losses = np.tile(np.float32([[value, 2.0]]), (1000, 1))
  weights = weights_of(balancer, losses)
  assert (weights[:, 0] == 1).all()
  assert weights[-1, 1] < 0.6
  # and it is ready for losses that are
  losses[500:] = 2.0
  assert weights_of(balancer, losses)[-1, 0] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("max_weight", [0.5, 10.0, 1e39])
def test_the_largest_weight_can_be_chosen(max_weight):
  balancer = balancers.uncertainty_weighting(1, max_weight=max_weight)
  weights = weights_of(balancer, np.full((8000, 1), 1e-37, np.float32))
  assert weights.max() == pytest.approx(min(max_weight, np.exp(80)), rel=1e-3)
  assert weights[0] == min(1, max_weight)
