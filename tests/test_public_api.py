"""Whatever a user passes: the right answer, or an exception of the documented type."""

import functools
import inspect
import typing
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers, value_and_task_grads
from igb_jax.balancers.methods import METHODS
from igb_jax.metrics import delta_m
from tests.balancers.contract import families_first, loss_traits
from tests.needed_options import needed_options

NUM_TASKS = 3
NAMES = balancers.names()
ERRORS = (TypeError, ValueError)
FAST = hypothesis.settings(deadline=None, max_examples=60)
FASTER = hypothesis.settings(deadline=None, max_examples=25)  # for what is traced anew

# what is no hyper-parameter, and what may be one
junk = st.one_of(
  st.none(),
  st.booleans(),
  st.text(max_size=3),
  st.integers(-5, 5),
  st.floats(),
  st.complex_numbers(),
  st.lists(st.integers(-1, 2), max_size=2),
  st.just(np.ones(2)),
  st.just(object()),
)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
dtypes = st.sampled_from(["f2", "f4", "f8", "i4", "u1", "?", "c8"])
arrays = st.builds(np.ones, shapes, dtypes)


def create(name: str, **options) -> balancers.Balancer:
  options = needed_options(name, NUM_TASKS) | options
  return balancers.create(name, num_tasks=NUM_TASKS, steps_per_epoch=4, **options)


@functools.cache
def ready(name: str, shape: tuple[int, ...] = (2,)):
  """A balancer's update and its first state, for parameters of a shape."""
  balancer = create(name)
  if balancer.loss is not None:
    needs = {need: jnp.ones((1, NUM_TASKS)) for need in loss_traits(name).needs}
    update = functools.partial(balancer.loss.update, **needs)
    return update, balancer.loss.init(jax.random.key(0))
  assert balancer.gradient is not None
  update = functools.partial(balancer.gradient.update, losses=jnp.ones(NUM_TASKS))
  return update, balancer.gradient.init(jnp.zeros(shape))


def hyperparameters() -> list[tuple[str, str, Any]]:
  """Every balancer with each of its hyper-parameters, and what that is by default."""
  common = {"num_tasks", "steps_per_epoch", "shared", "log"}
  return [
    (name, parameter.name, parameter.default)
    for name, method in METHODS.items()
    for parameter in inspect.signature(method.constructor).parameters.values()
    if parameter.name not in common
  ]


def words_of(name: str, parameter: str) -> set[Any]:
  """The words that the signature allows for a hyper-parameter."""
  constructor = METHODS[name].constructor
  hint = typing.get_type_hints(getattr(constructor, "func", constructor))[parameter]
  choices = hint, *typing.get_args(hint)
  literals = [each for each in choices if typing.get_origin(each) is typing.Literal]
  return {word for each in literals for word in typing.get_args(each)}


@pytest.mark.parametrize(("name", "parameter", "default"), hyperparameters())
def test_hyperparameters_are_taken_or_refused(name, parameter, default):
  @FAST
  @hypothesis.given(value=junk)
  @hypothesis.example(value=float("nan"))
  @hypothesis.example(value=float("inf"))
  def run(value):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
      create(name, **{parameter: value})
    except ERRORS as error:
      assert parameter in str(error)  # noqa: PT017
      return
    if value is None:
      assert default is None or parameter == "max_norm"  # of which None is no bound
    elif isinstance(default, bool):
      assert isinstance(value, bool)
    elif parameter == "hidden_sizes":
      assert all(size >= 1 for size in value)
    elif isinstance(value, str):
      assert value in words_of(name, parameter)
    else:
      assert is_number
      assert np.isfinite(value)
      # a negative one favours the losses that fall
      assert value >= 0 or (name, parameter) == ("softadapt", "beta")

  run()


@FAST
@hypothesis.given(spec=st.one_of(junk, st.text("ewsi+ ", max_size=6)))
def test_a_specification_is_known_or_refused(spec):
  try:
    balancer = balancers.create(spec, num_tasks=2, steps_per_epoch=2)
  except ERRORS as error:
    assert repr(spec) in str(error) or "two" in str(error)  # noqa: PT017
  else:
    assert {part.strip() for part in spec.split("+")} <= {"ew", "si", "ls"}
    assert balancer.loss is not None


@pytest.mark.parametrize("parameter", ["num_tasks", "steps_per_epoch"])
@pytest.mark.parametrize("name", ["igbv1", "igbv2"])
def test_counts_are_taken_or_refused(name, parameter):
  @FAST
  @hypothesis.given(value=junk)
  def run(value):
    counts = {"num_tasks": 2, "steps_per_epoch": 4, parameter: value}
    try:
      balancers.create(name, **counts)
    except ERRORS as error:
      assert parameter in str(error)  # noqa: PT017
    else:
      assert type(value) is int
      assert value >= 1

  run()


@pytest.mark.parametrize("name", families_first(NAMES))
def test_inputs_are_computed_with_or_refused(name):
  is_loss = NAMES[name] == "loss"

  @FASTER
  @hypothesis.given(array=arrays, as_list=st.booleans())
  def run(array, as_list):
    values = array.tolist() if is_loss and as_list else array
    fits = np.asarray(values).dtype.kind == "f" and array.shape[:1] == (NUM_TASKS,)
    if is_loss:
      fits &= array.ndim == 1
    update, state = ready(name, () if is_loss else array.shape[1:])
    try:
      result, new = jax.eval_shape(lambda: update(values, state))
    except ERRORS:
      assert not fits
      return
    assert fits
    assert new.weights.shape == (NUM_TASKS,)
    assert result.shape == (array.shape if is_loss else array.shape[1:])

  run()


@pytest.mark.parametrize(
  "values", [None, "abc", [None] * 3, ["x"] * 3, [[1.0], [1.0, 2.0], [1.0]], object()]
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_array_is_refused(name, values):
  update, state = ready(name)
  with pytest.raises(ERRORS):
    update(values, state)


@FAST
@hypothesis.given(array=arrays)
def test_task_gradients_are_of_vectors_of_floats(array):
  def losses(params):
    return (
      params * jnp.asarray(array) if array.dtype.kind == "f" else jnp.asarray(array)
    )

  fits = array.dtype.kind == "f" and array.ndim == 1 and array.size > 0
  try:
    values, grads = jax.eval_shape(value_and_task_grads(losses), jnp.float32(2))
  except ERRORS:
    assert not fits
    return
  assert fits
  assert values.shape == grads.shape == array.shape


@FAST
@hypothesis.given(value=junk)
def test_a_batch_size_is_taken_or_refused(value):
  try:
    function = value_and_task_grads(lambda x: jnp.stack([x, x**2]), batch_size=value)
  except ERRORS as error:
    assert "batch_size" in str(error)  # noqa: PT017
    return
  assert type(value) is int
  assert function(jnp.float32(3.0))[1].tolist() == [1, 6]


@FAST
@hypothesis.given(
  metrics=hnp.arrays(float, shapes, elements=st.floats(-1e3, 1e3)),
  baselines=hnp.arrays(float, shapes, elements=st.floats(-1e3, 1e3) | st.just(np.nan)),
  higher=hnp.arrays(bool, shapes),
)
def test_delta_m_is_a_mean_over_the_metrics_or_refused(metrics, baselines, higher):
  fits = metrics.ndim == 1 and metrics.size > 0 and baselines.shape == metrics.shape
  fits = fits and (baselines != 0).all() and np.isfinite(baselines).all()
  fits = fits and higher.shape in ((), metrics.shape)
  try:
    score = delta_m(metrics, baselines, higher)
  except ValueError:
    assert not fits
    return
  assert fits
  signs = np.broadcast_to(np.where(higher, -1, 1), metrics.shape)
  changes = [
    sign * (value - base) / base
    for sign, value, base in zip(signs, metrics, baselines, strict=True)
  ]
  assert score == pytest.approx(100 * sum(changes) / len(changes))
