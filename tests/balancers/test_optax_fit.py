"""Gradient balancers under optax's own tools, and gradients that do not fit."""

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax import balancers

NAMES = [name for name, kind in balancers.names().items() if kind == "gradient"]
PARAMS = {"b": jnp.zeros(3), "w": jnp.ones((2, 3))}
GRADS = jax.tree.map(
  lambda leaf: jax.random.normal(jax.random.key(leaf.ndim), (2, *leaf.shape)), PARAMS
)


def make(name, num_tasks=2, **options):
  balancer = balancers.create(name, num_tasks=num_tasks, **options).gradient
  assert balancer is not None
  return balancer


# -------------------------------------------------------- gradients that do not fit


@pytest.mark.parametrize("name", NAMES)
def test_one_gradient_instead_of_one_a_task_is_refused(name):
  params = {"w": jnp.ones((2, 3))}
  balancer = make(name)
  state = balancer.init(params)
  with pytest.raises(ValueError, match=r"task_grads\['w'\].*\(2, 2, 3\).*\(2, 3\)"):
    balancer.update(params, state, params)
  with pytest.raises(ValueError, match="value_and_task_grads"):
    jax.jit(balancer.update)(params, state, params)


def test_a_leaf_of_another_shape_is_named():
  grads = {"b": jnp.zeros((2, 3)), "w": jnp.zeros((2, 3, 2))}
  balancer = make("mgda")
  with pytest.raises(ValueError, match=r"task_grads\['w'\]") as error:
    balancer.update(grads, balancer.init(PARAMS), PARAMS)
  assert "(2, 2, 3)" in str(error.value)
  assert "(2, 3, 2)" in str(error.value)


@pytest.mark.parametrize(
  ("grads", "named"),
  [
    ({"b": GRADS["b"]}, "['w']"),
    ({**GRADS, "more": jnp.zeros((2, 1))}, "['more']"),
    ({"b": GRADS["b"], "w": optax.MaskedNode()}, "['w']"),
  ],
)
def test_a_tree_of_another_structure_is_refused(grads, named):
  balancer = make("cagrad")
  with pytest.raises(ValueError, match="structure of the parameters") as error:
    balancer.update(grads, balancer.init(PARAMS), PARAMS)
  assert named in str(error.value)


def test_without_parameters_only_the_leading_axis_is_checked():
  balancer = make("mgda")
  params = {"w": jnp.ones((2, 3))}
  gradient, _ = balancer.update(params, balancer.init(params))
  assert gradient["w"].shape == (3,)


@pytest.mark.parametrize("name", NAMES)
def test_containers_of_another_kind_with_the_same_names_pass(name):
  balancer = make(name)
  frozen = flax.core.freeze(PARAMS)
  balancer.update(GRADS, balancer.init(frozen), frozen)


def test_nash_takes_one_gradient_between_its_updates_and_only_there():
  balancer = balancers.nash_mtl(2, update_every=2)
  state = balancer.init(PARAMS)
  balancer.update(PARAMS, state, PARAMS, combined=True)
  with pytest.raises(ValueError, match="value_and_task_grads"):
    balancer.update(PARAMS, state, PARAMS)


# ------------------------------------------------------------------- map_params


def chains(name):
  balancer = make(name)
  return {
    "chain": optax.chain(balancer, optax.adam(0.1)),
    "with shared": optax.chain(
      make(name, shared={"b": False, "w": True}), optax.adam(0.1)
    ),
    "with a predicate": optax.chain(
      make(name, shared=lambda path: "w" in str(path)), optax.adam(0.1)
    ),
    "multi_transform": optax.multi_transform(
      {
        "shared": optax.chain(balancer, optax.adam(0.1)),
        "own": optax.chain(optax.stateless(lambda grads, _: grads), optax.adam(0.1)),
      },
      {"b": "own", "w": "shared"},
    ),
  }


@pytest.mark.parametrize("kind", list(chains("mgda")))
@pytest.mark.parametrize("name", NAMES)
def test_map_params_reaches_what_is_shaped_like_the_parameters(name, kind):
  optimizer = chains(name)[kind]
  state = optimizer.init(PARAMS)
  doubled = optax.tree.map_params(optimizer, lambda leaf: leaf + 2.0, state)
  assert jax.tree.structure(doubled) == jax.tree.structure(state)
  changed = jax.tree.map(lambda a, b: bool((a != b).any()), state, doubled)
  # Adam's two means of every parameter, and nothing of the balancer
  assert sum(jax.tree.leaves(changed)) == 4


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_parameters_is_told_apart(name):
  optimizer = optax.chain(make(name), optax.adam(0.1))
  state = optimizer.init(PARAMS)
  kinds = optax.tree_utils.tree_map_params(
    optimizer,
    lambda _: "parameter",
    state,
    transform_non_params=lambda _: "other",
  )
  assert set(jax.tree.leaves(kinds[0])) == {"other"}
  assert jax.tree.leaves(kinds[1]).count("parameter") == 4


@pytest.mark.parametrize("empty", [{}, [], (), {"a": {}}, None])
@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_a_leaf_are_still_refused(name, empty):
  with pytest.raises(ValueError, match="no parameter is shared"):
    make(name).init(empty)


# ------------------------------------------------------------ inject_hyperparams


def test_a_schedule_of_cagrads_radius():
  schedule = optax.linear_schedule(0.0, 0.5, 2)
  scheduled = optax.inject_hyperparams(balancers.cagrad, static_args="num_tasks")(
    num_tasks=2, c=schedule
  )
  state = scheduled.init(PARAMS)
  update = jax.jit(scheduled.update)
  for c in (0.0, 0.25, 0.5):
    result, state = update(GRADS, state, PARAMS)
    fixed = balancers.cagrad(2, c=c)
    expected, _ = fixed.update(GRADS, fixed.init(PARAMS), PARAMS)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), result, expected
    )


def test_a_number_in_the_state_can_be_changed_without_compiling_anew():
  injected = optax.inject_hyperparams(balancers.cagrad, static_args="num_tasks")(
    num_tasks=2, c=0.3
  )
  update = jax.jit(injected.update)
  state = injected.init(PARAMS)
  _, state = update(GRADS, state, PARAMS)
  state.hyperparams["c"] = jnp.float32(0.0)
  result, _ = update(GRADS, state, PARAMS)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b.sum(0), 1e-5), result, GRADS
  )


@pytest.mark.parametrize(
  ("constructor", "options"),
  [
    (balancers.mgda, {}),
    (balancers.imtl_g, {}),
    (balancers.pcgrad, {"key": 3}),
    (balancers.cagrad, {"c": 0.3}),
    (balancers.nash_mtl, {"max_norm": 0.5, "update_every": 2}),
  ],
)
def test_every_balancer_with_its_counts_static(constructor, options):
  injected = optax.inject_hyperparams(
    constructor, static_args=["num_tasks", "shared", "update_every"][
      : 3 if "update_every" in options else 2
    ],
  )(num_tasks=2, shared=lambda path: "w" in str(path), **options)  # fmt: skip
  plain = constructor(2, shared=lambda path: "w" in str(path), **options)
  state, expected_state = injected.init(PARAMS), plain.init(PARAMS)
  update = jax.jit(injected.update)
  for _ in range(2):
    result, state = update(GRADS, state, PARAMS)
    expected, expected_state = plain.update(GRADS, expected_state, PARAMS)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), result, expected
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_count_that_is_traced_says_what_to_do(name):
  constructor = {
    "imtlg": balancers.imtl_g, "nashmtl": balancers.nash_mtl,
  }.get(name) or getattr(balancers, name)  # fmt: skip
  with pytest.raises(TypeError, match=r"num_tasks.*static_args"):
    optax.inject_hyperparams(constructor)(num_tasks=2).init(PARAMS)


# --------------------------------------------------------------- traced numbers


def loss_results(constructor, value, num_steps=8):
  """Numbers of the state after some steps of a loss balancer made with a number."""
  balancer = constructor(value)

  def step(state, index):
    losses = jnp.array([3.0, 2.0, 1.5]) / (1 + index * jnp.array([0.3, 0.1, 0.2]))
    weighted, state = balancer.update(losses, state)
    leaves = [weighted, *jax.tree.leaves(state)]
    floats = [leaf.ravel() for leaf in leaves if leaf.dtype == jnp.float32]
    return state, jnp.concatenate(floats)

  state = balancer.init(jax.random.key(0))
  return jax.lax.scan(step, state, jnp.arange(num_steps, dtype=jnp.float32))[1][-1]


def igbv2(**options):
  return balancers.igbv2(
    3, 1, base_epoch=0, warmup_epochs=1, start_epoch=1, update_every=2, num_updates=2,
    batch_size=4, buffer_size=10, hidden_sizes=(4,), **options,
  )  # fmt: skip


LOSS_NUMBERS = {
  "dwa": (lambda x: balancers.dynamic_weight_average(3, window=1, temperature=x), 0.5),
  "uw": (lambda x: balancers.uncertainty_weighting(3, learning_rate=x), 0.1),
  "uw's largest weight": (
    lambda x: balancers.uncertainty_weighting(3, learning_rate=0.5, max_weight=x),
    1.2,
  ),
  "igbv1's largest gap": (
    lambda x: balancers.igbv1(3, 1, base_epoch=0, max_gap=x), 0.7
  ),
  "an offset": (lambda x: balancers.scale_invariant(3, epsilon=x), 0.5),
  "igbv2's learning rate": (lambda x: igbv2(learning_rate=x), 0.05),
  "igbv2's discount": (lambda x: igbv2(gamma=x), 0.5),
  "igbv2's tau": (lambda x: igbv2(tau=x), 0.5),
  "igbv2's temperature": (lambda x: igbv2(initial_alpha=x), 0.9),
}  # fmt: skip


@pytest.mark.parametrize("of", LOSS_NUMBERS)
def test_numbers_of_loss_balancers_may_be_traced(of):
  constructor, value = LOSS_NUMBERS[of]
  run = jax.jit(lambda x: loss_results(constructor, x))
  expected = jax.jit(lambda: loss_results(constructor, value))()
  np.testing.assert_allclose(run(value), expected, 1e-4, 1e-5)
  assert not np.allclose(run(value / 2), expected, 1e-7, 1e-9)  # the number matters


@pytest.mark.parametrize("c", [0.0, 0.4])
def test_cagrads_radius_may_be_traced(c):
  def run(c):
    balancer = balancers.cagrad(2, c=c)
    return balancer.update(GRADS, balancer.init(PARAMS))

  expected = jax.jit(lambda: run(c))()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), jax.jit(run)(c), expected
  )
  both = jax.jit(jax.vmap(run))(jnp.array([0.0, 0.4]))
  at = jax.tree.map(lambda leaf: leaf[int(c > 0)], both)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), at, expected)


def test_nashs_largest_norm_may_be_traced():
  def run(max_norm):
    balancer = balancers.nash_mtl(2, max_norm=max_norm)
    return optax.tree.norm(balancer.update(GRADS, balancer.init(PARAMS))[0])

  np.testing.assert_allclose(jax.jit(jax.vmap(run))(jnp.array([0.2, 0.7])), [0.2, 0.7])


@pytest.mark.parametrize("number", [np.float32(0.3), np.float64(0.3), np.int64(1)])
def test_numbers_of_numpy_are_numbers(number):
  balancers.cagrad(2, c=number)
  with pytest.raises(ValueError, match="c must be finite"):
    balancers.cagrad(2, c=-number)


@pytest.mark.parametrize("wrong", ["0.4", None, True, np.True_, [0.4], 1j])
def test_what_is_no_number_is_still_refused(wrong):
  with pytest.raises(TypeError, match="c must be a number"):
    balancers.cagrad(2, c=wrong)


@pytest.mark.parametrize("wrong", [jnp.array(True), jnp.array([0.4]), np.zeros((2, 1))])
def test_an_array_must_be_one_real_number(wrong):
  with pytest.raises((TypeError, ValueError), match="c must be"):
    balancers.cagrad(2, c=wrong)
