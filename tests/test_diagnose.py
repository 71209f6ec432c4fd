"""The numbers of `diagnose` against NumPy in float64."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igb_jax
from igb_jax import balancers, diagnose, value_and_task_grads
from tests.described import Text

FAST = hypothesis.settings(deadline=None, max_examples=60)
compiled = jax.jit(diagnose)  # for the tests that call it often
EPS = float(np.finfo(np.float32).eps)


def gaussian(num_tasks: int, size: int, seed: int = 0) -> np.ndarray:
  rows = np.random.default_rng(seed).normal(size=(num_tasks, size))
  return rows.astype(np.float32)


def tree(rows: np.ndarray) -> dict:
  """The same gradients as two leaves of other shapes."""
  return {"a": jnp.asarray(rows[:, :2]), "b": [jnp.asarray(rows[:, 2:, None])]}


@FAST
@hypothesis.given(
  num_tasks=st.integers(1, 6),
  seed=st.integers(0, 1000),
  exponents=st.lists(st.floats(-15, 15), min_size=6, max_size=6),
)
def test_equals_float64_at_any_scale(num_tasks, seed, exponents):
  scales = 10.0 ** np.array(exponents[:num_tasks])
  rows = (scales[:, None] * gaussian(num_tasks, 8, seed)).astype(np.float32)
  losses = scales.astype(np.float32)
  found = compiled(jnp.asarray(losses), tree(rows))

  exact = rows.astype(np.float64)
  norms = np.linalg.norm(exact, axis=1)
  cosines = (exact / norms[:, None]) @ (exact / norms[:, None]).T
  pairs = cosines[np.triu_indices(num_tasks, 1)]
  np.testing.assert_array_equal(found.losses, losses)
  np.testing.assert_allclose(found.norms, norms, rtol=1e-5)
  np.testing.assert_allclose(found.cosines, cosines, atol=2e-6)
  np.testing.assert_array_equal(np.diagonal(found.cosines), 1)
  np.testing.assert_allclose(found.cosines, found.cosines.T, atol=1e-6)
  values = np.linalg.eigvalsh(cosines)
  number = min(values[-1] / max(values[0], 1e-30), 1 / EPS)
  # rounding of the cosines moves the smallest eigenvalue by some eps
  np.testing.assert_allclose(found.condition_number, number, rtol=1e-5 * (1 + number))
  if not len(pairs):
    assert found.conflict_share == 0
  elif np.abs(pairs).min() > 2e-6:
    assert found.conflict_share == pytest.approx((pairs < 0).mean())


@FAST
@hypothesis.given(exponents=st.lists(st.integers(-40, 40), min_size=4, max_size=4))
def test_scales_change_no_cosine(exponents):
  rows = gaussian(4, 8)
  before = compiled(jnp.ones(4), tree(rows))
  scaled = rows * np.exp2(np.array(exponents, np.float32))[:, None]
  after = compiled(jnp.ones(4), tree(scaled))
  np.testing.assert_allclose(after.cosines, before.cosines, atol=1e-6)
  np.testing.assert_allclose(after.condition_number, before.condition_number, rtol=1e-4)
  assert after.conflict_share == before.conflict_share


@FAST
@hypothesis.given(
  rows=hnp.arrays(
    np.float32, (3, 4), elements=st.floats(-1, 1, width=32) | st.just(np.nan)
  ),
  losses=hnp.arrays(np.float32, 3, elements=st.floats(width=32)),
)
def test_every_gradient_has_a_text(rows, losses):
  found = compiled(jnp.asarray(losses), jnp.asarray(rows))
  assert 0 <= found.conflict_share <= 1
  assert 1 - 1e-5 <= found.condition_number <= 1.001 / EPS
  text = found.describe()
  for k in range(3):
    bad = not np.isfinite(rows[k]).all()
    assert np.isnan(found.cosines[k, k]) == bad
    assert np.isnan(found.norms[k]) == bad
    if bad:
      assert f"task {k}" in text


def test_one_task_has_no_pairs():
  found = diagnose(jnp.array([2.0]), {"w": jnp.array([[3.0, 4.0]])})
  assert found.norms.tolist() == [5]
  assert found.cosines.tolist() == [[1]]
  assert float(found.conflict_share) == 0
  assert float(found.condition_number) == 1
  text = Text.of(found.describe())
  assert text.names("task 0", "2") == {"losses"}
  assert text.names("task 0", "5") == {"gradients"}
  assert not text.hints


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_what_is_left_out_leaves_the_others_as_they_are(bad):
  rows = gaussian(4, 6)
  rows[2] = bad
  found = diagnose(jnp.ones(4), tree(rows))
  expected = diagnose(jnp.ones(3), tree(rows[[0, 1, 3]]))
  # not to the last bit: XLA multiplies four rows and three in different orders
  np.testing.assert_allclose(
    np.asarray(found.cosines)[np.ix_([0, 1, 3], [0, 1, 3])], expected.cosines, 1e-5
  )
  row = np.asarray(found.cosines)[2]
  assert np.isnan(row).all() if bad else not row.any()
  np.testing.assert_allclose(found.conflict_share, expected.conflict_share)
  np.testing.assert_allclose(
    found.condition_number, expected.condition_number, rtol=1e-5
  )


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_nothing_but_bad_gradients(bad):
  found = diagnose(jnp.array([jnp.nan, 1.0]), jnp.full((2, 3), bad))
  assert float(found.conflict_share) == 0
  assert float(found.condition_number) == 1
  assert "task 0, task 1" in found.describe()


def test_only_shared_leaves_count():
  rows = gaussian(3, 6)
  grads = {"shared": jnp.asarray(rows), "heads": jnp.eye(3)}
  expected = diagnose(jnp.ones(3), jnp.asarray(rows))
  for shared in ({"shared": True, "heads": False}, lambda path: path[0].key != "heads"):
    found = diagnose(jnp.ones(3), grads, shared=shared)
    for ours, theirs in zip(found, expected, strict=True):
      np.testing.assert_array_equal(ours, theirs)
  assert (diagnose(jnp.ones(3), grads).norms > expected.norms).all()


def test_the_norms_and_cosines_are_those_that_a_balancer_sees():
  rows = tree(gaussian(3, 6))
  balancer = balancers.create("nashmtl", num_tasks=3).gradient
  assert balancer is not None
  one = jax.tree.map(lambda leaf: leaf[0], rows)
  state = balancer.update(rows, balancer.init(one))[1]
  found = diagnose(jnp.ones(3), rows)
  gramian = state.gramian  # pyright: ignore[reportAttributeAccessIssue]
  np.testing.assert_array_equal(found.norms, gramian.norms)
  np.testing.assert_array_equal(found.cosines, gramian.cosines)


def test_runs_inside_jit_without_callbacks_and_is_traced_once():
  count = 0

  @jax.jit
  def traced(params):
    nonlocal count
    count += 1
    losses, grads = value_and_task_grads(lambda w: jnp.stack([w @ w, w.sum()]))(params)
    return diagnose(losses, grads)

  first, second = traced(jnp.array([1.0, 2.0])), traced(jnp.array([3.0, -5.0]))
  assert count == 1
  assert float(first.conflict_share) == 0
  assert float(second.conflict_share) == 1
  assert "callback" not in str(jax.make_jaxpr(traced)(jnp.ones(2)))


@pytest.mark.slow
def test_vmap_is_a_loop():
  losses = jnp.arange(1.0, 11.0).reshape(5, 2)
  rows = jnp.asarray(gaussian(10, 4).reshape(5, 2, 4))
  together = jax.vmap(diagnose)(losses, rows)
  for i in range(5):
    alone = diagnose(losses[i], rows[i])
    for ours, theirs in zip(together, alone, strict=True):
      np.testing.assert_allclose(ours[i], theirs, rtol=1e-4, atol=1e-6)
  with pytest.raises(ValueError, match=r"takes one diagnosis, .* shape \(5, 2\)"):
    together.describe()
  picked = jax.tree.map(lambda leaf: leaf[3], together)
  assert Text.of(picked.describe()).names("task 1", "8") == {"losses"}


def test_halves_of_precision_are_computed_with_in_float32():
  rows = jnp.asarray(gaussian(2, 6), jnp.bfloat16)
  found = diagnose(jnp.ones(2, jnp.float16), rows)
  assert all(leaf.dtype == jnp.float32 for leaf in found)
  exact = diagnose(jnp.ones(2), rows.astype(jnp.float32))
  np.testing.assert_array_equal(found.cosines, exact.cosines)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_a_text_needs_numbers(transform):
  rows = jnp.ones((4, 2, 3)) if transform is jax.vmap else jnp.ones((2, 3))
  losses = rows[..., 0]
  with pytest.raises(TypeError, match="describe needs numbers, and these are traced"):
    transform(lambda *pair: diagnose(*pair).describe())(losses, rows)


@pytest.mark.parametrize(
  ("losses", "grads", "error", "message"),
  [
    (1.0, jnp.ones((1, 2)), ValueError, r"losses must be a vector.*shape \(\)"),
    (jnp.ones((2, 2)), jnp.ones((2, 2)), ValueError, r"vector.*shape \(2, 2\)"),
    (jnp.ones(0), jnp.ones((0, 2)), ValueError, r"vector.*shape \(0,\)"),
    (jnp.ones(2, int), jnp.ones((2, 2)), TypeError, "losses must be floating-point"),
    (
      jnp.ones(2),
      {"w": jnp.ones((3, 2))},
      ValueError,
      r"task_grads\['w'\] must have the leading axis 2.*got the shape \(3, 2\)",
    ),
    (jnp.ones(2), [jnp.ones(())], ValueError, "must have the leading axis 2"),
    (jnp.ones(2), [jnp.ones((2, 3), int)], TypeError, "must hold floating-point"),
    (jnp.ones(2), {}, ValueError, "no parameter is shared"),
  ],
)
def test_refuses_what_are_no_losses_and_gradients(losses, grads, error, message):
  with pytest.raises(error, match=message):
    diagnose(losses, grads)


def test_refuses_a_wrong_shared_and_wrong_names():
  grads = {"w": jnp.ones((2, 3))}
  with pytest.raises(ValueError, match="shared must be a predicate on key paths"):
    diagnose(jnp.ones(2), grads, shared={"v": True})
  with pytest.raises(TypeError, match="shared must be True or False"):
    diagnose(jnp.ones(2), grads, shared={"w": 1})
  with pytest.raises(ValueError, match="must hold 2 names, one per task, got 3"):
    diagnose(jnp.ones(2), grads).describe(["a", "b", "c"])


def test_is_exported_as_a_function():
  assert igb_jax.diagnose is diagnose
  assert {"diagnose", "Diagnosis"} <= set(igb_jax.__all__)
