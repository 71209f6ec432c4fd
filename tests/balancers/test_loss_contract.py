"""What every loss balancer makes of losses, by its traits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.balancers.contract import (
  LOSS,
  assert_close,
  assert_equal,
  assert_finite,
  having,
  loss_traits,
  parameters_of,
  with_task_counts,
)
from tests.balancers.long_losses import distances_after_outliers, long_weights
from tests.balancers.losses import (
  NUM_STEPS,
  PLAIN,
  SCALES,
  SEVERAL,
  TASK_COUNTS,
  TINY,
  factors_of,
  make_loss,
  order_of,
  run_each,
  runs_of,
  trains_one_task,
)

# ------------------------------------------------------------------ every course


@pytest.mark.parametrize(("name", "num_tasks"), with_task_counts(LOSS, TASK_COUNTS))
def test_weights_are_finite_positive_and_normalised_at_every_scale(name, num_tasks):
  labels = [f"times {scale:g}" for scale in SCALES]
  labels += [f"leaps {index}" for index in range(4)]
  for label in labels:
    run = runs_of(name, num_tasks)[label]
    assert_finite((run.weighted, run.states))
    if trains_one_task(name):
      assert_equal(run.weights, np.eye(num_tasks)[[-1] * NUM_STEPS])
    elif loss_traits(name).positive:
      assert (run.weights > 0).all(), label
    if loss_traits(name).normalised:
      np.testing.assert_allclose(run.weights.sum(axis=1), num_tasks, 1e-5)


@pytest.mark.parametrize(("name", "num_tasks"), with_task_counts(LOSS, [2, 3]))
def test_a_tiny_loss_spoils_no_weights(name, num_tasks):
  for tiny in TINY:
    run = runs_of(name, num_tasks)[f"a tiny one, {tiny:g}"]
    assert_finite(run.weights)
    if loss_traits(name).positive or trains_one_task(name):
      assert (run.weights[:, -1] > 0).all()


@pytest.mark.parametrize(("name", "num_tasks"), with_task_counts(LOSS, [2, 3, 11]))
def test_weights_are_held_constant_under_differentiation(name, num_tasks):
  losses, _, weighted, slopes, first, states = runs_of(name, num_tasks)[PLAIN]
  assert_close(first, slopes * np.eye(num_tasks)[0])
  if loss_traits(name).normalised:
    of_losses = np.log(losses) if loss_traits(name).takes_log else losses
    assert_close(weighted, states.weights * of_losses, 1e-4)


@pytest.mark.parametrize(
  ("name", "num_tasks"),
  with_task_counts(having("loss", equivariant=True, draws=False), SEVERAL),
)
def test_permuting_tasks_permutes_the_output(name, num_tasks):
  order = order_of(num_tasks)
  run, permuted = (runs_of(name, num_tasks)[label] for label in (PLAIN, "permuted"))
  assert_close(permuted.weighted, run.weighted[:, order], 2e-5)
  atol = 0 if loss_traits(name).positive else 2e-5  # others may pass through 0
  np.testing.assert_allclose(permuted.weights, run.weights[:, order], 2e-5, atol)


@pytest.mark.parametrize(
  ("name", "num_tasks"), with_task_counts(having("loss", scale_invariant=True), SEVERAL)
)
def test_the_direction_does_not_depend_on_the_scale_of_any_loss(name, num_tasks):
  run, scaled = (
    runs_of(name, num_tasks)[label].slopes for label in (PLAIN, "each on its scale")
  )
  shares, expected = scaled * factors_of(num_tasks), run
  shares, expected = (
    each / np.abs(each).sum(axis=1, keepdims=True) for each in (shares, expected)
  )
  assert_close(shares, expected, 1e-3)


@pytest.mark.parametrize("name", LOSS)
def test_the_key_given_to_init_is_all_the_randomness(name):
  run, other = (runs_of(name, 3)[label] for label in (PLAIN, "another key"))
  if loss_traits(name).draws:
    assert (np.abs(other.weights - run.weights) > 1e-3).any()
    with pytest.raises(ValueError, match=r"key, .* got None"):
      make_loss(name, 3).init()
  else:
    assert_equal(other.states, run.states)
    assert_equal(make_loss(name, 3).init(), make_loss(name, 3).init(jax.random.key(0)))


@pytest.mark.parametrize("name", having("loss", ties_tasks=False))
def test_the_weight_of_a_task_does_not_depend_on_other_losses(name):
  other = runs_of(name, 2)["each on its scale"]
  alone = run_each(make_loss(name, 2), {"": (other.losses * [1, 0] + [0, 1], 0)})[""]
  if not trains_one_task(name):
    assert_close(alone.weights[:, 0], other.weights[:, 0])
    assert_close(alone.weighted[:, 0], other.weighted[:, 0])


# -------------------------------------------------------------------- long courses


def agents_slow(names: list[str]) -> list[Any]:
  """The names; the slow tests have those with an agent, which take most of the time."""
  return [
    pytest.param(
      name, marks=pytest.mark.slow if "buffer_size" in parameters_of(name) else ()
    )
    for name in names
  ]


@pytest.mark.parametrize("name", agents_slow(LOSS))
def test_weights_of_losses_have_a_bound(name):
  for label, weights in long_weights(name).items():
    assert_finite(weights)
    if loss_traits(name).normalised or trains_one_task(name):
      assert weights.max() <= 3 * (1 + 1e-5), label


# How far the weights of a run are from those of a run without the outlier, as a share
# of them, on average over steps 500 to 600 after it. Uncertainty weighting has 0.01,
# and 0.7 without its limit. The agent of igbv2 has seen two transitions less: 0.08 is
# measured, and 1.5 where it stores all.
LARGEST_DISTANCE = {False: 0.02, True: 0.3}  # by whether it draws


@pytest.mark.parametrize(
  "value",
  [1e12, *(pytest.param(value, marks=pytest.mark.slow) for value in (1e18, 1e30))],
)
@pytest.mark.parametrize("name", agents_slow(having("loss", recovers=True)))
def test_weights_come_back_after_one_outlier(name, value):
  largest = LARGEST_DISTANCE[loss_traits(name).draws]
  assert max(distances_after_outliers(name, value)) <= largest


# -------------------------------------------------------------------- in a pipeline


@pytest.mark.parametrize("name", LOSS)
def test_trains_a_small_model_inside_an_optax_pipeline(name):
  targets = jnp.array([[1.0, -2.0], [0.5, 3.0]])
  optimizer = optax.adam(0.05)
  milder = {"uwso": {"temperature": 100.0}, "pbi": {"theta": 1.0}}
  balancer = make_loss(name, 2, **milder.get(name, {}))

  def losses_of(params):
    return jnp.mean((params["shared"] + params["heads"] - targets) ** 2, axis=1) + 0.01

  @jax.jit
  def train():
    params = {"shared": jnp.zeros(2), "heads": jnp.zeros((2, 2))}
    carry = params, optimizer.init(params), balancer.init(jax.random.key(0))

    def step(carry, _):
      params, opt_state, state = carry

      def objective(params):
        weighted, new_state = balancer.update(losses_of(params), state)
        return weighted.sum(), new_state

      grads, state = jax.grad(objective, has_aux=True)(params)
      updates, opt_state = optimizer.update(grads, opt_state)
      return (optax.apply_updates(params, updates), opt_state, state), None

    return jax.lax.scan(step, carry, length=300)[0][0]

  losses = losses_of(train())
  assert losses[1] < 0.05
  if not trains_one_task(name):
    assert losses[0] < 0.05
