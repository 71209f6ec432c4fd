"""The logarithms of the losses, and what an epsilon makes of zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.contract import LOSS, loss_traits, parameters_of
from tests.balancers.long_losses import distances_after_outliers
from tests.balancers.loss.published import TASK_COUNTS, assert_matches
from tests.balancers.losses import make_loss

WITH_EPSILON = [name for name in LOSS if "epsilon" in parameters_of(name)]
LOG = [name for name in WITH_EPSILON if loss_traits(name).takes_log]


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
def test_matches_published_code(num_tasks):
  assert_matches("si", num_tasks)


def test_an_outlier_leaves_no_trace():
  assert distances_after_outliers("si", 1e12) == [0, 0, 0]


# ------------------------------------------------ epsilon, in all methods that have it


def weigh(balancer, losses, **extra):
  """The weighted losses, their derivatives and the state of one step."""

  @jax.jit
  def step(losses):
    state = balancer.init(jax.random.key(0))

    def total(losses):
      weighted, new = balancer.update(losses, state, **extra)
      return weighted.sum(), (weighted, new)

    return jax.grad(total, has_aux=True)(losses)

  derivatives, (weighted, state) = step(jnp.asarray(losses))
  return weighted, derivatives, state


@pytest.mark.parametrize("name", LOG)
def test_epsilon_makes_a_loss_of_zero_an_ordinary_one(name):
  weighted, derivatives, state = weigh(make_loss(name, 2, 1, epsilon=1e-3), [0.0, 3.0])
  shifted = np.array([1e-3, 3.001])
  factors = derivatives * shifted  # c log(L + epsilon)
  np.testing.assert_allclose(weighted, factors * np.log(shifted), rtol=1e-5)
  if loss_traits(name).normalised:
    np.testing.assert_allclose(factors, state.weights, rtol=1e-5)
  else:
    assert (factors == factors[0]).all()
  assert (state.weights > 0).all()


@pytest.mark.parametrize("name", LOG)
def test_without_epsilon_a_loss_of_zero_is_left_out_by_hand(name):
  """`present=losses > 0`, the recipe of docs/choosing.md."""
  losses = jnp.array([0.0, 3.0])
  weighted, derivatives, state = weigh(
    make_loss(name, 2, 1), losses, present=losses > 0
  )
  assert weighted[0] == derivatives[0] == state.weights[0] == 0
  np.testing.assert_allclose(weighted[1], derivatives[1] * 3 * np.log(3), 1e-6)
  assert derivatives[1] > 0
  without, _, _ = weigh(make_loss(name, 2, 1), losses)
  assert np.isnan(without[0])


@pytest.mark.parametrize("name", WITH_EPSILON)
def test_epsilon_is_checked(name):
  with pytest.raises(ValueError, match=r"epsilon must be .*, got -1\.0"):
    make_loss(name, 2, epsilon=-1.0)
  with pytest.raises(TypeError, match="epsilon must be a number, got '1'"):
    make_loss(name, 2, epsilon="1")
  if name not in LOG:
    with pytest.raises(ValueError, match=r"epsilon .*got 0\.1"):
      make_loss(name, 2, epsilon=0.1)


def test_epsilon_may_be_traced():
  @jax.jit
  def run(epsilon):
    balancer = balancers.scale_invariant(2, epsilon=epsilon)
    return balancer.update(jnp.ones(2), balancer.init())[0]

  np.testing.assert_allclose(run(0.5), np.log(1.5), 1e-6)
  np.testing.assert_allclose(run(0.25), np.log(1.25), 1e-6)
