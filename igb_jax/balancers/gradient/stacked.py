"""Stacked task gradients: what is shared among them, their Gramian, their sums."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.solvers import Gramian

_BOOLS = (bool, jnp.dtype(bool).type)  # Python's and NumPy's

# A predicate on the key path of a leaf, a pytree of bools like the parameters (or a
# prefix of one), or None for all.
Shared = Callable[[tuple[Any, ...]], bool] | Any


def shared_leaves(shared: Shared, tree: Any) -> list[bool]:
  """Which leaves of a tree are shared by the tasks, in the order of its leaves.

  Args:
    shared: see `Shared`.
    tree: parameters or gradients.

  Raises:
    TypeError: the predicate, or a leaf of `shared`, is no bool.
    ValueError: `shared` does not fit the tree, or no leaf of it is shared.
  """
  with_path, structure = jax.tree_util.tree_flatten_with_path(tree)
  paths = [path for path, _ in with_path]
  flags: list[Any]
  if shared is None:
    flags = [True] * len(paths)
  elif callable(shared) and jax.tree_util.all_leaves([shared]):  # no callable module
    flags = [shared(path) for path in paths]
  else:
    try:
      flags = jax.tree.leaves(jax.tree.broadcast(shared, tree))
    except ValueError as error:
      raise ValueError(
        "shared must be a predicate on key paths, or a pytree of bools with the "
        f"structure of the parameters or a prefix of it; it does not fit {structure}."
      ) from error
  for path, flag in zip(paths, flags, strict=True):
    if not isinstance(flag, _BOOLS):
      raise TypeError(
        f"shared must be True or False for every leaf, got {flag!r} for "
        f"{jax.tree_util.keystr(path)}."
      )
  flags = [bool(flag) for flag in flags]
  if not any(flags):
    leaves = ", ".join(jax.tree_util.keystr(path) for path in paths) or "none"
    raise ValueError(
      f"no parameter is shared by the tasks: shared is False for every leaf ({leaves})."
    )
  return flags


class TaskGrads(NamedTuple):
  """Gradients of K tasks, taken apart.

  Attributes:
    leaves: float[K, ...] each.
    is_shared: which of them the tasks share.
    structure: of the tree that they make.
  """

  leaves: list[jax.Array]
  is_shared: list[bool]
  structure: Any

  @classmethod
  def of(cls, task_grads: Any, num_tasks: int, shared: Shared) -> "TaskGrads":
    """Takes a tree of stacked gradients apart, and checks it while tracing.

    Args:
      task_grads: a pytree with leaves float[K, ...].
      num_tasks: K.
      shared: see `Shared`.

    Raises:
      TypeError: a leaf is not floating-point.
      ValueError: a leaf has no leading axis K.
    """
    with_path, structure = jax.tree_util.tree_flatten_with_path(task_grads)
    for path, leaf in with_path:
      where = f"task_grads{jax.tree_util.keystr(path)}"
      shape, dtype = jnp.shape(leaf), jnp.result_type(leaf)
      if shape[:1] != (num_tasks,):
        raise ValueError(
          f"{where} must have the leading axis {num_tasks}, one gradient a task, got "
          f"the shape {shape}; igb_jax.value_and_task_grads and jax.jacrev stack them."
        )
      if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{where} must hold floating-point numbers, got {dtype}.")
    leaves = [jnp.asarray(leaf) for _, leaf in with_path]
    return cls(leaves, shared_leaves(shared, task_grads), structure)

  @property
  def shared(self) -> list[jax.Array]:
    """The leaves that the tasks share."""
    pairs = zip(self.leaves, self.is_shared, strict=True)
    return [leaf for leaf, is_shared in pairs if is_shared]

  def gramian(self) -> Gramian:
    """The Gramian of the shared gradients."""
    return Gramian.of(self.shared)

  def sum(self, weights: jax.Array, others: jax.Array) -> Any:
    """sum_k w_k g_k, computed in float32, in the dtype of each leaf.

    Args:
      weights: f32[K], of the shared leaves.
      others: f32[K], of those that are not shared.

    Returns:
      A pytree with leaves [...].
    """

    def weighted_sum(leaf: jax.Array, is_shared: bool) -> jax.Array:
      total = jnp.tensordot(
        weights if is_shared else others,
        leaf.astype(jnp.float32),
        axes=1,
        precision=jax.lax.Precision.HIGHEST,
      )
      return total.astype(leaf.dtype)

    return jax.tree.unflatten(
      self.structure, map(weighted_sum, self.leaves, self.is_shared)
    )


def transformation(
  init: Callable[..., Any], update: Callable[..., tuple[Any, Any]]
) -> optax.GradientTransformationExtraArgs:
  """An optax transformation whose `update` takes stacked gradients.

  It keeps the contract of `optax.experimental.aggregating.Aggregator`.

  Args:
    init: `init(params) -> state`, of parameters that are not stacked.
    update: `update(task_grads, state, params=None, **extra) -> (gradient, state)`.
  """
  return optax.GradientTransformationExtraArgs(init, update)
