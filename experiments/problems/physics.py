"""What physics-informed problems share: a tanh net, its derivatives, and their task.

A net u(x, y) learns a differential equation from three losses, mean squares of errors
at points drawn once: of the equation inside the domain, and of u on parts of its edge.
All parameters are shared, since each of the losses depends on every one.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.training.array_task import ArrayTask
from igb_jax.training.problem import TaskMetric
from igb_jax.training.step import Params

NUM_ROWS = {"train": 3200, "validation": 3200, "test": 6400}
FIRST_SCALE = 2.0

Layers = Sequence[dict[str, jax.Array]]
Rows = dict[str, Any]


class Derivatives(NamedTuple):
  """A function u(x, y) at B points, with its derivatives; None where none was asked.

  Attributes:
    u: f32[B], the function.
    x: f32[B], its first derivative by the first coordinate.
    xx: f32[B], the second.
    y: f32[B], its first derivative by the second coordinate.
    yy: f32[B], the second.
  """

  u: Any
  x: Any = None
  xx: Any = None
  y: Any = None
  yy: Any = None


def init_layers(key: jax.Array, widths: Sequence[int]) -> Layers:
  """Glorot-normal kernels and biases of 0, except in the first layer.

  There both are normal, of deviation `FIRST_SCALE`: a net that starts almost linear
  takes long to learn a solution that oscillates.

  Args:
    key: of the draws.
    widths: the numbers of coordinates, of units of each hidden layer, and of outputs.
  """
  first, *others = jax.random.split(key, len(widths) - 1)
  kernel, bias = jnp.split(FIRST_SCALE * jax.random.normal(first, (3, widths[1])), [2])
  glorot = jax.nn.initializers.glorot_normal()
  shapes = itertools.pairwise(widths[1:])
  return [
    {"kernel": kernel, "bias": bias[0]},
    *(
      {"kernel": glorot(each, shape), "bias": jnp.zeros(shape[1])}
      for each, shape in zip(others, shapes, strict=True)
    ),
  ]


def differentiate(
  layers: Layers, points: jax.Array, orders: tuple[int, int] = (0, 0)
) -> Derivatives:
  """A tanh net and its derivatives, carried forward through the layers together.

  Args:
    layers: as `init_layers` makes them.
    points: f32[B, 2], where.
    orders: the highest derivative by each coordinate, 0 to 2.
  """
  # carried is f32[streams, B, width]: u, then u_x, u_xx and so on, as far as wanted
  wanted = [(axis, order) for axis in (0, 1) for order in range(1, orders[axis] + 1)]
  starts = [jnp.zeros(2).at[axis].set(order == 1) for axis, order in wanted]
  carried = jnp.stack([points, *(jnp.broadcast_to(s, points.shape) for s in starts)])
  *hidden, last = layers
  for layer in hidden:
    inputs = carried @ layer["kernel"]
    tanh = jnp.tanh(inputs[0] + layer["bias"])
    slope = 1 - tanh**2
    streams = [tanh]
    for stream, (_, order) in enumerate(wanted, start=1):
      change = slope * inputs[stream]
      if order == 2:  # the stream before it is the first derivative
        change -= 2 * tanh * slope * inputs[stream - 1] ** 2
      streams.append(change)
    carried = jnp.stack(streams)
  u, *others = (carried @ last["kernel"])[..., 0]
  names = {(0, 1): "x", (0, 2): "xx", (1, 1): "y", (1, 2): "yy"}
  return Derivatives(
    u + last["bias"][0],
    **{names[each]: other for each, other in zip(wanted, others, strict=True)},
  )


def make_physics_task(
  name: str,
  task_names: tuple[str, str, str],
  widths: Sequence[int],
  draw: Callable[[np.random.Generator, int], dict[str, np.ndarray]],
  errors: Callable[[Layers, Rows], tuple[jax.Array, jax.Array, jax.Array]],
) -> ArrayTask:
  """The task of a net that solves an equation.

  Args:
    name: of the equation.
    task_names: of the residual, then of two conditions on the edge.
    widths: of the net, see `init_layers`.
    draw: N rows, which hold points `interior` with the solution there, `exact`, and
      what `errors` needs.
    errors: what should be 0 at each row: the residual, and both conditions.
  """

  def losses(params: Params, batch: Rows) -> jax.Array:
    each = errors(params["shared"], batch)
    return jnp.stack([jnp.mean(error**2) for error in each])

  def measures(params: Params, split: Rows) -> jax.Array:
    layers, exact = params["shared"], split["exact"]
    error = differentiate(layers, split["interior"]).u - exact
    relative = 100 * jnp.linalg.norm(error) / jnp.linalg.norm(exact)
    return jnp.stack([relative, *jnp.sqrt(losses(params, split)[1:])])

  splits = {
    split: jax.tree.map(np.float32, draw(np.random.default_rng(seed), count))
    for seed, (split, count) in enumerate(NUM_ROWS.items())
  }
  return ArrayTask(
    name=name,
    task_names=task_names,
    metrics=(
      TaskMetric("relative L2 error", "%", task_names[0]),
      *(TaskMetric(f"{task} error", "", task) for task in task_names[1:]),
    ),
    **splits,
    init=lambda key: {"shared": init_layers(key, widths), "heads": {}},
    losses=losses,
    measures=measures,
  )
