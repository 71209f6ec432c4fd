"""Groups of numbers, and balancers whose weights are grouped."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers.solvers.grouping import group_means
from tests.balancers.losses import random_losses, run_each


def cost(values, means):
  return ((values - means) ** 2).sum()


def least_cost(values, num_groups):
  """Of all the ways to cut the sorted values into runs."""
  values = np.sort(values.astype(np.float64))
  places = range(1, len(values))
  return min(
    sum(cost(run, run.mean()) for run in np.split(values, cuts))
    for cuts in itertools.combinations(places, min(num_groups, len(values)) - 1)
  )


@pytest.mark.parametrize("num_groups", [1, 2, 3, 5, 9])
def test_groups_are_the_best_that_there_are(num_groups):
  generator = np.random.default_rng(0)
  samples = np.stack(
    [generator.normal(size=7), *np.exp(4 * generator.normal(size=(20, 7)))]
  ).astype(np.float32)
  everyone = jnp.ones(7, bool)
  means = jax.jit(jax.vmap(lambda x: group_means(x, num_groups, everyone)))(samples)
  for values, found in zip(samples, np.asarray(means), strict=True):
    assert len({*found}) <= num_groups
    least = least_cost(values, num_groups)
    assert (
      cost(values.astype(np.float64), found) <= least * 1.0001 + 1e-6 * values.max()
    )


def test_small_differences_beside_a_large_number_are_seen():
  values = jnp.array([1.0, 1.1, 3.0, 3.1, 1e6])
  found = group_means(values, 3, jnp.ones(5, bool))
  np.testing.assert_allclose(found, [1.05, 1.05, 3.05, 3.05, 1e6], 1e-6)


def test_what_is_not_valid_is_in_no_group():
  values = jnp.array([5.0, jnp.nan, 1.0, 6.0])
  valid = jnp.array([True, False, True, True])
  found = group_means(values, 2, valid)
  np.testing.assert_allclose(found, [5.5, np.nan, 1.0, 5.5])
  np.testing.assert_array_equal(group_means(values, 2, ~valid), values)


@pytest.mark.parametrize("name", ["dwa", "si", "uw", "famo"])
def test_a_loss_balancer_is_grouped(name):
  inner = balancers.create(name, num_tasks=3).loss
  assert inner is not None
  losses = random_losses(30, 3)
  plain, run = (
    run_each(each, {"": (losses, 0)})[""] for each in (inner, balancers.grouped(inner))
  )
  assert (balancers.grouped(inner).observe is None) == (inner.observe is None)
  expected = jax.jit(jax.vmap(lambda w: group_means(w, 2, jnp.ones(3, bool))))
  np.testing.assert_allclose(run.weights, expected(plain.weights), 1e-5)
  np.testing.assert_allclose(
    run.slopes, plain.slopes * run.weights / plain.weights, 1e-5
  )


@pytest.mark.parametrize("update_every", [1, 2])
@pytest.mark.parametrize("name", ["mgda", "nashmtl", "imtlg"])
def test_a_weighting_method_is_grouped(name, update_every):
  inner = balancers.create(name, num_tasks=4, update_every=update_every).gradient
  assert inner is not None
  task_grads = {"x": jax.random.normal(jax.random.key(0), (4, 6))}
  balancer = balancers.grouped(inner)
  present = jnp.array([True, True, False, True])
  (_, plain), (gradient, state) = (
    jax.jit(each.update)(task_grads, each.init({"x": jnp.zeros(6)}), present=present)
    for each in (inner, balancer)
  )
  expected = jax.jit(group_means, static_argnums=1)(plain.weights, 2, present)
  np.testing.assert_allclose(state.weights, expected, 1e-6)
  if name == "mgda":  # which does not clip
    expected = state.weights @ task_grads["x"]
    np.testing.assert_allclose(gradient["x"], expected, 1e-5, 1e-6)


def test_a_task_with_the_weight_0_has_the_mean_of_its_group_too():
  grouped = balancers.grouped(balancers.single_task(3, task=1), num_groups=1)
  losses = jnp.array([2.0, 3.0, jnp.nan])
  present = jnp.array([True, True, False])
  weighted, state = grouped.update(losses, grouped.init(), present=present)
  np.testing.assert_allclose(state.weights, [0.5, 0.5, 0.0])
  np.testing.assert_allclose(weighted, [1.0, 1.5, 0.0])

  grouped = balancers.grouped(balancers.mgda(2), num_groups=1)
  task_grads = jnp.array([[1.0, 0.0], [3.0, 0.0]])  # of which MGDA takes the first
  gradient, state = grouped.update(task_grads, grouped.init(task_grads[0]))
  np.testing.assert_allclose(state.weights, [1.0, 1.0])
  np.testing.assert_allclose(gradient, [4.0, 0.0])


def test_losses_that_a_method_cannot_take_show():
  """Their weight is 0, which the mean of a group must not hide."""
  inner = balancers.ldc_mtl(3, 5, initial_logits=[0.3, 0.5, 0.7])
  for num_groups in (1, 2):
    grouped = balancers.grouped(inner, num_groups)
    for bad in (-1.0, 0.0):
      weighted, _ = grouped.update(jnp.array([bad, 3.0, 5.0]), grouped.init())
      np.testing.assert_array_equal(np.isnan(weighted), [True, False, False])
  # one that is left out whatever it is
  grouped = balancers.grouped(balancers.single_task(3, task=1), num_groups=2)
  weighted, _ = grouped.update(jnp.array([jnp.nan, 3.0, 5.0]), grouped.init())
  np.testing.assert_allclose(weighted, [0.0, 3.0, 0.0])


def test_what_cannot_be_grouped_is_refused():
  both = balancers.create("si+mgda", num_tasks=2)
  with pytest.raises(TypeError, match=r"got Balancer; pass \.loss or \.gradient"):
    balancers.grouped(both)  # pyright: ignore[reportArgumentType, reportType]
  with pytest.raises(ValueError, match="weigh the task gradients, and this one"):
    balancers.grouped(balancers.graddrop(2))
  with pytest.raises(ValueError, match="num_groups must be at least 1"):
    balancers.grouped(balancers.mgda(2), num_groups=0)
  balancer = balancers.grouped(balancers.equal(2))
  with pytest.raises(TypeError, match="needs the state of its own init"):
    balancer.update(jnp.ones(2), balancers.equal(2).init())
