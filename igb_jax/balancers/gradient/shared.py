"""Which leaves of the parameters the tasks share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_BOOLS = (bool, jnp.dtype(bool).type)  # Python's and NumPy's

# Which leaves enter the Gramian: a predicate on the key path of a leaf, a pytree of
# bools like the parameters or a prefix of one, or None for all.
Shared = Callable[[tuple[Any, ...]], bool] | Any


def shared_leaves(shared: Shared, tree: Any) -> list[bool]:
  """Which leaves of a tree are shared by the tasks, in the order of its leaves.

  Args:
    shared: see `Shared`.
    tree: parameters or gradients.

  Raises:
    TypeError: the predicate, or a leaf of `shared`, is not a bool.
    ValueError: `shared` does not fit the tree, or no leaf of it is shared.
  """
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  flags: list[Any]
  if shared is None:
    flags = [True] * len(paths)
  elif callable(shared) and jax.tree_util.all_leaves([shared]):  # no callable module
    flags = [shared(path) for path in paths]
  else:
    try:
      flags = jax.tree.leaves(jax.tree.broadcast(shared, tree))
    except ValueError:  # such as a dict for a FrozenDict
      flags = _flags_at(paths, shared)
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


def _flags_at(paths: list[tuple[Any, ...]], shared: Any) -> list[Any]:
  """The leaf of `shared` at every path or above it, whatever the types of the nodes.

  Raises:
    ValueError: a path has none, or a leaf of `shared` is above no path.
  """
  given = dict(jax.tree_util.tree_leaves_with_path(shared))
  flags, lacking, unknown = [], [], {*given}
  for path in paths:
    places = [path[:n] for n in range(len(path) + 1) if path[:n] in given]
    flags += [given[place] for place in places]  # one, or none
    lacking += [] if places else [path]
    unknown -= {*places}
  lacking, unknown = _named(lacking), _named([p for p in given if p in unknown])
  reasons = [f"it has nothing for {lacking}"] if lacking else []
  reasons += [f"no parameter is at {unknown}"] if unknown else []
  if reasons:
    raise ValueError(
      "shared must be a predicate on key paths, or a pytree of bools with the "
      "structure of the parameters or a prefix of it; it does not fit: "
      f"{'; '.join(reasons)}."
    )
  return flags


def _named(paths: list[tuple[Any, ...]]) -> str:
  """The first paths as they are written in code."""
  names = [jax.tree_util.keystr(path) or "the tree itself" for path in paths]
  more = [f"{len(names) - 8} more"] if len(names) > 8 else []
  return ", ".join(names[:8] + more)


def check_shared(shared: Shared, params: Any) -> list[bool]:
  """Which parameters are shared, for `init`.

  `optax.tree.map_params` hands over a placeholder for the parameters, a node of a type
  of its own without leaves; of that there is nothing to check, and nothing is shared.

  Args:
    shared: see `Shared`.
    params: the parameters.

  Raises:
    TypeError: see `shared_leaves`.
    ValueError: see `shared_leaves`.
  """
  is_container = params is None or isinstance(params, dict | list | tuple)
  if is_container or jax.tree.structure(params).num_leaves > 0:
    return shared_leaves(shared, params)
  return []
