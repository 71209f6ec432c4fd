"""What gradient balancers copy of the gradients: nothing that they can do without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax import balancers
from igb_jax.balancers.solvers import Gramian
from tests.balancers.contract import (
  GRADIENT,
  families_first,
  gradient_traits,
  init,
  make_gradient,
  one_of_each_family,
)

NUM_TASKS = 8
TABLE = (50_000, 32)
STACK = NUM_TASKS * 50_000 * 32 * 4  # bytes
ROW = STACK / NUM_TASKS
SMALL = 50_000  # bytes, of everything else


def temporary_bytes(function, *arguments) -> int:
  compiled = jax.jit(function).lower(*arguments).compile()
  analysis = compiled.memory_analysis()
  assert analysis is not None
  return analysis.temp_size_in_bytes


def stacked(shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct((NUM_TASKS, *shape), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [TABLE, (1_600_000,), (25, 1000, 2, 32)])
def test_the_gramian_copies_no_leaf(shape, dtype):
  taken = temporary_bytes(lambda leaf: Gramian.of([leaf]), stacked(shape, dtype))
  assert taken < STACK / 10


def test_norms_and_sums_of_one_gradient_copy_nothing():
  taken = temporary_bytes(
    lambda leaf: Gramian.of([leaf[None]]).norms[0], jnp.zeros(TABLE)
  )
  assert taken < ROW / 10


@pytest.mark.parametrize(
  "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", one_of_each_family())
def test_of_heads_nothing_is_copied(name, dtype):
  balancer = make_gradient(name, NUM_TASKS, shared={"head": False, "trunk": True})
  state = init(balancer, {"head": jnp.zeros(TABLE), "trunk": jnp.zeros(3)})
  grads = {"head": stacked(TABLE, dtype), "trunk": stacked((3,))}
  for present in (None, jnp.arange(NUM_TASKS) != 1):
    taken = temporary_bytes(
      lambda grads, mask=present: balancer.update(grads, state, present=mask), grads
    )
    assert taken < 0.3 * ROW + SMALL  # a bool each, whether the result is finite


@pytest.mark.parametrize("name", families_first(GRADIENT))
def test_a_balancer_needs_few_vectors_beside_the_task_gradients(name):
  balancer = make_gradient(name, NUM_TASKS)
  state = init(balancer, jnp.zeros(TABLE))
  update = functools.partial(balancer.update, losses=jnp.ones(NUM_TASKS))
  taken = temporary_bytes(update, stacked(TABLE), state)
  rows = 2 if gradient_traits(name).gramian_only else 4
  if balancer.keeps_grads:  # the old ones are kept until the new are seen to be finite
    rows += NUM_TASKS
  if name == "trimmed":  # they are sorted
    rows += NUM_TASKS
  assert taken <= rows * ROW + SMALL


def scaled(exponents, num_parameters=300):
  """Gradients of K tasks and what their norms and cosines are in float64."""
  generator = np.random.default_rng(0)
  exact = generator.normal(size=(len(exponents), num_parameters)) + 0.5
  rows = np.asarray(
    exact * 10.0 ** np.asarray(exponents, float)[:, None], np.float32
  ).astype(np.float64)
  norms = np.linalg.norm(rows, axis=1)
  units = rows / np.where(norms == 0, 1.0, norms)[:, None]
  return jnp.asarray(rows, jnp.float32), norms, units @ units.T


@pytest.mark.parametrize(
  "exponents",
  [
    [0, 0, 0], [-10, 0, 10], [-11.5, -10.5, -9], [13, 14, 15], [-30, 0, 30],
    [-34, -34, -34], [36, 36, 36], [0, -np.inf, 1], [-25, -np.inf, 25],
  ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(300,), (3, 10, 10)])
def test_norms_and_cosines_at_every_scale(exponents, shape):
  rows, norms, cosines = scaled(exponents)
  gramian = jax.jit(Gramian.of)([rows.reshape(-1, *shape)])
  np.testing.assert_allclose(gramian.norms, norms, 2e-6)
  np.testing.assert_allclose(gramian.cosines, cosines, 2e-6, 2e-6)
  assert (np.diag(gramian.cosines) == (norms > 0)).all()


def test_blocks_cover_every_entry():
  """A leaf that is no multiple of a block, at a scale where blocks are used."""
  rows, norms, cosines = scaled([-25, 0, 25], num_parameters=100_003)
  gramian = jax.jit(Gramian.of)([rows])
  np.testing.assert_allclose(gramian.norms, norms, 5e-6)
  np.testing.assert_allclose(gramian.cosines, cosines, 5e-6, 5e-6)


def test_several_scales_under_vmap():
  several = [scaled(exponents) for exponents in ([0, 1, 0], [-30, 0, 30], [1, 2, -20])]
  rows, norms, cosines = (np.stack(parts) for parts in zip(*several, strict=True))
  gramian = jax.jit(jax.vmap(lambda leaf: Gramian.of([leaf])))(rows)
  np.testing.assert_allclose(gramian.norms, norms, 2e-6)
  np.testing.assert_allclose(gramian.cosines, cosines, 2e-6, 2e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_shows_in_its_own_row(value):
  rows = scaled([0, 0, 0])[0].at[1, 5].set(value)
  gramian = jax.jit(Gramian.of)([rows])
  np.testing.assert_array_equal(np.isfinite(gramian.norms), [True, False, True])


def test_lowers_for_other_machines():
  traced = jax.jit(Gramian.of).trace([stacked(TABLE), stacked((7,), jnp.bfloat16)])
  for platform in ("cuda", "tpu"):
    traced.lower(lowering_platforms=(platform,))


def test_a_training_step_of_a_table_needs_what_the_docs_say():
  optimizer = optax.chain(balancers.nash_mtl(NUM_TASKS), optax.sgd(0.1))
  rows = jnp.arange(64) * 700

  def losses_of(table):
    return jnp.stack([(table[rows] ** 2).mean(0)[k] for k in range(NUM_TASKS)])

  def step(table, state):
    grads = jax.jacrev(losses_of)(table)
    updates, state = optimizer.update(grads, state, table)
    return optax.apply_updates(table, updates), state

  table = jnp.zeros(TABLE)
  taken = temporary_bytes(step, table, optimizer.init(table))
  assert taken <= (NUM_TASKS + 2) * ROW + SMALL
