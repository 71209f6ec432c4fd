"""The jitted training step: what it computes, sums, keeps, traces and lowers to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax import balancers
from igb_jax.training.step import init_state, make_train_step

from . import problem


def test_equals_a_step_by_hand():
  step, state, _ = problem.make("si", learning_rate=0.1)
  params = {"x": jnp.zeros(2)}
  optimizer = optax.adam(0.1)
  opt_state = optimizer.init(params)
  for batch in problem.batches():
    gradients = jax.grad(lambda p, b=batch: jnp.log(problem.losses_of(p, b)).sum())(
      params
    )
    updates, opt_state = optimizer.update(gradients, opt_state)
    params = optax.apply_updates(params, updates)
    state = step(state, batch)
  np.testing.assert_allclose(state.params["x"], params["x"], 1e-6)
  assert state.step == state.sums.steps == 4


def test_sums_losses_and_weights():
  step, state, _ = problem.make("uw")
  losses, weights = [], []
  for batch in problem.batches():
    losses.append(problem.losses_of(state.params, batch))
    state = step(state, batch)
    weights.append(np.array(state.balancer.loss.weights))
  np.testing.assert_allclose(state.sums.losses, np.sum(losses, axis=0), 1e-6)
  np.testing.assert_allclose(state.sums.weights, np.sum(weights, axis=0), 1e-6)


def test_one_trace_and_nothing_leaves_the_device():
  step, state, _ = problem.make("igbv1")
  for batch in problem.batches(3):
    state = step(state, jnp.asarray(batch))
  assert step._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]
  batch = jnp.full(3, 0.1)
  with jax.transfer_guard("disallow"):
    state = step(state, batch)
  assert "callback" not in str(jax.make_jaxpr(step)(state, batch))


def test_scales_the_update_by_the_plateaus_scale():
  step, state, _ = problem.make("ew")
  half = state._replace(plateau=state.plateau._replace(scale=jnp.asarray(0.5)))
  half = problem.copy(half)
  (batch,) = problem.batches(1)
  full_step = step(state, batch).params["x"]
  np.testing.assert_allclose(step(half, batch).params["x"], full_step / 2, 1e-6)


def test_tells_the_balancer_how_far_the_learning_rate_has_fallen():
  ratios = []

  def update(losses, state, *, learning_rate_ratio, **extra):
    ratios.append(learning_rate_ratio)
    return losses * learning_rate_ratio, state

  balancer = balancers.Balancer(
    balancers.LossBalancer(balancers.equal(3).init, update), None
  )
  state = problem.state_with(optax.sgd(0.1), x=0.0, balancer=balancer)
  state = state._replace(plateau=state.plateau._replace(scale=jnp.asarray(0.25)))
  step = make_train_step(problem.losses_of, balancer, optax.sgd(0.1))
  (batch,) = problem.batches(1)
  gradient = jax.grad(lambda p: problem.losses_of(p, batch).sum())({"x": jnp.zeros(2)})
  # the weights are four times as large, the learning rate a quarter
  np.testing.assert_allclose(step(state, batch).params["x"], -0.1 * gradient["x"], 1e-6)
  assert len(ratios) == 1


@pytest.mark.parametrize(
  "spec",
  ["ew", "si", "dwa", "uw", "igbv1", pytest.param("igbv2", marks=pytest.mark.slow)],
)
def test_a_batch_without_a_tasks_labels_trains_the_others(spec):
  """Absent task two, whose loss is NaN; its parameters get nothing."""

  def losses_of(params, batch):
    return jnp.mean((params["x"] - problem.TARGETS) ** 2, axis=1) + batch

  balancer = balancers.create(spec, num_tasks=3, steps_per_epoch=2)
  optimizer = optax.sgd(0.1)
  state = init_state(
    {"x": jnp.zeros((3, 2))},  # a row per task
    balancer=balancer,
    optimizer=optimizer,
    plateau=optax.contrib.reduce_on_plateau(),
    key=jax.random.key(0),
  )
  step = make_train_step(
    losses_of, balancer, optimizer, present_of=lambda batch: ~jnp.isnan(batch)
  )
  whole, lacking = np.float32([0.1] * 3), np.float32([0.1, np.nan, 0.1])
  for batch in (whole, lacking, whole, lacking, lacking, lacking):
    before = problem.copy(state)
    state = step(state, batch)
    changed = (state.params["x"] != before.params["x"]).all(axis=1)
    assert changed.tolist() == [True, not np.isnan(batch[1]), True]
    assert (state.balancer.loss.weights[1] == 0) == np.isnan(batch[1])
  assert state.failure.step == -1
  assert state.sums.present.tolist() == [6, 2, 6]
  assert np.isfinite(state.sums.losses).all()
  assert step._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.parametrize(
  "optimizer", [optax.sgd(0.1), optax.contrib.dog(0.1), optax.contrib.prodigy()]
)  # the latter two keep where they began
def test_the_initial_parameters_are_the_callers_to_keep(optimizer):
  params = {"x": jnp.ones(2)}
  for _ in range(2):
    state = init_state(
      params,
      balancer=problem.EQUAL,
      optimizer=optimizer,
      plateau=optax.contrib.reduce_on_plateau(),
      key=jax.random.key(0),
    )
    make_train_step(problem.losses_of, problem.EQUAL, optimizer)(state, jnp.ones(3))
  assert params["x"].tolist() == [1, 1]


def test_an_optimizer_may_keep_a_prng_key():
  noise = optax.add_noise(0.1, 0.5, jax.random.key(0))
  optimizer = optax.chain(noise, optax.sgd(0.1))
  state = problem.state_with(optimizer)
  step = make_train_step(problem.losses_of, problem.EQUAL, optimizer)
  before = np.asarray(state.params["x"])
  state = step(step(state, jnp.ones(3)), jnp.ones(3))
  assert state.failure.step == -1
  assert (np.asarray(state.params["x"]) != before).all()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("spec", ["ew", "rlw", "dwa", "uw", "igbv1"])
def test_lowers_for_every_platform(spec, platform):
  step, state, _ = problem.make(spec)
  exported = jax.export.export(step, platforms=[platform])(state, jnp.ones(3))
  assert "f64" not in exported.mlir_module()


@pytest.mark.parametrize("options", [{}, {"absent": "remember"}])
@pytest.mark.parametrize(
  "spec",
  [
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("ew", "uw")),
    "igbv1",
    "igbv1+nashmtl",
  ],
)
def test_compiles_once_for_losses_in_float64(spec, options):
  balancer = balancers.create(
    spec,
    num_tasks=2,
    steps_per_epoch=2,
    shared={"shared": True, "heads": False},
    **options,
  )
  optimizer, plateau = optax.sgd(0.1), optax.contrib.reduce_on_plateau()
  with jax.enable_x64(True):
    params = {"shared": jnp.ones(2), "heads": jnp.ones(2)}
    step = make_train_step(
      lambda params, batch: (params["shared"] * params["heads"] - batch) ** 2,
      balancer,
      optimizer,
    )
    state = init_state(
      params,
      balancer=balancer,
      optimizer=optimizer,
      plateau=plateau,
      key=jax.random.key(0),
    )
    shapes = jax.eval_shape(lambda: state)
    for _ in range(3):
      state = step(state, jnp.array([2.0, 3.0]))
    assert jax.eval_shape(lambda: state) == shapes
    assert step._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]
