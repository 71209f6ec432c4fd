"""Gradients of K task losses, stacked leaf by leaf, from one forward pass."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count
from igb_jax.balancers.solvers.products import flat_if_free

_MAX_UNROLLED = 4  # tasks


def value_and_task_grads(
  fun: Callable[..., Any],
  argnums: int | Sequence[int] = 0,
  *,
  has_aux: bool = False,
  batch_size: int = 1,
  unroll: bool | None = None,
) -> Callable[..., tuple[Any, Any]]:
  """The task losses and their gradients, as `jax.jacrev` gives them.

      losses, grads = value_and_task_grads(fun)(params, batch)

  One forward pass is shared by all tasks; its backward pass is taken for `batch_size`
  tasks at a time. One at a time needs no more memory for activations than an ordinary
  gradient, and on a CPU it is also much faster than all at once, which is what
  `jax.jacrev` does.

  Args:
    fun: `fun(params, ...) -> float[K]`, or `(float[K], aux)` with `has_aux`.
    argnums: which positional arguments to differentiate, as in `jax.grad`. All their
      leaves must be floating-point numbers.
    has_aux: whether `fun` returns a pair whose second part is not differentiated.
    batch_size: tasks at a time, 1 to K; a larger number counts as K.
    unroll: whether each backward pass is compiled on its own, not as the body of a
      loop; that takes longer to compile. By default for up to 4 tasks, taken one at a
      time: XLA's convolutions on CPU are several times slower within a loop.

  Returns:
    A function of the arguments of `fun` that returns `(losses, grads)`, or
    `((losses, aux), grads)` with `has_aux`. `grads` has the structure of the
    differentiated argument (a tuple of them where `argnums` is a sequence), each leaf
    with a leading axis K.

  Raises:
    TypeError: `batch_size` or a part of `argnums` is not an integer, `fun` does not
      return an array of floating-point losses (with `has_aux`, a pair), or a leaf that
      is to be differentiated holds something else, such as integers, a PRNG key or a
      function.
    ValueError: `batch_size` is below 1, or above 1 where the passes are to be unrolled,
      the losses are not a vector, or `argnums` names an argument twice, or one that is
      not passed by position.

  Example:
    >>> def losses(params, x):
    ...   return jnp.stack([params["a"] * x, params["a"] ** 2 + params["b"]])
    >>> params = {"a": jnp.float32(3.0), "b": jnp.float32(1.0)}
    >>> values, grads = value_and_task_grads(losses)(params, 2.0)
    >>> print(values, grads["a"], grads["b"])
    [ 6. 10.] [2. 6.] [0. 1.]
  """
  batch_size = check_passes(batch_size, unroll)
  numbers, is_single = check_argnums(argnums)

  def value_and_grads(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    losses, pull_back, aux = differentiate(fun, numbers, has_aux, args, kwargs)
    grads = pull_back_each(pull_back, losses, batch_size, unroll)
    if is_single:
      (grads,) = grads
    return ((losses, aux) if has_aux else losses), grads

  return value_and_grads


def check_passes(batch_size: int, unroll: bool | None) -> int:
  """`batch_size`, where it and `unroll` are what `value_and_task_grads` takes."""
  batch_size = check_count("batch_size", batch_size)
  if unroll and batch_size > 1:
    raise ValueError(
      f"unroll=True is for one task at a time, got batch_size={batch_size}; leave out "
      "one of the two."
    )
  return batch_size


def differentiate(
  fun: Callable[..., Any],
  numbers: tuple[int, ...],
  has_aux: bool,
  args: tuple[Any, ...],
  kwargs: dict[str, Any],
) -> tuple[jax.Array, Callable[[jax.Array], tuple[Any, ...]], Any]:
  """The losses, their pull-back, and what else `fun` returns.

  Returns:
    float[K]; `cotangent float[K] -> gradients`, a tuple of one tree for each of
    `numbers`, which say what of `args` to differentiate; and aux, or None.
  """

  def of_differentiated(*values: Any) -> Any:
    result = fun(*replaced(args, numbers, values), **kwargs)
    _check_result(result, has_aux)
    return result

  values = differentiated(args, numbers)
  if has_aux:
    return jax.vjp(of_differentiated, *values, has_aux=True)
  return *jax.vjp(of_differentiated, *values), None


def replaced(
  args: tuple[Any, ...], numbers: tuple[int, ...], values: tuple[Any, ...]
) -> list[Any]:
  """The arguments, with other values at the places that `numbers` are."""
  full = list(args)
  for number, value in zip(numbers, values, strict=True):
    full[number] = value
  return full


def check_argnums(argnums: Any) -> tuple[tuple[int, ...], bool]:
  """Its integers, and whether it was one alone, NumPy's included."""
  try:
    return (operator.index(argnums),), True
  except TypeError:
    pass
  try:
    return tuple(map(operator.index, argnums)), False
  except TypeError as error:
    raise TypeError(
      f"argnums must be an integer or a sequence of integers, got {argnums!r}."
    ) from error


def differentiated(args: tuple[Any, ...], numbers: tuple[int, ...]) -> tuple[Any, ...]:
  """The arguments to differentiate, after a check that they are there and can be."""
  count = len(args)
  if not all(-count <= number < count for number in numbers):
    raise ValueError(
      f"argnums is {numbers}, but there are {count} positional arguments; pass what is "
      "to be differentiated by position, not by keyword."
    )
  if len({number % count for number in numbers}) < len(numbers):
    raise ValueError(
      f"argnums is {numbers}, which names one of the {count} arguments twice."
    )
  for number in numbers:
    for path, leaf in jax.tree_util.tree_leaves_with_path(args[number]):
      try:
        found = dtype = jax.typeof(leaf).dtype
      except TypeError:  # a function or a string, which are leaves too
        found, dtype = type(leaf).__name__, None
      if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
          f"argument {number}{jax.tree_util.keystr(path)} is to be differentiated and "
          f"must hold floating-point numbers, got {found}; pass it in an argument that "
          "argnums does not name, or let fun close over it. The parameters of a whole "
          "model: params, static = eqx.partition(model, eqx.is_inexact_array) with "
          "Equinox, graph, params, rest = nnx.split(model, nnx.Param, ...) with "
          "Flax NNX."
        )
  return tuple(args[number] for number in numbers)


def _check_result(result: Any, has_aux: bool) -> None:
  """Refuses what is not a vector of losses, or not a pair of one and something else."""
  if has_aux:
    if not isinstance(result, (list, tuple)) or len(result) != 2:
      raise TypeError(
        "with has_aux=True fun must return a pair (losses, aux), and it does not; "
        "return both, or leave out has_aux."
      )
    result = result[0]
  if not jax.tree_util.all_leaves([result]):
    values = "list(losses.values())" if isinstance(result, Mapping) else "losses"
    raise TypeError(
      f"fun must return one array of losses, got {type(result).__name__}; stack them "
      f"with jnp.stack({values}). has_aux=True is for a fun that returns a pair "
      "(losses, aux)."
    )
  shape, dtype = jnp.shape(result), jnp.result_type(result)
  if len(shape) != 1 or shape[0] < 1:
    raise ValueError(
      f"fun must return a vector of losses, one per task, got the shape {shape}; stack "
      "them with jnp.stack."
    )
  if not jnp.issubdtype(dtype, jnp.floating):
    raise TypeError(f"the losses must be floating-point numbers, got {dtype}.")


def pull_back_each(
  pull_back: Callable[[jax.Array], Any],
  losses: jax.Array,
  batch_size: int = 1,
  unroll: bool | None = None,
) -> Any:
  """The gradient of every loss, stacked, from a pull-back of `jax.vjp`.

  Args:
    pull_back: cotangent float[K] -> gradient, or a part of it.
    losses: float[K], whose pull-back it is.
    batch_size: tasks at a time, 1 to K; a larger number counts as K.
    unroll: see `value_and_task_grads`.

  Returns:
    What `pull_back` returns, each leaf with a leading axis K.

  Example:
    >>> losses, pull_back = jax.vjp(lambda x: jnp.stack([x, x**2]), jnp.float32(3.0))
    >>> print(pull_back_each(lambda cotangent: pull_back(cotangent)[0], losses))
    [1. 6.]
  """
  num_tasks = len(losses)
  cotangents = one_hot(losses)
  if unroll is None:
    unroll = batch_size == 1 and num_tasks <= _MAX_UNROLLED
  if unroll:
    return jax.tree.map(_stack, *map(pull_back, cotangents))

  shapes, structure = jax.tree.flatten(jax.eval_shape(pull_back, cotangents[0]))

  def pull_back_leaves(cotangent: jax.Array) -> list[jax.Array]:
    leaves = jax.tree.leaves(pull_back(cotangent))
    return [leaf for leaf in leaves if leaf.size]  # map cannot reshape empty ones

  # at one a time not even an axis of length 1, with which XLA orders products otherwise
  size = None if batch_size == 1 else min(batch_size, num_tasks)
  mapped = iter(jax.lax.map(pull_back_leaves, cotangents, batch_size=size))
  return structure.unflatten(
    next(mapped) if shape.size else jnp.zeros((num_tasks, *shape.shape), shape.dtype)
    for shape in shapes
  )


def one_hot(losses: jax.Array) -> jax.Array:
  """float[K, K], the cotangents that pick one loss each."""
  # in `shard_map` cotangents must vary as the losses do: so do these zeros
  return jnp.eye(len(losses), dtype=losses.dtype) + jnp.zeros_like(losses)


def _stack(*rows: jax.Array) -> jax.Array:
  # Flat, as a Gramian reads them: else XLA on CPU may stack the same rows twice.
  flat = [flat_if_free(row[None]) for row in rows]
  return jnp.concatenate(flat).reshape(len(rows), *rows[0].shape)
