"""One step for every balancer: equal to composing by hand, in each of its forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers, value_and_balanced_grad, value_and_task_grads
from igb_jax.balancers import BalancerState
from igb_jax.balancers.methods import METHODS
from tests.balanced_problem import (
  GRADIENT,
  LEAN,
  LOSS,
  SLOW,
  assert_close,
  heads,
  losses_of,
  make,
  needs,
  problem,
  sampled,
  trait,
  trunk,
  unlike,
)
from tests.balancers.contract import held_for, make_gradient


def by_hand(balancer, params, x, state, **extra):
  """The losses, the balanced gradient and the state, from stacked gradients."""

  def weighted_losses(params):
    losses = losses_of(params, x)
    if balancer.loss is None:
      return losses, (losses, None)
    weighted, new = balancer.loss.update(losses, state.loss, **extra)
    return weighted, (losses, new)

  if balancer.gradient is None:
    weighted, pull_back, (losses, new) = jax.vjp(weighted_losses, params, has_aux=True)
    (grads,) = pull_back(jnp.ones_like(weighted))
    return losses, grads, BalancerState(new, None)
  (_, (losses, new)), task_grads = value_and_task_grads(weighted_losses, has_aux=True)(
    params
  )
  grads, gradient_state = balancer.gradient.update(
    task_grads, state.gradient, params, losses=losses, **extra
  )
  return losses, grads, BalancerState(new, gradient_state)


FAST = [*unlike(LOSS), *unlike(GRADIENT)]
EVERY_METHOD = [
  pytest.param(name, num_tasks, marks=[] if num_tasks == 3 and name in FAST else SLOW)
  for num_tasks in (3, 1, 2, 11)
  for name in METHODS
  if num_tasks >= (trait(name, "fewest_tasks") or 1)
]


@pytest.mark.parametrize(("name", "num_tasks"), EVERY_METHOD)
def test_equals_composing_by_hand(name, num_tasks):
  spec = name if name in LOSS else f"si+{name}"
  balancer = make(spec, num_tasks)
  params, x, _ = problem(num_tasks)
  start = balancer.init(params, jax.random.key(1))
  balanced = value_and_balanced_grad(losses_of, balancer)

  @jax.jit
  def both(state):
    extra = needs(name, num_tasks)
    return (
      balanced(params, x, state=state, **extra),
      by_hand(balancer, params, x, state, **extra),
    )

  state = start
  for _ in range(3):
    (losses, grads, new), (*expected, expected_state) = both(state)
    assert_close((losses, grads), tuple(expected), 1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(expected_state)
    state = new


@pytest.mark.parametrize("name", sampled(GRADIENT))
def test_equals_composing_by_hand_where_a_task_is_absent(name):
  balancer = make(f"ew+{name}", 3)
  params, x, _ = problem(3)
  balanced = value_and_balanced_grad(losses_of, balancer)
  present = jnp.array([True, False, True])

  @jax.jit
  def both(state):
    return (
      balanced(params, x, state=state, present=present),
      by_hand(balancer, params, x, state, present=present),
    )

  (_, grads, new), (_, expected, expected_state) = both(
    balancer.init(params, jax.random.key(1))
  )
  assert_close(grads, expected, 1e-5)
  assert_close(new.gradient.weights, expected_state.gradient.weights, 1e-5)
  assert new.gradient.weights[1] == 0


@pytest.mark.parametrize("present", [None, (True, False, True)])
@pytest.mark.parametrize("name", sampled(LEAN))
def test_the_lean_form_has_the_same_gradient(name, present):
  balancer = make(f"si+{name}", 3)
  params, x, _ = problem(3)
  extra = {} if present is None else {"present": jnp.array(present)}
  forms = [
    value_and_balanced_grad(losses_of, balancer, keep_task_grads=keeps)
    for keeps in (True, False)
  ]

  @jax.jit
  def both(state):
    return [form(params, x, state=state, **extra) for form in forms]

  (_, expected, _), (_, grads, state) = both(balancer.init(params, jax.random.key(1)))
  assert_close(grads, expected, 1e-5)
  assert state.gradient.residual < 1e-5


def test_the_lean_form_takes_losses_of_any_scale():
  balancer = balancers.imtl_g(3)
  params, x, _ = problem(3)
  state = balancer.init(params)

  @jax.jit
  def both(scale):
    def scaled(params, x):
      return jnp.stack([scale, 1.0, 2.0]) * losses_of(params, x)

    return [
      value_and_balanced_grad(scaled, balancer, keep_task_grads=keeps)(
        params, x, state=state
      )
      for keeps in (True, False)
    ]

  for scale in (1e-30, 1e-15, 1.0, 1e15, 1e25):
    (_, expected, kept), (_, grads, lean) = both(jnp.float32(scale))
    assert_close(grads, expected, 1e-4)
    assert_close(lean.gramian, kept.gramian, 1e-5)


@pytest.mark.parametrize("name", [n for n in GRADIENT if not trait(n, "gramian_only")])
def test_a_method_that_needs_the_gradients_keeps_them(name):
  with pytest.raises(ValueError, match="keep_task_grads=False"):
    value_and_balanced_grad(losses_of, make(name, 3), keep_task_grads=False)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("name", sampled(LEAN))
def test_balances_at_the_representation(name, keeps):
  balancer, params, x = make(name, 3), *problem(3)[:2]
  everywhere: Any = make_gradient(name, 3)
  balanced = value_and_balanced_grad(
    heads, balancer, trunk=trunk, keep_task_grads=keeps
  )
  state = balancer.init(params, jax.random.key(1))

  @jax.jit
  def both(state):
    _, grads, new = balanced(params, x, state=state)
    z, pull_trunk = jax.vjp(lambda params: trunk(params, x), params)
    losses, rows = value_and_task_grads(lambda z: heads(params, z, x))(z)
    combined, by_hand = everywhere.update(rows, state.gradient, losses=losses)
    (through,) = pull_trunk(combined)
    others = by_hand.weights
    if trait(name, "heads") == "summed":
      others = jnp.ones_like(others)
    direct = jax.grad(lambda params: others @ heads(params, z, x))(params)
    return grads, new.gradient, jax.tree.map(jnp.add, through, direct), by_hand

  grads, new, expected, by_hand = both(state)
  assert_close(grads, expected, 1e-5)
  assert_close(new.weights, by_hand.weights, 1e-5)


def test_a_trunk_needs_no_gradient_balancer():
  params, x, _ = problem(3)
  balancer = make("si", 3)
  state = balancer.init(params)
  plain = value_and_balanced_grad(losses_of, balancer)(params, x, state=state)
  split = value_and_balanced_grad(heads, balancer, trunk=trunk)(params, x, state=state)
  assert_close(split[:2], plain[:2], 1e-6)


def test_features_may_have_parts_without_a_gradient():
  params, x, _ = problem(3)
  balancer = balancers.mgda(3)

  def with_count(params, x):
    return {**trunk(params, x), "count": len(x), "mask": jnp.ones(8, bool)}

  def counted(params, features, x):
    assert features["mask"].dtype == bool
    return heads(params, features, x) * features["count"] / 8

  state = balancer.init(params)
  expected = value_and_balanced_grad(heads, balancer, trunk=trunk)
  found = value_and_balanced_grad(counted, balancer, trunk=with_count)
  assert_close(
    found(params, x, state=state)[1], expected(params, x, state=state)[1], 1e-5
  )


@pytest.mark.parametrize("form", ["kept", "lean", "features"])
@pytest.mark.parametrize("name", sampled([n for n in LEAN if not trait(n, "draws")]))
def test_weights_are_held_with_one_backward_pass(name, form):
  """Every third step updates; in between the gradient is that of the held weights."""
  balancer = make(name, 3, update_every=3)
  every_step = make(name, 3, **held_for(name, 1))
  params, x, _ = problem(3)
  options: dict[str, Any] = {
    "kept": {},
    "lean": {"keep_task_grads": False},
    "features": {"trunk": trunk},
  }[form]
  fun = heads if form == "features" else losses_of
  balanced = value_and_balanced_grad(fun, balancer, **options)
  fresh = value_and_balanced_grad(fun, every_step, **options)
  step: Any = jax.jit(lambda state, x: balanced(params, x, state=state))
  state = balancer.init(params)
  _, at_first, _ = jax.jit(lambda x: fresh(params, x, state=every_step.init(params)))(x)
  _, grads, state = step(state, x)
  assert_close(grads, at_first, 1e-5)
  weights = state.gradient.weights
  for left in (1, 0):
    _, _, state = step(state, x[::-1] * (3 - left))
    assert state.gradient.steps_left == left
    np.testing.assert_array_equal(state.gradient.weights, weights)
  _, grads, state = step(state, x)
  assert state.gradient.steps_left == 2
  if state.gradient.memory is None:  # else the weights have moved on
    assert_close(grads, at_first, 1e-5)
  assert step._cache_size() == 1
