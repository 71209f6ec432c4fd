"""Task gradients against `jax.jacrev`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igb_jax.task_grads import value_and_task_grads


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), actual, expected
  )


@settings(deadline=None, max_examples=10)
@given(
  num_tasks=st.integers(1, 7),
  batch_size=st.integers(1, 9),
  unroll=st.sampled_from([None, True, False]),
  shapes=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3),
)
def test_equals_jacrev_on_random_pytrees(num_tasks, batch_size, unroll, shapes):
  generator = np.random.default_rng(0)
  params = {
    f"leaf {index}": [jnp.asarray(generator.normal(size=shape), jnp.float32)]
    for index, shape in enumerate(shapes)
  }
  mixing = jnp.asarray(generator.normal(size=(num_tasks, len(shapes))), jnp.float32)

  def losses_of(params):
    norms = jnp.stack([jnp.sin(leaf).sum() for leaf in jax.tree.leaves(params)])
    return jnp.exp(mixing @ norms / 10)

  batch_size = 1 if unroll else batch_size
  losses, grads = jax.jit(
    value_and_task_grads(losses_of, batch_size=batch_size, unroll=unroll)
  )(params)
  assert_close(losses, losses_of(params))
  expected = jax.jacrev(losses_of)(params)
  assert jax.tree.structure(grads) == jax.tree.structure(expected)
  assert_close(grads, expected)


def fun(a, b, scale=1.0):
  return scale * jnp.stack([a["x"] * b, a["x"] + b**2])


ARGUMENTS = ({"x": jnp.float32(2.0)}, jnp.float32(3.0))


@pytest.mark.parametrize(
  "argnums", [0, 1, (0,), (0, 1), (1, 0), -1, (np.int64(1), 0), np.array([0, 1])]
)
def test_argnums_and_keywords(argnums):
  losses, grads = value_and_task_grads(fun, argnums)(*ARGUMENTS, scale=2.0)
  assert_close(losses, fun(*ARGUMENTS, scale=2.0))
  expected = jax.jacrev(fun, argnums)(*ARGUMENTS, scale=2.0)
  assert jax.tree.structure(grads) == jax.tree.structure(expected)
  assert_close(grads, expected)


@pytest.mark.parametrize("number", [np.int64(1), jnp.int32(1)])
def test_one_number_of_any_kind_is_one_argument(number):
  _, grads = value_and_task_grads(fun, number)(*ARGUMENTS)
  assert_close(grads, jax.jacrev(fun, 1)(*ARGUMENTS))  # jacrev itself gives a tuple


@pytest.mark.parametrize("argnums", [1.5, "0", None, (0.0,)])
def test_refuses_argnums_that_are_no_integers(argnums):
  with pytest.raises(TypeError, match="argnums must be an integer or a sequence of"):
    value_and_task_grads(fun, argnums)


@pytest.mark.parametrize("argnums", [2, -3, (0, 2)])
def test_refuses_the_number_of_an_argument_that_is_not_there(argnums):
  with pytest.raises(
    ValueError, match="there are 2 positional arguments; pass what is"
  ):
    value_and_task_grads(fun, argnums)(*ARGUMENTS)


@pytest.mark.parametrize("argnums", [(0, 0), (1, -1)])
def test_refuses_the_same_argument_twice(argnums):
  with pytest.raises(ValueError, match="names one of the 2 arguments twice"):
    value_and_task_grads(fun, argnums)(*ARGUMENTS)


def test_refuses_parameters_passed_by_keyword():
  with pytest.raises(
    ValueError, match="there are 0 positional arguments; pass what is"
  ):
    value_and_task_grads(fun)(a=ARGUMENTS[0], b=ARGUMENTS[1])


@pytest.mark.parametrize(
  ("leaf", "dtype"),
  [(jnp.int32(1), "int32"), (True, "bool"), (jax.random.key(0), "key<fry>")],
)
def test_refuses_to_differentiate_what_has_no_gradient(leaf, dtype):
  params = {"x": jnp.float32(2.0), "step": leaf}
  message = rf"argument 0\['step'\] is to be differentiated.*, got {dtype}; pass it in"
  with pytest.raises(TypeError, match=message):
    value_and_task_grads(fun)(params, 3.0)
  _, grads = value_and_task_grads(fun, 1)(params, 3.0)  # beside it, all is allowed
  assert_close(grads, jnp.array([2.0, 6.0]))


def test_one_forward_pass_serves_all_tasks():
  calls = []

  def losses_of(x):
    jax.debug.callback(lambda: calls.append(None))
    return jnp.stack([x, x**2, x**3])

  value_and_task_grads(losses_of)(jnp.float32(2.0))
  jax.effects_barrier()
  assert len(calls) == 1


def test_one_task_at_a_time_needs_less_memory_than_all():
  size, num_tasks = 256, 16

  def losses_of(weight):
    hidden = jnp.ones((size, size))
    for _ in range(4):
      hidden = jnp.tanh(hidden @ weight)
    return hidden[:num_tasks].sum(axis=1)

  weight = jnp.ones((size, size))

  def temporary_bytes(batch_size):
    grads = jax.jit(value_and_task_grads(losses_of, batch_size=batch_size))
    return grads.lower(weight).compile().memory_analysis().temp_size_in_bytes

  assert temporary_bytes(1) < 0.5 * temporary_bytes(num_tasks)


@pytest.mark.parametrize(
  ("num_tasks", "unroll", "loops"),
  [(4, None, False), (5, None, True), (4, False, True), (5, True, False)],
)
def test_few_tasks_are_not_looped_over(num_tasks, unroll, loops):
  weight = jnp.ones((3, num_tasks))
  grads = value_and_task_grads(lambda x: jnp.tanh(x @ weight), unroll=unroll)
  assert ("scan" in str(jax.make_jaxpr(grads)(jnp.ones(3)))) == loops


def test_bf16_and_other_dtypes_are_kept():
  _, grads = value_and_task_grads(lambda x: jnp.stack([x.sum(), (x**2).sum()]))(
    jnp.ones(3, jnp.bfloat16)
  )
  assert grads.dtype == jnp.bfloat16
  assert grads.shape == (2, 3)


@pytest.mark.parametrize(
  ("losses", "error", "message"),
  [
    (jnp.ones(()), ValueError, r"vector of losses, one per task, got the shape \(\)"),
    (jnp.ones((2, 2)), ValueError, r"got the shape \(2, 2\)"),
    (jnp.ones(0), ValueError, r"got the shape \(0,\)"),
    (jnp.ones(2, jnp.int32), TypeError, "must be floating-point numbers, got int32"),
  ],
)
def test_refuses_what_is_no_vector_of_losses(losses, error, message):
  with pytest.raises(error, match=message):
    value_and_task_grads(lambda x: losses)(jnp.float32(1.0))


@pytest.mark.parametrize(
  ("result", "has_aux", "message"),
  [
    ([1.0, 2.0], False, "one array of losses, got list; stack them with jnp.stack"),
    ((jnp.ones(2), jnp.ones(3)), False, "got tuple;.* has_aux=True is for a fun that"),
    ({"depth": 1.0}, False, "got dict"),
    (None, False, "got NoneType"),
    (([1.0, 2.0], "aux"), True, "got list"),
    (jnp.ones(2), True, "must return a pair .losses, aux., and it does not"),
    ((jnp.ones(2), 1, 2), True, "must return a pair"),
  ],
)
def test_refuses_what_is_no_array_or_no_pair(result, has_aux, message):
  with pytest.raises(TypeError, match=message):
    value_and_task_grads(lambda x: result, has_aux=has_aux)(jnp.float32(1.0))


@pytest.mark.parametrize(
  ("batch_size", "unroll"), [(1, True), (1, False), (2, None), (3, None)]
)
def test_empty_leaves_are_kept(batch_size, unroll):
  params = {"full": jnp.ones(2), "empty": jnp.zeros((0, 4), jnp.bfloat16)}
  _, grads = value_and_task_grads(
    lambda p: jnp.arange(3.0) * p["full"].sum(), batch_size=batch_size, unroll=unroll
  )(params)
  assert grads["full"].shape == (3, 2)
  assert grads["empty"].shape == (3, 0, 4)
  assert grads["empty"].dtype == jnp.bfloat16


def test_refuses_a_bad_batch_size():
  with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
    value_and_task_grads(fun, batch_size=0)
  with pytest.raises(ValueError, match="unroll=True is for one task at a time, got"):
    value_and_task_grads(fun, batch_size=2, unroll=True)
  with pytest.raises(TypeError, match="batch_size must be an integer"):
    value_and_task_grads(fun, batch_size=1.5)  # pyright: ignore[reportArgumentType]
