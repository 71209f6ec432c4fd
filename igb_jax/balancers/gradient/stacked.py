"""Stacked task gradients: what is shared among them, their Gramian, their sums."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.common import all_finite, check_present, is_inexact
from igb_jax.balancers.solvers import Gramian
from igb_jax.balancers.solvers.products import beside, flat_if_free, weighted_sum

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


def check_shared(shared: Shared, params: Any) -> None:
  """Checks `shared` against parameters, for `init`.

  `optax.tree.map_params` hands over a placeholder for the parameters, a node of a type
  of its own without leaves; of that there is nothing to check.

  Args:
    shared: see `Shared`.
    params: the parameters.

  Raises:
    TypeError: see `shared_leaves`.
    ValueError: see `shared_leaves`.
  """
  is_container = params is None or isinstance(params, dict | list | tuple)
  if is_container or jax.tree.structure(params).num_leaves > 0:
    shared_leaves(shared, params)


class TaskGrads(NamedTuple):
  """Gradients of K tasks, taken apart.

  Attributes:
    leaves: float[K, ...] each, flattened where that is free; those of absent tasks may
      be NaN.
    shapes: of the parameters that they belong to.
    is_shared: which of them the tasks share.
    structure: of the tree that they make.
    present: bool[K], or None where all tasks are present.
  """

  leaves: list[jax.Array]
  shapes: list[tuple[int, ...]]
  is_shared: list[bool]
  structure: Any
  present: jax.Array | None

  @classmethod
  def of(
    cls,
    task_grads: Any,
    num_tasks: int,
    shared: Shared,
    present: jax.Array | None = None,
    params: Any = None,
  ) -> "TaskGrads":
    """Takes a tree of stacked gradients apart, and checks it while tracing.

    Args:
      task_grads: a pytree with leaves float[K, ...].
      num_tasks: K.
      shared: see `Shared`.
      present: bool[K], all by default.
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
          f"{where} must have the leading axis {num_tasks}, one gradient a task, got "
          f"the shape {shape}; igb_jax.value_and_task_grads and jax.jacrev stack them."
        )
      if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{where} must hold floating-point numbers, got {dtype}.")
    if params is not None:
      _check_fit(task_grads, params, num_tasks)
    shapes = [leaf.shape[1:] for leaf in leaves]
    # Flat for all who read them, or XLA on CPU stacks gradients once for each shape.
    leaves = [flat_if_free(leaf) for leaf in leaves]
    is_shared = shared_leaves(shared, task_grads)
    return cls(leaves, shapes, is_shared, structure, present)

  @property
  def num_present(self) -> int | jax.Array:
    """Number of tasks that are present."""
    return len(self.leaves[0]) if self.present is None else self.present.sum()

  @property
  def shared(self) -> list[jax.Array]:
    """The leaves that the tasks share, with zeros for tasks that are absent."""
    pairs = zip(self.leaves, self.is_shared, strict=True)
    leaves = [leaf for leaf, is_shared in pairs if is_shared]
    if self.present is None:
      return leaves
    # selected, not multiplied: what is absent may be NaN
    return [jnp.where(beside(self.present, leaf), leaf, 0) for leaf in leaves]

  def gramian(self) -> Gramian:
    """The Gramian of the shared gradients."""
    return Gramian.of(self.shared)

  def sum(self, weights: jax.Array, others: jax.Array) -> Any:
    """sum_k w_k g_k over the tasks that are present, in the dtype of each leaf.

    Computed in float32, or in the dtype of the leaf if that has more digits.

    Args:
      weights: f32[K], of the shared leaves.
      others: f32[K], of those that are not shared.

    Returns:
      A pytree with leaves [...].
    """

    def total(leaf: jax.Array, shape: tuple[int, ...], is_shared: bool) -> jax.Array:
      result = weighted_sum(weights if is_shared else others, leaf, self.present)
      return result.astype(leaf.dtype).reshape(shape)

    return jax.tree.unflatten(
      self.structure, map(total, self.leaves, self.shapes, self.is_shared)
    )


def _check_fit(task_grads: Any, params: Any, num_tasks: int) -> None:
  """Raises ValueError where the gradients are not those of K tasks for each parameter.

  Without it, one gradient whose first axis happens to be K would pass for K gradients.
  """
  of_grads, of_params = (
    {jax.tree_util.keystr(path): leaf for path, leaf in with_path}
    for with_path in map(jax.tree_util.tree_leaves_with_path, (task_grads, params))
  )
  # integers and what is no array (a function in an Equinox module) have no gradient
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
        f"a task of a parameter of the shape {of_param}, got {shape}; "
        "igb_jax.value_and_task_grads and jax.jacrev stack them."
      )


def _listed(names: set[str]) -> str:
  return ", ".join(sorted(names)) or "none"


def transformation(
  num_tasks: int,
  init: Callable[..., Any],
  update: Callable[..., tuple[Any, Any]],
) -> optax.GradientTransformationExtraArgs:
  """An optax transformation whose `update` takes stacked gradients.

  It keeps the contract of `optax.experimental.aggregating.Aggregator`, and takes
  `present` as every balancer does, see `igb_jax.balancers.types`. Gradients that are
  not finite make the result not finite and leave the state as it was.

  Args:
    num_tasks: K.
    init: `init(params) -> state`, of parameters that are not stacked.
    update: `update(task_grads, state, params, present, **extra) -> (gradient, state)`
      with present bool[K], or None for all.
  """

  def guarded_update(
    task_grads: optax.Updates,
    state: Any,
    params: optax.Params | None = None,
    *,
    present: jax.typing.ArrayLike | None = None,
    **extra: Any,
  ) -> tuple[optax.Updates, Any]:
    if present is None:
      gradient, new = update(task_grads, state, params, None, **extra)
      return gradient, optax.tree.where(all_finite((gradient, new)), new, state)
    present = check_present(present, num_tasks)
    gradient, new = update(task_grads, state, params, present, **extra)
    good = all_finite((gradient, new)) & present.any()
    new = optax.tree.where(good, new, state)
    return gradient, new._replace(weights=jnp.where(present, new.weights, 0.0))

  return optax.GradientTransformationExtraArgs(init, guarded_update)  # pyright: ignore[reportArgumentType]
