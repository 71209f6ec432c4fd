"""What the losses and gradients of the tasks are like, before a balancer is chosen.

    losses f32[K], task gradients [K, ...]  ->  norms, cosines, conflicts, condition

The numbers are those that gradient balancers see, so that they can be computed inside
`jax.jit` beside any step. The text is made of them afterwards, on the host.
"""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from igb_jax._hints import DEPENDENT, LARGE_FACTOR, PARALLEL, factor_of, hints
from igb_jax.balancers.checks import check_losses
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import Stacked, TaskGrads
from igb_jax.balancers.solvers import Gramian

_WIDTH = 80  # of the text


class Diagnosis(NamedTuple):
  """What `diagnose` found; a pytree of arrays.

  Attributes:
    losses: f32[K], as they were given.
    norms: f32[K], Euclidean norms of the task gradients, of the shared leaves.
    cosines: f32[K, K], of the angles between them: symmetric, with ones on the
      diagonal. Row and column of a zero gradient are zero, those of one that is not
      finite are NaN.
    conflict_share: f32[], share of the pairs of tasks with a negative cosine.
    condition_number: f32[], largest over smallest eigenvalue of the normalised Gramian,
      that is of the cosines; at most 1 / eps of float32, about 8.4e6. Both leave out
      the gradients that are zero or not finite; without two others they are 0 and 1.
  """

  losses: jax.Array
  norms: jax.Array
  cosines: jax.Array
  conflict_share: jax.Array
  condition_number: jax.Array

  def describe(self, task_names: Sequence[str] | None = None) -> str:
    """What the numbers mean, in a few lines of text.

    It says which task dominates and by which factor, how many pairs conflict, whether
    gradients are nearly dependent, which losses and gradients are zero or not finite,
    and which kind of balancer may help. One batch is a sample: look at several.

    Args:
      task_names: the names of the K tasks; by default "task 0", "task 1", ...

    Raises:
      TypeError: the numbers are traced: this is inside `jax.jit`, `vmap` or the like.
      ValueError: there is more than one diagnosis, or not one name per task.

    Example:
      >>> grads = {"w": jnp.array([[300.0, 400.0], [-4.0, 3.0], [3.0, -4.0]])}
      >>> found = diagnose(jnp.array([90.0, 1.0, 2.0]), grads)
      >>> print(found.describe(["depth", "normal", "edge"]).splitlines()[0])
      losses: depth has the largest (90), normal the smallest (1), a factor of 90:
    """
    if any(isinstance(value, Tracer) for value in self):
      raise TypeError(
        "describe needs numbers, and these are traced: return the Diagnosis from the "
        "function that jax.jit or vmap transforms, and describe it outside."
      )
    shape = np.shape(self.losses)
    if len(shape) != 1:
      raise ValueError(
        f"describe takes one diagnosis, and the losses of this have the shape {shape}; "
        "pick one, as in jax.tree.map(lambda leaf: leaf[0], diagnosis)."
      )
    names = (
      [f"task {k}" for k in range(shape[0])] if task_names is None else [*task_names]
    )
    if len(names) != shape[0]:
      raise ValueError(
        f"task_names must hold {shape[0]} names, one per task, got {len(names)}."
      )
    host = Diagnosis(*(np.asarray(value, np.float64) for value in jax.device_get(self)))  # pyright: ignore[reportArgumentType]
    return "\n".join(
      textwrap.fill(line, _WIDTH, subsequent_indent="  ", break_long_words=False)
      for line in _lines(host, names)
    )


def diagnose(
  losses: jax.typing.ArrayLike, task_grads: Any, *, shared: Shared = None
) -> Diagnosis:
  """Norms, cosines, conflicts and condition of the gradients of K tasks.

  May be called inside `jax.jit`, `vmap` and `scan`: there are no callbacks. Products
  are computed in float32 at `Precision.HIGHEST`, as in the gradient balancers; scales
  of the tasks may differ by any factor that float32 holds.

  Args:
    losses: float[K], one scalar per task.
    task_grads: a pytree with leaves float[K, ...], as `value_and_task_grads` or
      `jax.jacrev` returns it.
    shared: which leaves the tasks share, as gradient balancers take it: a predicate on
      key paths, or a pytree of bools like one task's gradient or a prefix of it; by
      default all. The others are left out: the gradient of a head is of one task, and
      would hide how the tasks meet.

  Returns:
    The diagnosis; its `describe` says in words what the numbers mean.

  Raises:
    TypeError: losses or gradients are not floating-point numbers, or `shared` is not
      of bools.
    ValueError: the losses are not a vector, a leaf has no leading axis K, `shared` does
      not fit the tree, or no leaf is shared.

  Example:
    >>> from igb_jax import value_and_task_grads
    >>> def losses_of(w):
    ...   return jnp.stack([w[0] ** 2, (w[1] - w[0]) ** 2])
    >>> losses, grads = value_and_task_grads(losses_of)(jnp.array([1.0, 3.0]))
    >>> found = diagnose(losses, grads)
    >>> print(found.norms, found.cosines[0, 1], found.conflict_share)
    [2.       5.656854] -0.70710677 1.0
    >>> print(found.describe().partition("hint: ")[0].rstrip())
    losses: task 1 has the largest (4), task 0 the smallest (1), a factor of 4.
    gradients: task 1 has the largest norm (5.66), task 0 the smallest (2), a factor
      of 2.83.
    conflicts: 1 of 1 pairs of tasks have a negative cosine; the worst are task 0
      and task 1 (-0.707).
    condition number of the normalised Gramian: 5.83.
  """
  losses = jnp.asarray(losses)
  if losses.ndim != 1 or not len(losses):
    raise ValueError(
      f"losses must be a vector, one scalar per task, got the shape {losses.shape}; "
      "stack them with jnp.stack."
    )
  num_tasks = len(losses)
  losses = check_losses(losses, num_tasks)
  gramian = TaskGrads(Stacked.of(task_grads, num_tasks, shared).pick(True)).gramian()
  known = gramian.nonzero & jnp.isfinite(gramian.norms)
  pairs = known[:, None] & known
  normalised = Gramian(
    norms=known.astype(jnp.float32), cosines=jnp.where(pairs, gramian.cosines, 0.0)
  )
  return Diagnosis(
    losses=losses,
    norms=gramian.norms,
    cosines=gramian.cosines,
    conflict_share=normalised.conflict_share(known),
    condition_number=normalised.condition_number(known),
  )


def _lines(found: Diagnosis, names: Sequence[str]) -> list[str]:
  """What there is, one fact per line, and what may help."""
  losses, norms = np.asarray(found.losses), np.asarray(found.norms)
  positive = np.flatnonzero(np.isfinite(losses) & (losses > 0))
  known = np.flatnonzero(np.isfinite(norms) & (norms > 0))
  pairs = known[np.stack(np.triu_indices(len(known), 1), axis=1)]
  cosines = np.asarray(found.cosines)[*pairs.T]
  number = float(found.condition_number)
  lines = []
  for what, size, values, among in (
    ("losses", "largest", losses, positive),
    ("gradients", "largest norm", norms, known),
  ):
    if len(among) > 1:
      top, low = among[values[among].argmax()], among[values[among].argmin()]
      factor = factor_of(values[among])
      if factor == 1:
        lines.append(f"{what}: all are {values[top]:.3g}.")
        continue
      lines.append(
        f"{what}: {names[top]} has the {size} ({values[top]:.3g}), {names[low]} the "
        f"smallest ({values[low]:.3g}), a factor of {factor:.3g}"
        + (f": {names[top]} dominates their sum." if factor >= LARGE_FACTOR else ".")
      )
    elif len(among) == 1:
      task = among[0]
      lines.append(f"{what}: {names[task]} alone has {values[task]:.3g}.")
  if len(pairs):
    num_conflicts = int((cosines < 0).sum())
    line = f"conflicts: {num_conflicts} of {len(pairs)} pairs of tasks have a negative "
    line += "cosine"
    if num_conflicts:
      worst = cosines.argmin()
      first, second = (names[task] for task in pairs[worst])
      line += f"; the worst are {first} and {second} ({cosines[worst]:.3g})"
    lines.append(line + ".")
    line = f"condition number of the normalised Gramian: {number:.3g}"
    if number >= DEPENDENT:
      most = np.abs(cosines).argmax()
      first, second = (names[task] for task in pairs[most])
      if abs(cosines[most]) >= PARALLEL:
        how = "parallel" if cosines[most] > 0 else "opposite"
        line += f": {first} and {second} are nearly {how} ({cosines[most]:.6g})"
      else:
        line += ": a gradient is nearly a combination of others, though no two are "
        line += "parallel"
    lines.append(line + ".")
  for what, is_so in (
    ("the loss is not finite", ~np.isfinite(losses)),
    ("the loss is not positive", np.isfinite(losses) & (losses <= 0)),
    ("the gradient is not finite, or too large for float32", ~np.isfinite(norms)),
    ("the gradient is zero", norms == 0),
  ):
    if is_so.any():
      tasks = ", ".join(names[task] for task in np.flatnonzero(is_so).tolist())
      lines.append(f"{what}: {tasks}.")
  found_hints = hints(losses, norms, known, positive, cosines, number)
  return lines + [f"hint: {hint}" for hint in found_hints]
