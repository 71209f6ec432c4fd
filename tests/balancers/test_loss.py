"""Loss balancers: golden values, properties over all methods, and every error."""

import functools
from pathlib import Path

import flax.serialization
import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from igb_jax import balancers
from tests.balancers.tables import LOSS as LOSS_NAMES
from tests.balancers.tables import having
from tests.small_balancers import small_loss_balancer

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "loss.npz")
STEPS_PER_EPOCH = 4
LOG_NAMES = having("loss", takes_log=True)
NORMALISED = having("loss", normalised=True)
RANDOM = having("loss", draws=True)
UNTIED = having("loss", ties_tasks=False)
TASK_COUNTS = [1, 2, 3, 11, 64]
SCALES = [1e-12, 1e-6, 1.0, 1e6, 1e12]


def make(name: str, num_tasks: int) -> balancers.LossBalancer:
  return small_loss_balancer(name, num_tasks, STEPS_PER_EPOCH)


@functools.partial(jax.jit, static_argnums=0)
def scan(balancer, losses, state):
  """Runs all steps in one scan; returns the final state and a trace of each step."""

  def step(state, losses):
    weighted, new_state = balancer.update(losses, state)
    return new_state, (weighted, new_state.weights)

  return jax.lax.scan(step, state, losses)


def random_losses(num_steps: int, num_tasks: int, seed: int = 0) -> np.ndarray:
  generator = np.random.default_rng(seed)
  return np.exp(generator.normal(size=(num_steps, num_tasks))).astype(np.float32)


def assert_trees_equal(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


# ------------------------------------------------------------------ golden values


@pytest.mark.parametrize("num_tasks", [2, 3, 11])
@pytest.mark.parametrize("name", ["ls", "si", "dwa", "dwalog", "uw", "uwlog", "igbv1"])
def test_matches_published_code_over_90_steps(name, num_tasks):
  losses = GOLDEN[f"losses_{num_tasks}"]
  balancer = balancers.create(
    name,
    num_tasks=num_tasks,
    steps_per_epoch=int(GOLDEN[f"steps_per_epoch_{num_tasks}"]),
  ).loss
  assert balancer is not None

  @jax.jit
  def run(losses):
    def step(state, losses):
      def weigh(losses):
        weighted, new_state = balancer.update(losses, state)
        return weighted, (weighted, new_state)

      jacobian, (weighted, new_state) = jax.jacrev(weigh, has_aux=True)(losses)
      return new_state, (weighted, jacobian)

    return jax.lax.scan(step, balancer.init(), losses)[1]

  weighted, jacobians = run(losses)
  rtol = 1e-3 if name.startswith("uw") else 1e-4
  expected = GOLDEN[f"{name}_weighted_{num_tasks}"]
  # log L passes through 0, where only an absolute tolerance makes sense
  atol = rtol * np.abs(expected).mean() * 1e-2
  np.testing.assert_allclose(weighted, expected, rtol, atol)
  diagonals = jnp.diagonal(jacobians, axis1=1, axis2=2)
  np.testing.assert_allclose(diagonals, GOLDEN[f"{name}_coef_{num_tasks}"], rtol)
  off_diagonal = np.asarray(jacobians) * (1 - np.eye(num_tasks))
  assert not off_diagonal.any()  # weights are held constant


def test_dwa_weights_change_at_the_27th_call():
  losses = random_losses(30, 3)
  balancer = balancers.dynamic_weight_average(3)
  _, (_, weights) = scan(balancer, losses, balancer.init())
  assert (weights[:26] == 1).all()
  assert (weights[26:] != 1).any(axis=1).all()


def test_igbv1_base_losses_are_the_mean_of_the_base_epoch():
  losses = random_losses(3 * STEPS_PER_EPOCH, 3)
  balancer = balancers.igbv1(3, STEPS_PER_EPOCH)
  state, (_, weights) = scan(balancer, losses, balancer.init())
  base = losses[STEPS_PER_EPOCH : 2 * STEPS_PER_EPOCH].mean(axis=0)
  np.testing.assert_allclose(state.base_losses, base, 1e-5)
  assert (weights[: 2 * STEPS_PER_EPOCH] == 1).all()
  gaps = np.exp(losses[-1] / base)
  np.testing.assert_allclose(state.weights, 3 * gaps / gaps.sum(), 1e-5)


def test_rlw_draws_fresh_weights_with_the_softmax_of_normal_logits():
  balancer = balancers.random_loss_weighting(3)
  _, (_, weights) = scan(balancer, np.ones((4000, 3)), balancer.init(jax.random.key(1)))
  assert len(np.unique(np.asarray(weights)[:, 0])) > 3900
  logits = np.log(weights)
  differences = logits[:, 0] - logits[:, 1]  # of two standard normals: N(0, 2)
  assert abs(differences.mean()) < 0.1
  assert abs(differences.std() - np.sqrt(2)) < 0.1


# --------------------------------------------------------------------- properties


@pytest.mark.parametrize("num_tasks", TASK_COUNTS)
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_weights_are_finite_positive_and_normalised_at_every_scale(name, num_tasks):
  balancer = make(name, num_tasks)
  for scale in SCALES:
    losses = random_losses(30, num_tasks) * np.float32(scale)
    state = balancer.init(jax.random.key(0))
    state, (weighted, weights) = scan(balancer, losses, state)
    assert np.isfinite(weighted).all()
    assert np.isfinite(weights).all()
    assert weights.dtype == state.weights.dtype == jnp.float32
    if name == "stl":
      assert_trees_equal(weights[-1], np.eye(num_tasks)[-1])
    else:
      assert (weights > 0).all()
    if name in NORMALISED:
      np.testing.assert_allclose(weights.sum(axis=1), num_tasks, 1e-5)


@pytest.mark.parametrize("name", sorted(set(LOSS_NAMES) - {"stl"}))
def test_weights_stay_positive_when_losses_leap_between_scales(name):
  generator = np.random.default_rng(0)
  losses = 10 ** generator.uniform(-12, 12, size=(200, 3))
  balancer = make(name, 3)
  _, (weighted, weights) = scan(balancer, losses, balancer.init(jax.random.key(0)))
  assert np.isfinite(weighted).all()
  assert np.isfinite(weights).all()
  assert (weights > 0).all()


@pytest.mark.parametrize("log", [False, True])
def test_uw_stays_finite_where_its_objective_has_no_minimum(log):
  balancer = balancers.uncertainty_weighting(2, log=log)
  losses = np.full((5000, 2), [1e-3, 1.0] if log else [1e-20, 1e-30])
  state, (weighted, weights) = scan(balancer, losses, balancer.init())
  assert np.isfinite(weighted).all()
  assert np.isfinite(weights).all()
  assert state.log_variance.min() == pytest.approx(-np.log(1e3 if log else 1e6))


@pytest.mark.parametrize("num_tasks", [2, 3, 11, 64])
@pytest.mark.parametrize("name", sorted(set(LOSS_NAMES) - {"stl", *RANDOM}))
def test_permuting_tasks_permutes_the_output(name, num_tasks):
  balancer = make(name, num_tasks)
  losses = random_losses(40, num_tasks)
  order = np.random.default_rng(1).permutation(num_tasks)
  _, (weighted, weights) = scan(balancer, losses, balancer.init())
  _, (permuted, permuted_weights) = scan(balancer, losses[:, order], balancer.init())
  np.testing.assert_allclose(permuted, weighted[:, order], 2e-5, 1e-6)
  np.testing.assert_allclose(permuted_weights, weights[:, order], 2e-5)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_state_keeps_structure_shapes_and_dtypes(name):
  balancer = make(name, 3)
  state = balancer.init(jax.random.key(0))
  new_state = jax.eval_shape(balancer.update, jnp.ones(3), state)[1]
  assert jax.tree.structure(state) == jax.tree.structure(new_state)
  for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(new_state), strict=True):
    assert (old.shape, old.dtype) == (new.shape, new.dtype)
    assert not jax.dtypes.issubdtype(old.dtype, jax.dtypes.extended)


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_everything_stays_float32_where_float64_is_enabled(name, num_tasks):
  with jax.enable_x64(True):
    balancer = make(name, num_tasks)
    state = balancer.init(jax.random.key(0))
    losses = np.ones((20, num_tasks), np.float32)
    final, (weighted, _) = scan(balancer, losses, state)
    assert weighted.dtype == jnp.float32
    for leaf in jax.tree.leaves(final):
      assert leaf.dtype in (jnp.float32, jnp.int32, jnp.uint32, jnp.bool_)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_the_state_can_be_donated(name):
  balancer = make(name, 3)
  update = jax.jit(balancer.update, donate_argnums=1)
  state = balancer.init(jax.random.key(0))
  for _ in range(2):
    _, state = update(jnp.ones(3), state)
  assert np.isfinite(state.weights).all()


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_second_call_does_not_retrace_and_nothing_leaves_the_device(name):
  balancer = make(name, 3)
  traces = []

  @jax.jit
  def step(losses, state):
    traces.append(None)
    return balancer.update(losses, state)

  state = balancer.init(jax.random.key(0))
  for _ in range(3 * STEPS_PER_EPOCH):
    _, state = step(jnp.ones(3), state)
  assert len(traces) == 1
  jaxpr = str(jax.make_jaxpr(balancer.update)(jnp.ones(3), state))
  assert "callback" not in jaxpr
  assert "device_put" not in jaxpr


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_vmap_over_seeds_equals_separate_runs(name):
  balancer = make(name, 3)
  losses = random_losses(30, 3)
  keys = jax.random.split(jax.random.key(0), 3)
  states = jax.vmap(balancer.init)(keys)
  final, _ = jax.vmap(scan, in_axes=(None, None, 0))(balancer, losses, states)
  for index, key in enumerate(keys):
    separate, _ = scan(balancer, losses, balancer.init(key))
    jax.tree.map(
      lambda a, b, i=index: np.testing.assert_allclose(a[i], b, 1e-5, 1e-6),
      final,
      separate,
    )


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_state_survives_flax_serialization_and_orbax(name, tmp_path):
  balancer = make(name, 3)
  state = balancer.init(jax.random.key(0))
  state, _ = scan(balancer, random_losses(9, 3), state)
  template = balancer.init(jax.random.key(1))
  restored = flax.serialization.from_bytes(template, flax.serialization.to_bytes(state))
  assert_trees_equal(restored, state)
  assert type(restored) is type(state)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "state", state)
    checkpointer.wait_until_finished()
    assert_trees_equal(checkpointer.restore(tmp_path / "state", template), state)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_unknown_extra_arguments_are_ignored(name):
  balancer = make(name, 3)
  state = balancer.init(jax.random.key(0))
  plain = balancer.update(jnp.arange(1.0, 4.0), state)
  extra = balancer.update(jnp.arange(1.0, 4.0), state, learning_rate_ratio=2, foo=None)
  assert_trees_equal(extra, plain)


@pytest.mark.parametrize("key", [jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")])
def test_keys_of_every_kind_are_accepted(key):
  state = balancers.random_loss_weighting(3).init(key)
  assert state.key.shape == (2,)
  assert state.key.dtype == jnp.uint32


@pytest.mark.parametrize("kind", [list, tuple, jnp.bfloat16, np.float64])
def test_array_likes_and_other_float_types_are_computed_in_float32(kind):
  losses = kind([1.0, 2.0]) if kind in (list, tuple) else np.array([1.0, 2.0], kind)
  weighted, _ = balancers.equal(2).update(losses, balancers.equal(2).init())
  assert weighted.dtype == jnp.float32
  assert_trees_equal(weighted, np.array([1.0, 2.0]))


# -------------------------------------------------------------------- bad numbers


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
  name=st.sampled_from(LOSS_NAMES),
  bad=st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30]),
  step=st.integers(0, 59),
  task=st.integers(0, 2),
)
def test_a_bad_loss_never_poisons_the_state(name, bad, step, task):
  balancer = make(name, 3)
  losses = random_losses(60, 3)
  clean_state = balancer.init(jax.random.key(0))
  _, (clean, _) = scan(balancer, losses, clean_state)
  losses[step, task] = bad
  state, (weighted, _) = scan(balancer, losses, clean_state)
  for leaf in jax.tree.leaves(state):
    assert np.isfinite(leaf).all()
  others = [k for k in range(3) if k != task]
  assert np.isfinite(weighted[:, others]).all()
  assert np.isfinite(np.delete(weighted, step, axis=0)).all()
  if name in LOG_NAMES and not bad > 0:
    assert np.isnan(weighted[step, task])
  if name in UNTIED:
    assert_trees_equal(np.asarray(weighted)[:, others], np.asarray(clean)[:, others])


@pytest.mark.parametrize("name", ["igbv1", "dwa", "dwalog"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_a_bad_loss_leaves_the_history_of_the_others_untouched(name, bad):
  balancer = make(name, 3)
  state, _ = scan(balancer, random_losses(6, 3), balancer.init())
  losses = random_losses(1, 3)
  _, good = balancer.update(losses[0], state)
  losses[0, 1] = bad
  _, touched = balancer.update(losses[0], state)
  fields = ["base_losses", "base_count"] if name == "igbv1" else ["window"]
  for field in fields:
    before, after, expected = (
      np.asarray(getattr(each, field)) for each in (state, touched, good)
    )
    assert_trees_equal(after[..., [0, 2]], expected[..., [0, 2]])
    assert_trees_equal(after[..., 1], before[..., 1])


def test_igbv1_weighs_the_other_tasks_as_if_the_bad_one_did_not_exist():
  losses = random_losses(12, 3)
  bad = losses.copy()
  bad[-1, 1] = 0.0
  three, two = balancers.igbv1(3, 4), balancers.igbv1(2, 4)
  state, _ = scan(three, bad, three.init())
  smaller, _ = scan(two, losses[:, [0, 2]], two.init())
  np.testing.assert_allclose(state.weights[jnp.array([0, 2])], smaller.weights, 1e-6)
  assert state.weights[1] == 0


def test_igbv1_gives_a_task_without_base_loss_a_gap_of_one():
  losses = np.ones((12, 2), np.float32)
  losses[4:8, 0] = np.nan
  balancer = balancers.igbv1(2, 4)
  state, _ = scan(balancer, losses, balancer.init())
  assert state.base_count.tolist() == [0, 4]
  assert state.weights.tolist() == [1, 1]


# ------------------------------------------------------------------------- errors

CONSTRUCTORS = {
  "equal": balancers.equal,
  "scale_invariant": balancers.scale_invariant,
  "single_task": functools.partial(balancers.single_task, task=0),
  "random_loss_weighting": balancers.random_loss_weighting,
  "dynamic_weight_average": balancers.dynamic_weight_average,
  "uncertainty_weighting": balancers.uncertainty_weighting,
  "igbv1": functools.partial(balancers.igbv1, steps_per_epoch=3),
  "igbv2": functools.partial(balancers.igbv2, steps_per_epoch=3),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_num_tasks_is_checked(name):
  constructor = CONSTRUCTORS[name]
  for value in (0, -3):
    with pytest.raises(ValueError, match=f"num_tasks must be at least 1, got {value}"):
      constructor(num_tasks=value)
  for value in (2.0, "2", None, True):
    with pytest.raises(TypeError, match="num_tasks must be an integer"):
      constructor(num_tasks=value)
  state = constructor(num_tasks=np.int64(2)).init(jax.random.key(0))
  assert state.weights.shape == (2,)


@pytest.mark.parametrize(
  ("constructor", "arguments", "error", "message"),
  [
    ("igbv1", {"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be at"),
    ("igbv1", {"steps_per_epoch": 1.5}, TypeError, "steps_per_epoch must be an"),
    ("igbv1", {"base_epoch": -1}, ValueError, "base_epoch must be at least 0, got -1"),
    ("igbv1", {"base_epch": 1}, TypeError, "base_epch"),
    ("igbv2", {"warmup_epochs": -1}, ValueError, "warmup_epochs must be at least 0"),
    ("igbv2", {"start_epoch": 0.5}, TypeError, "start_epoch must be an integer"),
    ("igbv2", {"update_every": 0}, ValueError, "update_every must be at least 1"),
    ("igbv2", {"num_updates": 0}, ValueError, "num_updates must be at least 1"),
    ("igbv2", {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ("igbv2", {"buffer_size": 0}, ValueError, "buffer_size must be at least 1"),
    ("igbv2", {"learning_rate": 0.0}, ValueError, "learning_rate must be finite"),
    ("igbv2", {"gamma": 1.0}, ValueError, "gamma must be below 1, got 1.0"),
    ("igbv2", {"gamma": -0.5}, ValueError, "gamma must be finite and positive"),
    ("igbv2", {"tau": 1.5}, ValueError, "tau must be at most 1, got 1.5"),
    ("igbv2", {"tau": np.nan}, ValueError, "tau must be finite"),
    ("igbv2", {"initial_alpha": 0}, ValueError, "initial_alpha must be finite"),
    ("igbv2", {"hidden_sizes": (128, 0)}, ValueError, "hidden_sizes must be at least"),
    ("igbv2", {"hidden_sizes": (1.5,)}, TypeError, "hidden_sizes must be an integer"),
    ("single_task", {"task": 2}, ValueError, "below num_tasks = 2, got 2"),
    ("single_task", {"task": -1}, ValueError, "task must be at least 0, got -1"),
    ("dynamic_weight_average", {"window": 0}, ValueError, "window must be at least 1"),
    ("dynamic_weight_average", {"temperature": 0}, ValueError, "got 0"),
    ("dynamic_weight_average", {"temperature": np.nan}, ValueError, "got nan"),
    ("dynamic_weight_average", {"temperature": "2"}, TypeError, "must be a number"),
    ("uncertainty_weighting", {"learning_rate": -1.0}, ValueError, "got -1.0"),
    ("uncertainty_weighting", {"learning_rate": np.inf}, ValueError, "got inf"),
  ],
)
def test_hyperparameters_are_checked(constructor, arguments, error, message):
  with pytest.raises(error, match=message):
    CONSTRUCTORS[constructor](num_tasks=2, **arguments)


def test_igbv1_needs_steps_per_epoch():
  with pytest.raises(TypeError, match="steps_per_epoch"):
    balancers.igbv1(num_tasks=2)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_losses_are_checked_while_tracing(name):
  balancer = make(name, 3)
  state = balancer.init(jax.random.key(0))
  update = jax.jit(balancer.update)
  for losses in (jnp.ones(2), jnp.ones((3, 1)), jnp.ones(()), [1.0, 2.0]):
    with pytest.raises(ValueError, match=r"shape \(3,\), one scalar a task, got"):
      update(jnp.asarray(losses), state)
  for losses in (np.ones(3, int), np.ones(3, bool), np.ones(3, complex)):
    with pytest.raises(TypeError, match="must be floating-point numbers, got"):
      update(losses, state)


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_need_a_key(name):
  with pytest.raises(ValueError, match=r"init needs a key, .* got None"):
    make(name, 3).init()


# ----------------------------------------------------------------- create and names


def test_names_are_the_documented_ones():
  assert set(LOSS_NAMES) >= {
    "ew", "si", "stl", "rlw", "rlwlog", "dwa", "dwalog", "uw", "uwlog", "igbv1",
    "igbv2",
  }  # fmt: skip


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_create_makes_a_loss_balancer_alone(name):
  extra = {"task": 0} if name == "stl" else {}
  balancer = balancers.create(name, num_tasks=3, steps_per_epoch=2, **extra)
  assert isinstance(balancer.loss, balancers.LossBalancer)
  assert balancer.gradient is None


def test_create_passes_hyperparameters_on():
  balancer = balancers.create("dwa", num_tasks=2, window=3).loss
  assert balancer is not None
  assert balancer.init().window.shape == (6, 2)


@pytest.mark.parametrize(
  ("spec", "arguments", "error", "message"),
  [
    ("igbv9", {}, ValueError, "unknown balancer 'igbv9'.*known: dwa, dwalog, ew"),
    ("", {}, ValueError, "unknown balancer ''"),
    ("ew+", {}, ValueError, "unknown balancer ''"),
    ("EW", {}, ValueError, "unknown balancer 'EW'.*did you mean 'ew'"),
    ("igvb1", {}, ValueError, "'igvb1' in 'igvb1' .did you mean 'igbv1'..; known: d"),
    ("ew+nash_mtl", {}, ValueError, "'nash_mtl' in .* .did you mean 'nashmtl'..; kn"),
    ("uncertainty_weighting", {}, ValueError, "did you mean 'uw'"),
    ("zzz", {}, ValueError, "unknown balancer 'zzz' in 'zzz'; known: "),
    ("ew+si", {}, ValueError, "two loss balancers"),
    (
      "dwa",
      {"temprature": 1.0},
      TypeError,
      "no .* temprature; it takes .*temp.*, wind",
    ),
    (
      "ew",
      {"window": 2, "c": 0.4},
      TypeError,
      "no hyper-parameter c, window; .* takes absent",
    ),
    ("rlwlog", {"log": False}, TypeError, "'rlwlog' takes no hyper-parameter log"),
    ("uw", {"log": True}, TypeError, "'uw' takes no hyper-parameter log"),
    ("igbv1", {}, TypeError, "'igbv1' needs steps_per_epoch"),
    ("stl", {}, TypeError, "'stl' needs task"),
    ("dwa", {"temperature": -1.0}, ValueError, "temperature must be finite"),
    (None, {}, TypeError, "must be a string"),
  ],
)
def test_create_errors(spec, arguments, error, message):
  with pytest.raises(error, match=message):
    balancers.create(spec, num_tasks=2, **arguments)


# -------------------------------------------------------------------- in a pipeline


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_trains_a_small_model_inside_an_optax_pipeline(name):
  targets = jnp.array([[1.0, -2.0], [0.5, 3.0]])
  optimizer = optax.adam(0.05)
  balancer = make(name, 2)

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
  assert losses[1] < 0.05  # stl trains the last task alone
  if name != "stl":
    assert losses[0] < 0.05
