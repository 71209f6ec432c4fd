"""The balanced step in programs: scans, seeds, parts alone, bad input."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax import balancers, value_and_balanced_grad
from igb_jax.balancers import Balancer, BalancerState
from igb_jax.balancers.solvers import Solution
from tests.balanced_problem import (
  assert_close,
  heads,
  losses_of,
  make,
  problem,
  trunk,
)


@pytest.mark.parametrize("options", [{}, {"keep_task_grads": False}])
def test_a_scan_carries_the_state_and_vmap_takes_seeds(options):
  balancer = make("igbv1+pcgrad", 3)
  balanced = value_and_balanced_grad(losses_of, balancer, **options)
  optimizer = optax.sgd(0.05)

  def run(seed):
    params, x, _ = problem(3)
    state = balancer.init(params, jax.random.key(seed))

    def step(carry, _):
      params, opt_state, state = carry
      losses, grads, state = balanced(params, x, state=state)
      updates, opt_state = optimizer.update(grads, opt_state, params)
      return (optax.apply_updates(params, updates), opt_state, state), losses

    _, losses = jax.lax.scan(step, (params, optimizer.init(params), state), length=20)
    return losses

  each = jnp.stack([jax.jit(run)(seed) for seed in range(2)])
  together = jax.jit(jax.vmap(run))(jnp.arange(2))
  np.testing.assert_allclose(together, each, 1e-3)
  assert (each[:, -1] < each[:, 0]).all()


@pytest.mark.parametrize("name", ["mgda", "pcgrad"])
def test_parts_alone_keep_their_own_states(name):
  params, x, shared = problem(3)
  gradient = balancers.create(name, num_tasks=3, shared=shared).gradient
  assert gradient is not None
  loss = balancers.scale_invariant(3)
  both = Balancer(loss, gradient)
  for part, state in ((loss, loss.init()), (gradient, gradient.init(params))):
    *_, new = value_and_balanced_grad(losses_of, part)(params, x, state=state)
    assert type(new) is type(state)
  *_, new = value_and_balanced_grad(losses_of, both)(
    params, x, state=both.init(params, jax.random.key(0))
  )
  assert isinstance(new, BalancerState)


def test_aux_and_argnums_and_keywords():
  params, x, shared = problem(3)
  balancer = balancers.mgda(3, shared=shared)

  def fun(x, params, *, scale):
    losses = losses_of(params, x)
    return scale * losses, losses.sum()

  balanced = value_and_balanced_grad(fun, balancer, argnums=1, has_aux=True)
  (losses, aux), grads, _ = balanced(x, params, state=balancer.init(params), scale=2.0)
  np.testing.assert_allclose(losses.sum(), 2 * aux, 1e-6)
  assert jax.tree.structure(grads) == jax.tree.structure(params)
  pair = (params["trunk"], params["heads"])
  both = value_and_balanced_grad(
    lambda trunk, heads: losses_of({"trunk": trunk, "heads": heads}, x),
    balancers.mgda(3, shared=(True, False)),
    argnums=(0, 1),
  )
  pair_state = balancers.mgda(3).init(pair)
  _, pair_grads, _ = both(*pair, state=pair_state)
  half = jax.tree.map(lambda leaf: leaf / 2, (grads["trunk"], grads["heads"]))
  assert_close(pair_grads, half, 1e-5)


def test_argnums_may_count_from_the_end():
  params, x, shared = problem(3)
  balancer = balancers.mgda(3, shared=shared)
  state = balancer.init(params)
  _, expected, _ = value_and_balanced_grad(losses_of, balancer)(params, x, state=state)
  for argnums in (-1, (-1,)):
    tree = shared if argnums == -1 else (shared,)
    balancer = balancers.mgda(3, shared=tree)
    start = balancer.init(params if argnums == -1 else (params,))
    for keeps in (True, False):
      balanced = value_and_balanced_grad(
        lambda x, params: losses_of(params, x),
        balancer,
        argnums=argnums,
        keep_task_grads=keeps,
      )
      _, grads, _ = balanced(x, params, state=start)
      assert_close(grads if argnums == -1 else grads[0], expected, 1e-5)


def test_extra_arguments_reach_both_parts():
  seen = {}

  def update(losses, state, **extra):
    seen["loss"] = set(extra)
    return losses, state

  plain = balancers.equal(3)
  loss = balancers.LossBalancer(plain.init, update)

  def rule(grads, gramian, losses, learning_rate_ratio):
    seen["gradient"] = learning_rate_ratio
    return balancers.solvers.Solution(losses / losses.sum())

  gradient = balancers.weighting(3, rule, extra=("losses", "learning_rate_ratio"))
  params, x, _ = problem(3)
  balancer = Balancer(loss, gradient)
  state: Any = balancer.init(params)
  losses, _, state = value_and_balanced_grad(losses_of, balancer)(
    params, x, state=state, learning_rate_ratio=2.0
  )
  assert seen == {"loss": {"present", "learning_rate_ratio"}, "gradient": 2.0}
  np.testing.assert_allclose(state.gradient.weights, losses / losses.sum(), 1e-6)


@pytest.mark.parametrize("loss", [0.0, -0.5])
@pytest.mark.parametrize("spec", ["si", "si+mgda"])
def test_a_loss_without_a_logarithm_makes_the_gradient_nan(spec, loss):
  params, x, _ = problem(3)
  balancer = make(spec, 3)
  balanced = value_and_balanced_grad(lambda p, x: loss * losses_of(p, x), balancer)
  _, grads, _ = balanced(params, x, state=balancer.init(params))
  assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(grads["trunk"]))


def test_what_a_step_is_given_is_checked():
  params, x, _ = problem(3)
  balancer = make("si+mgda", 3)
  balanced = value_and_balanced_grad(losses_of, balancer)
  state = balancer.init(params)
  with pytest.raises(ValueError, match="state is missing"):
    balanced(params, x)
  for other in (make("ew+mgda", 3), make("si", 3), make("si+mgda", 2)):
    with pytest.raises(ValueError, match="to a different balancer"):
      balanced(params, x, state=other.init(params))
  with pytest.raises(ValueError, match="to a different balancer"):
    balanced(params, x, state=state.loss)
  with pytest.raises(TypeError, match="passed by keyword, as state=state"):
    balanced(params, x, state)
  with pytest.raises(ValueError, match=r"there are 2 losses, .* made for 3 tasks"):
    value_and_balanced_grad(lambda p, x: losses_of(p, x)[:2], balancer)(
      params, x, state=state
    )
  with pytest.raises(TypeError, match="cannot be passed by keyword"):
    balanced(params, x, state=state, losses=jnp.ones(3))
  with pytest.raises(ValueError, match="init needs a key"):
    make("pcgrad", 3).init(params)


def test_what_it_is_made_of_is_checked():
  mgda = balancers.mgda(3)
  with pytest.raises(TypeError, match=r"what igb_jax.balancers.create returns.* 'ew'"):
    value_and_balanced_grad(losses_of, "ew")  # pyright: ignore[reportArgumentType]
  with pytest.raises(ValueError, match="has neither"):
    value_and_balanced_grad(losses_of, Balancer(None, None))
  chained: Any = optax.chain(mgda, optax.adam(0.1))
  with pytest.raises(TypeError, match="chain an optimiser behind"):
    value_and_balanced_grad(losses_of, Balancer(None, chained))
  with pytest.raises(ValueError, match="all tasks are taken at once"):
    value_and_balanced_grad(losses_of, mgda, keep_task_grads=False, batch_size=2)


def test_a_trunk_is_checked():
  params, x, _ = problem(3)
  mgda = balancers.mgda(3)
  state = mgda.init(params)
  with pytest.raises(ValueError, match="floating-point array"):
    value_and_balanced_grad(heads, mgda, trunk=lambda p, x: {"n": jnp.ones(3, int)})(
      params, x, state=state
    )
  with pytest.raises(TypeError, match=r"fun\(params, features, ...\).*3 by position"):
    value_and_balanced_grad(losses_of, mgda, trunk=trunk)(params, x, state=state)
  for feature, message in ((x + 1j, "real and imaginary"), ("word", "got 'word'")):
    with pytest.raises(TypeError, match=message):
      value_and_balanced_grad(
        heads, mgda, trunk=lambda p, x, f=feature: {**trunk(p, x), "more": f}
      )(params, x, state=state)
  with pytest.raises(ValueError, match="Leave out trunk="):
    value_and_balanced_grad(heads, balancers.moco(3), trunk=trunk)


@pytest.mark.parametrize("options", [{}, {"keep_task_grads": False}])
def test_lowers_for_every_platform(options):
  params, x, _ = problem(3)
  balancer = make("igbv1+mgda", 3)
  step = jax.jit(value_and_balanced_grad(losses_of, balancer, **options))
  state = balancer.init(params)
  for platform in ("cpu", "cuda", "tpu"):
    exported = jax.export.export(step, platforms=[platform])(params, x, state=state)
    assert "f64" not in exported.mlir_module()
    assert "callback" not in exported.mlir_module()


@pytest.mark.parametrize(
  ("answer", "memory", "error", "message"),
  [
    (jnp.ones(2), None, TypeError, "must return a solvers.Solution"),
    (
      Solution(jnp.ones(3)),
      None,
      ValueError,
      r"shape \(2,\), one per task, got \(3,\)",
    ),
    (Solution(jnp.ones(2)), np.ones(1), TypeError, r"a pair \(Solution, memory\)"),
  ],
)
def test_what_a_rule_returns_is_checked(answer, memory, error, message):
  balancer = balancers.weighting(2, lambda *given, **kept: answer, memory=memory)
  grads = jnp.eye(2)
  with pytest.raises(error, match=message):
    balancer.update(grads, balancer.init(grads[0]))
  with pytest.raises(ValueError, match="heads must be 'weighted' or 'summed'"):
    balancers.weighting(2, lambda *given: answer, heads="sum")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("scale", [1e60, 1e-50, 1e200])
def test_the_lean_form_keeps_the_range_of_float64(scale):
  with jax.enable_x64(True):
    balancer = balancers.imtl_g(2)
    params, factors = jnp.array([1.0, 2.0]), jnp.array([scale, 1.0])

    def fun(params):
      return factors * jnp.stack([params @ params, jnp.sum((params - 3) ** 2)])

    state = balancer.init(params)
    (_, expected, _), (_, grads, _) = (
      value_and_balanced_grad(fun, balancer, keep_task_grads=keeps)(params, state=state)
      for keeps in (True, False)
    )
    assert_close(grads, expected, 1e-4)


def test_in_shard_map_weights_may_be_the_same_everywhere():
  """Losses of each device's part of the batch, of parameters that all devices have."""
  params, x, shared = problem(3)
  balancer = balancers.mgda(3, shared=shared)
  mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  spec = jax.sharding.PartitionSpec
  for keeps in (True, False):
    balanced = value_and_balanced_grad(losses_of, balancer, keep_task_grads=keeps)

    def step(params, x, balanced=balanced):
      return balanced(params, x, state=balancer.init(params))[1]

    grads = jax.jit(
      jax.shard_map(step, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec())
    )(params, x)
    assert_close(grads, step(params, x), 1e-5)
