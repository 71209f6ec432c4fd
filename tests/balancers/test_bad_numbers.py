"""No balancer's state is ever poisoned: bad numbers at random steps, over all names."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers.common import all_finite

NUM_TASKS, NUM_STEPS, NUM_PARAMETERS = 3, 40, 8
NAMES = balancers.names()
VALUES = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, -1e30, 1e-30]
OPTIONS = {
  "stl": {"task": 0},
  # so small that a few steps reach every part of them
  "dwa": {"window": 2},
  "dwalog": {"window": 2},
  "igbv2": {
    "buffer_size": 12, "update_every": 3, "num_updates": 2, "batch_size": 4,
    "hidden_sizes": (8,), "warmup_epochs": 2, "start_epoch": 3,
  },
  "nashmtl": {"update_every": 3},
}  # fmt: skip

# what is injected: (step, task, value), several of them
injections = st.lists(
  st.tuples(
    st.integers(0, NUM_STEPS - 1),
    st.integers(0, NUM_TASKS - 1),
    st.sampled_from(VALUES),
  ),
  min_size=1,
  max_size=12,
)


@functools.cache
def runner(name: str):
  """A jitted run over inputs [T, K, ...] and masks; whether each step held."""
  balancer = balancers.create(
    name, num_tasks=NUM_TASKS, steps_per_epoch=4, **OPTIONS.get(name, {})
  )

  @jax.jit
  def run(inputs, masks):
    if balancer.loss is not None:
      state = balancer.loss.init(jax.random.key(0))
    else:
      assert balancer.gradient is not None
      state = balancer.gradient.init(jnp.zeros(NUM_PARAMETERS))
    update = (balancer.loss or balancer.gradient).update  # pyright: ignore

    def step(state, step_inputs):
      values, present = step_inputs
      result, state = update(values, state, present=present)
      return state, (result, all_finite(state))

    return jax.lax.scan(step, state, (inputs, masks))[1]

  return run


def clean(name: str) -> np.ndarray:
  """Inputs of a run without anything bad."""
  generator = np.random.default_rng(0)
  if NAMES[name] == "loss":
    values = np.exp(generator.normal(size=(NUM_STEPS, NUM_TASKS)))
  else:
    values = generator.normal(size=(NUM_STEPS, NUM_TASKS, NUM_PARAMETERS))
  return values.astype(np.float32)


def check(name: str, bad: list[tuple[int, int, float]], lacks_tasks: bool) -> None:
  inputs = clean(name)
  masks = np.ones((NUM_STEPS, NUM_TASKS), bool)
  for step, task, value in bad:
    inputs[step, task] = value
    masks[step, task] = not (lacks_tasks and np.isnan(value))
  results, state_is_finite = runner(name)(inputs, masks)
  assert np.asarray(state_is_finite).all()
  good = sorted(set(range(NUM_STEPS)) - {step for step, _, _ in bad})
  assert np.isfinite(np.asarray(results)[good]).all()  # it goes on


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
  name=st.sampled_from(sorted(NAMES)), bad=injections, lacks=st.booleans()
)
def test_bad_numbers_never_poison_a_state(name, bad, lacks):
  check(name, bad, lacks)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bad_numbers_never_poison_a_state_in_many_runs(name):
  @hypothesis.settings(deadline=None, max_examples=500)
  @hypothesis.given(bad=injections, lacks=st.booleans())
  def run(bad, lacks):
    check(name, bad, lacks)

  run()


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_bad_number_at_once(name):
  check(name, [(7 + 3 * index, index % 3, v) for index, v in enumerate(VALUES)], False)


# How far the weights of a run are from those of a run without the outlier, as a share
# of them, on average over steps 500 to 600 after it: as good as equal, but for the
# balancers with a memory. The agent of igbv2 has seen two transitions less: 0.08 is
# measured, and 1.5 where it stores all. Uncertainty weighting has 0.01, and 0.7 without
# its limit.
LARGEST_DISTANCE = {
  "ls": 0, "si": 0, "stl": 0, "rlw": 0, "rlwlog": 0, "ew": 0, "igbv1": 0,
  "dwa": 1e-5, "dwalog": 1e-5, "uw": 0.02, "uwlog": 0.02, "igbv2": 0.3,
}  # fmt: skip


@functools.cache
def weights_of(name: str, value: float | None, at: int) -> np.ndarray:
  """Weights of 1,200 steps with one outlier, if any; the tasks differ in size."""
  larger = {"buffer_size": 1000, "batch_size": 32, "learning_rate": 3e-3}
  options = {"igbv2": {**OPTIONS["igbv2"], **larger}}
  balancer = balancers.create(
    name,
    num_tasks=NUM_TASKS,
    steps_per_epoch=20,
    **{**OPTIONS, "dwa": {}, "dwalog": {}, **options}.get(name, {}),
  ).loss
  assert balancer is not None
  generator = np.random.default_rng(0)
  noise = np.exp(0.1 * generator.normal(size=(1200, NUM_TASKS)))
  losses = (noise * [2.0, 4.0, 8.0]).astype(np.float32)
  if value is not None:
    losses[at, 1] = value

  @jax.jit
  def run(losses):
    def step(state, losses):
      _, state = balancer.update(losses, state)
      return state, (state.weights, all_finite(state))

    return jax.lax.scan(step, balancer.init(jax.random.key(0)), losses)[1]

  weights, state_is_finite = run(losses)
  assert np.asarray(state_is_finite).all()
  return np.asarray(weights)


@pytest.mark.parametrize(
  "value",
  [1e12, *(pytest.param(value, marks=pytest.mark.slow) for value in (1e18, 1e30))],
)
@pytest.mark.parametrize("name", [n for n, kind in NAMES.items() if kind == "loss"])
def test_weights_come_back_after_one_outlier(name, value):
  for at in (5, 200, 500):
    clean, weights = (
      weights_of(name, v, at)[at + 500 : at + 600] for v in (None, value)
    )
    distance = np.abs(weights - clean) / np.maximum(clean, 1e-6)
    assert distance.mean() <= LARGEST_DISTANCE[name]


@pytest.mark.parametrize("small", [1e-40, 1e-37])
@pytest.mark.parametrize("name", ["dwa", "dwalog", "igbv1", "uw"])
def test_a_tiny_loss_spoils_no_weights(name, small):
  balancer = balancers.create(
    name, num_tasks=2, steps_per_epoch=2, **({"window": 2} if "dwa" in name else {})
  ).loss
  assert balancer is not None
  state = balancer.init()
  for step in range(12):
    losses = np.array([small, 0.9**step], np.float32)
    _, state = balancer.update(losses, state)
    assert np.isfinite(state.weights).all(), step
  assert state.weights[1] > 0


def test_uw_follows_a_loss_whose_square_overflows():
  balancer = balancers.uncertainty_weighting(2)
  state = balancer.init()
  for _ in range(50):
    _, state = balancer.update(np.array([1e20, 1.0], np.float32), state)
  assert state.log_variance[0] > 0.5
  assert state.log_variance[1] == 0


def test_uw_keeps_a_finite_state_at_the_largest_losses():
  balancer = balancers.uncertainty_weighting(2)
  losses = jnp.array([3e38, 1.0], jnp.float32)

  def step(state, _):
    _, state = balancer.update(losses, state)
    return state, all_finite(state)

  state, finite = jax.lax.scan(step, balancer.init(), None, length=4000)
  assert finite.all()
  assert state.log_variance[0] > 40  # followed, and not stood still at the first


@pytest.mark.parametrize(
  ("name", "combined"),
  [(n, False) for n, kind in NAMES.items() if kind == "gradient"] + [("nashmtl", True)],
)
def test_bad_gradients_of_what_is_not_shared_leave_the_state_as_it_was(name, combined):
  shared = {"trunk": True, "heads": False}
  options = {"update_every": 3} if name == "nashmtl" else {}
  balancer = balancers.create(name, num_tasks=2, shared=shared, **options).gradient
  assert balancer is not None
  params = {"trunk": jnp.ones(3), "heads": jnp.ones(2)}
  state = balancer.init(params)
  if hasattr(state, "key"):
    state = state._replace(key=jnp.array([1, 2], jnp.uint32))
  good = {"trunk": jnp.eye(2, 3), "heads": jnp.eye(2)}
  _, state = balancer.update(good, state)
  bad = good | {"heads": jnp.full((2, 2), jnp.nan)}
  extra = {}
  if combined:
    bad, extra = jax.tree.map(lambda leaf: leaf.sum(axis=0), bad), {"combined": True}
  gradient, after = balancer.update(bad, state, **extra)
  assert np.isnan(gradient["heads"]).all()
  jax.tree.map(np.testing.assert_array_equal, after, state)


@pytest.mark.parametrize("name", [n for n, kind in NAMES.items() if kind == "gradient"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_not_hidden(name, value):
  inputs = clean(name)
  inputs[5, 1] = value
  results, _ = runner(name)(inputs, np.ones((NUM_STEPS, NUM_TASKS), bool))
  assert not np.isfinite(results[5]).all()
