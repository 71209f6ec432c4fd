"""What tests of every method share: methods by their traits, and comparisons.

A test that runs over methods takes their names from here, and what it asks of each from
the traits in the method's file. So a new method is tested as soon as it has a name.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers as balancers  # which fills METHODS
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.methods import METHODS, GradientTraits, LossTraits


def having(kind: str, **traits: Any) -> list[str]:
  """The names of one kind whose traits are these.

  Args:
    kind: "loss" or "gradient".
    **traits: of `LossTraits` or `GradientTraits`, with the value of each.
  """
  return [
    name
    for name, method in METHODS.items()
    if method.kind == kind and traits.items() <= method.traits._asdict().items()
  ]


STEPS_PER_EPOCH = 4  # for methods that ask for it
LOSS = having("loss")
GRADIENT = having("gradient")


def loss_traits(name: str) -> LossTraits:
  return cast(LossTraits, METHODS[name].traits)


def gradient_traits(name: str) -> GradientTraits:
  return cast(GradientTraits, METHODS[name].traits)


def parameters_of(name: str) -> dict[str, inspect.Parameter]:
  """The parameters of a constructor that the name leaves open."""
  constructor = METHODS[name].constructor
  fixed = constructor.keywords if isinstance(constructor, functools.partial) else {}
  parameters = inspect.signature(constructor).parameters
  return {each: value for each, value in parameters.items() if each not in fixed}


def one_of_each_family(kind: str = "gradient") -> list[str]:
  """A balancer of each family: as wrappers or traits tell them apart."""
  families = {}
  for name in having(kind):
    traits = METHODS[name].traits
    family = (
      (traits.gramian_only, traits.draws, traits.solves)
      if isinstance(traits, GradientTraits)
      else (traits.takes_log, traits.normalised)
    )
    families.setdefault(family, name)
  return list(families.values())


FAMILIES = [*one_of_each_family(), *one_of_each_family("loss")]


def slow_but(fast: Collection[Any], values: Iterable[Any]) -> list[Any]:
  """Values of a parameter, of which the slow tests take all that are not `fast`."""
  return [
    pytest.param(each, marks=() if each in fast else pytest.mark.slow)
    for each in values
  ]


def families_first(names: list[str]) -> list[Any]:
  """Values of `name`: one of each family in the fast tests, all in the slow ones.

  For what wrappers do alike for all methods of a family, and each compiles anew. Two
  more are fast: dbmtl, whose state is shaped like gradients, and igbv1.
  """
  return slow_but([*FAMILIES, "dbmtl", "igbv1"], names)


def with_task_counts(names: list[str], task_counts: list[int]) -> list[Any]:
  """Values of `name` and `num_tasks`, every number of tasks for every method.

  Each is compiled anew. So most methods have three tasks in the fast tests, one of each
  family has all numbers, and the slow tests have the rest.
  """
  return [
    pytest.param(
      name,
      num_tasks,
      marks=() if num_tasks == 3 or name in FAMILIES else pytest.mark.slow,
    )
    for name in names
    for num_tasks in task_counts
    if num_tasks >= getattr(METHODS[name].traits, "fewest_tasks", 1)
  ]


@functools.cache  # so that tests share what they trace
def plain_gradient(name: str, num_tasks: int) -> GradientBalancer:
  return make_gradient(name, num_tasks, steps_per_epoch=STEPS_PER_EPOCH)


def make_gradient(name: str, num_tasks: int, **options: Any) -> Any:
  """A gradient balancer by name."""
  if not options:
    return plain_gradient(name, num_tasks)
  described = {"steps_per_epoch": STEPS_PER_EPOCH} | options
  balancer = balancers.create(name, num_tasks=num_tasks, **described).gradient
  assert balancer is not None
  return balancer


def init(balancer: GradientBalancer, params: Any, seed: int = 0) -> Any:
  """The first state; without draws the key must not matter."""
  return cast(Any, balancer.init)(params, jax.random.key(seed))


def needed_for(name: str) -> dict[str, int]:
  """What a constructor needs to know beside the number of tasks."""
  known = {"steps_per_epoch": STEPS_PER_EPOCH}
  return {key: value for key, value in known.items() if key in parameters_of(name)}


def held_for(name: str, steps: int) -> dict[str, int]:
  """The option that holds weights, where a method has it."""
  return {"update_every": steps} if "update_every" in parameters_of(name) else {}


def to_numpy(tree: Any) -> Any:
  """The same numbers where `jax.clear_caches` and donation leave them alone."""
  return jax.tree.map(np.array, tree)


def at(tree: Any, *index: Any) -> Any:
  """A pytree of arrays at an index of each."""
  return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_equal(actual: Any, expected: Any) -> None:
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def assert_close(
  actual: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-6
) -> None:
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), actual, expected
  )


def assert_finite(tree: Any) -> None:
  for leaf in jax.tree.leaves(tree):
    assert np.isfinite(np.asarray(leaf, np.float64)).all()


def relative_error(actual: Any, expected: Any) -> float:
  difference = np.linalg.norm(np.asarray(actual, np.float64) - expected)
  return float(difference / max(np.linalg.norm(expected), 1e-30))


def direction(vector: Any) -> np.ndarray:
  vector = np.asarray(vector, np.float64)
  return vector / np.linalg.norm(vector)


def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
  """A function of stacked arguments, compiled once and called on each in turn."""
  return jax.jit(lambda *stacked: jax.lax.map(lambda each: function(*each), stacked))


def assert_same_form(new: Any, old: Any) -> None:
  """Structure, shapes and dtypes are those that a jitted step was traced for.

  Args:
    new: what `jax.eval_shape` says of the new state.
    old: the state before.
  """
  forms = [
    jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)
    for tree in (new, jax.eval_shape(lambda: old))
  ]
  assert jax.tree.structure(new) == jax.tree.structure(old)
  assert forms[0] == forms[1]
  for leaf in jax.tree.leaves(old):
    assert not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


FLOAT32_AND_WHOLE = (jnp.float32, jnp.int32, jnp.uint32, jnp.bool_)
