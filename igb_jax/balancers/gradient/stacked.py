"""Stacked task gradients: trees taken apart, their Gramian, their sums."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.common import is_inexact
from igb_jax.balancers.gradient.shared import Shared, shared_leaves
from igb_jax.balancers.solvers import Gramian
from igb_jax.balancers.solvers.products import beside, flat_if_free, weighted_sum


class TaskGrads(NamedTuple):
  """Gradients of K tasks in the leaves that they share.

  Attributes:
    leaves: float[K, ...] each, flattened where that is free; those of absent tasks may
      be NaN. None where the gradients never exist together.
    present: bool[K], or None where all tasks are present.
    known: the Gramian, where the gradients never exist together.
  """

  leaves: list[jax.Array] | None
  present: jax.Array | None = None
  known: Gramian | None = None

  @property
  def num_present(self) -> int | jax.Array:
    """Number of tasks that are present."""
    if self.present is not None:
      return self.present.sum()
    return len(self.all[0] if self.known is None else self.known.norms)

  @property
  def here(self) -> jax.Array:
    """bool[K]: which tasks are present."""
    if self.present is not None:
      return self.present
    return jnp.ones(self.num_present, bool)

  @property
  def shared(self) -> list[jax.Array] | None:
    """The leaves, if there are any, with zeros for tasks that are absent."""
    return None if self.leaves is None else self.all

  @property
  def all(self) -> list[jax.Array]:
    """The same for those that cannot do without."""
    assert self.leaves is not None
    if self.present is None:
      return self.leaves
    # selected, not multiplied: what is absent may be NaN
    return [jnp.where(beside(self.present, leaf), leaf, 0) for leaf in self.leaves]

  def gramian(self) -> Gramian:
    """The Gramian of the gradients."""
    if self.known is not None:
      return self.known
    return Gramian.of(self.all)

  def sum(self, weights: jax.Array) -> list[jax.Array]:
    """sum_k w_k g_k over the tasks that are present, leaf by leaf in its dtype.

    Computed in float32, or in the dtype of the leaf if that has more digits.

    Args:
      weights: f32[K].
    """
    assert self.leaves is not None
    return [
      weighted_sum(weights, leaf, self.present).astype(leaf.dtype)
      for leaf in self.leaves
    ]


class Stacked(NamedTuple):
  """A tree of stacked task gradients, taken apart.

  Attributes:
    leaves: float[K, ...] each, flattened where that is free.
    shapes: the shapes of the parameters that they belong to.
    is_shared: which of them the tasks share.
    structure: the structure of the tree that they make.
  """

  leaves: list[jax.Array]
  shapes: list[tuple[int, ...]]
  is_shared: list[bool]
  structure: Any

  @classmethod
  def of(
    cls, task_grads: Any, num_tasks: int, shared: Shared, params: Any = None
  ) -> "Stacked":
    """Takes the tree apart, and checks it while tracing.

    Args:
      task_grads: a pytree with leaves float[K, ...].
      num_tasks: K.
      shared: see `Shared`.
      params: the parameters, to check the gradients against.

    Raises:
      TypeError: a leaf is not floating-point.
      ValueError: a leaf has no leading axis K, or its other axes are not those of its
        parameter; or the trees have different leaves.
    """
    with_path, structure = jax.tree_util.tree_flatten_with_path(task_grads)
    leaves = [jnp.asarray(leaf) for _, leaf in with_path]
    for (path, _), leaf in zip(with_path, leaves, strict=True):
      where = f"task_grads{jax.tree_util.keystr(path)}"
      shape, dtype = leaf.shape, leaf.dtype
      if shape[:1] != (num_tasks,):
        raise ValueError(
          f"{where} must have the leading axis {num_tasks}, one gradient per task, got "
          f"the shape {shape}; igb_jax.value_and_task_grads and jax.jacrev stack them."
        )
      if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{where} must hold floating-point numbers, got {dtype}.")
    if params is not None:
      _check_fit(task_grads, params, num_tasks)
    shapes = [leaf.shape[1:] for leaf in leaves]
    # Flat for all who read them, or XLA on CPU stacks gradients once for each shape.
    leaves = [flat_if_free(leaf) for leaf in leaves]
    return cls(leaves, shapes, shared_leaves(shared, task_grads), structure)

  def pick(self, is_shared: bool) -> list[jax.Array]:
    """The leaves that are shared, or those that are not."""
    return split(self.leaves, self.is_shared)[is_shared]

  def join(self, shared: list[jax.Array], others: list[jax.Array]) -> Any:
    """The tree of leaves [...] that were combined.

    Args:
      shared: those that the tasks share, in any shape.
      others: the rest.
    """
    leaves = join(shared, others, self.is_shared)
    return self.structure.unflatten(
      leaf.reshape(shape) for leaf, shape in zip(leaves, self.shapes, strict=True)
    )


def buffers(num_tasks: int, params: Any, is_shared: list[bool]) -> Any:
  """Zeros f32[K, ...] for each parameter that is shared and has a gradient, else None.

  Args:
    num_tasks: K.
    params: the parameters.
    is_shared: which are shared, in the order of the leaves.
  """
  flags = iter(is_shared)

  def of_leaf(leaf: jax.Array) -> jax.Array | None:
    keeps = next(flags) and hasattr(leaf, "dtype") and is_inexact(leaf)
    return jnp.zeros((num_tasks, *leaf.shape), jnp.float32) if keeps else None

  return jax.tree.map(of_leaf, params)


def follow(means: Any, grads: TaskGrads, rate: jax.Array) -> tuple[TaskGrads, Any]:
  """Moves moving means, y <- y - rate (y - g), but for tasks that are absent.

  Args:
    means: y, what `buffers` or the step before returned.
    grads: the gradients.
    rate: f32[].

  Returns:
    The means as `TaskGrads`, and as the tree that the state keeps.
  """
  old, structure = jax.tree.flatten(means)

  def move(y: jax.Array, g: jax.Array) -> jax.Array:
    y = y.reshape(g.shape)
    new = y - rate * (y - g.astype(jnp.float32))
    return new if grads.present is None else jnp.where(beside(grads.present, g), new, y)

  moved = list(map(move, old, grads.all))
  shaped = [y.reshape(was.shape) for y, was in zip(moved, old, strict=True)]
  return TaskGrads(moved, grads.present), structure.unflatten(shaped)


def split(leaves: list[Any], is_shared: list[bool]) -> dict[bool, list[Any]]:
  """Leaves by whether they are shared; `join` is the inverse."""
  parts: dict[bool, list[Any]] = {True: [], False: []}
  for leaf, flag in zip(leaves, is_shared, strict=True):
    parts[flag].append(leaf)
  return parts


def join(shared: list[Any], others: list[Any], is_shared: list[bool]) -> list[Any]:
  """Leaves in their order, of those that are shared and those that are not."""
  parts = {True: iter(shared), False: iter(others)}
  return [next(parts[flag]) for flag in is_shared]


def _check_fit(task_grads: Any, params: Any, num_tasks: int) -> None:
  """Raises ValueError where the gradients are not those of K tasks for each parameter.

  Without it, one gradient whose first axis happens to be K would pass for K gradients.
  """
  of_grads, of_params = (
    {jax.tree_util.keystr(path): leaf for path, leaf in with_path}
    for with_path in map(jax.tree_util.tree_leaves_with_path, (task_grads, params))
  )
  # integers and what is not an array (a function in an Equinox module) have no gradient
  names = {
    name
    for name, leaf in of_params.items()
    if hasattr(leaf, "dtype") and is_inexact(leaf)
  }
  lacking, unknown = names - of_grads.keys(), of_grads.keys() - of_params.keys()
  if lacking or unknown:
    raise ValueError(
      "task_grads must have the structure of the parameters, with a leaf "
      f"[{num_tasks}, ...] for each. Without a gradient: {_listed(lacking)}; without a "
      f"parameter: {_listed(unknown)}. To balance only some of the parameters, use "
      "shared= or optax.multi_transform."
    )
  for name, grads in of_grads.items():
    shape, of_param = jnp.shape(grads), jnp.shape(of_params[name])
    if shape != (num_tasks, *of_param):
      raise ValueError(
        f"task_grads{name} must have the shape {(num_tasks, *of_param)}, one gradient "
        f"per task for a parameter of the shape {of_param}, got {shape}; "
        "igb_jax.value_and_task_grads and jax.jacrev stack them."
      )


def _listed(names: set[str]) -> str:
  return ", ".join(sorted(names)) or "none"
