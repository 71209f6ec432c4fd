"""The figures of a comparison, as SVG to stand in a page; see `drawing`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from igb_jax.training.plots import BASE_EPOCH

from .drawing import (
  CHARACTER,
  FONT_SIZE,
  SERIES,
  apart,
  draw,
  figure_of,
  fractions,
  is_log,
  label_at,
  limits,
  make_log,
  short,
)


@dataclasses.dataclass(frozen=True)
class Panel:
  """A figure and what it shows.

  Attributes:
    title: the title of the figure; text, not HTML.
    svg: the figure, HTML.
  """

  title: str
  svg: Markup


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of curves over the epochs.

  Attributes:
    name: its name in the curves.
    label: the label of the axis.
    shared: whether all balancers have one scale.
  """

  name: str
  label: str
  shared: bool = False


WEIGHTS = Kind("weights", "weight of the loss")
GRADIENT_WEIGHTS = Kind("gradient_weights", "weight of the task gradient")
LOSSES = Kind("losses", "training loss", shared=True)
GAPS = Kind("gaps", f"loss / loss of epoch {BASE_EPOCH + 1}", shared=True)


def curve_panels(
  kind: Kind, curves: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
) -> list[Panel]:
  """One small figure a balancer, with a line a task.

  Args:
    kind: the kind of curves.
    curves: balancer -> its curves; one without this kind is left out.
    tasks: names of the tasks.

  Returns:
    The figures, in the order of the balancers.
  """
  arrays = {
    balancer: np.array(each[kind.name], np.float64)
    for balancer, each in curves.items()
    if each.get(kind.name)
  }
  everything = np.concatenate([each.ravel() for each in arrays.values()] or [[]])
  return [
    Panel(
      balancer,
      draw(
        lambda values=values: _curves(
          values, tasks, everything if kind.shared else values
        ),
        f"{kind.name}-{number}",
        f"{kind.label} of each task over the epochs, {balancer}",
      ),
    )
    for number, (balancer, values) in enumerate(arrays.items())
  ]


def is_constant(kind: Kind, curves: Mapping[str, Any]) -> bool:
  """Whether all numbers of a balancer's curves are 1, so that a figure tells nothing.

  Args:
    kind: the kind of curves.
    curves: the curves of one balancer.

  Example:
    >>> is_constant(WEIGHTS, {"weights": [[1.0, 1.0], [1.0, 1.0]]})
    True
  """
  return bool(np.all(np.array(curves[kind.name], np.float64) == 1))


def cosine_panels(
  curves: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
) -> list[Panel]:
  """The cosines of the task gradients in the last epoch, a figure a gradient balancer.

  Args:
    curves: balancer -> its curves.
    tasks: names of the tasks.
  """
  if len(tasks) < 2:
    return []
  return [
    Panel(
      balancer,
      draw(
        lambda each=each: _cosines(np.array(each["gradient_cosines"], float), tasks),
        f"cosines-{number}",
        f"cosines of the task gradients, {balancer}",
      ),
    )
    for number, (balancer, each) in enumerate(curves.items())
    if "gradient_cosines" in each
  ]


def _curves(values: np.ndarray, tasks: Sequence[str], scaled: np.ndarray) -> Figure:
  """A line a task, on a scale that has room for other values too."""
  names = [short(task, 14) for task in tasks]
  right = 12 + CHARACTER * max(map(len, names))
  figure, axes = figure_of(280, 190, (38, right, 30, 10))
  epochs = np.arange(1, len(values) + 1)
  colours = [SERIES[number % len(SERIES)] for number in range(len(tasks))]
  for column, colour in zip(values.T, colours, strict=True):
    marker = "." if len(values) < 3 else None
    axes.plot(epochs, column, color=colour, marker=marker, clip_on=False)
  axes.set_ylim(*limits(scaled, is_log(scaled)))
  if is_log(scaled):
    make_log(axes, "y")
  axes.set_xlim(1, max(len(values), 2))
  axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  axes.set_xlabel("epoch")
  axes.grid(visible=False, axis="x")
  ends = fractions(axes, np.column_stack([np.full(len(tasks), epochs[-1]), values[-1]]))
  known = np.flatnonzero(np.isfinite(ends[:, 1]))
  placed = apart(ends[known, 1], gap=1.05 * FONT_SIZE / 150, low=0, high=1)
  for index, position in zip(known, placed, strict=True):
    label_at(axes, ends[index], (1.06, position), names[index], colours[index])
  return figure


def _cosines(cosines: np.ndarray, tasks: Sequence[str]) -> Figure:
  """The half below the diagonal; blue for agreement, orange for conflict."""
  names = [short(task, 12) for task in tasks]
  margin = 8 + CHARACTER * max(map(len, names))
  number = len(tasks) - 1
  cell = min((300 - margin) / number, 60)
  side = margin + cell * number
  width = max(side + 4, 280)  # as wide as the other figures of a balancer
  figure, axes = figure_of(width, side + 4, (margin, width - side, margin, 4))
  agreement, conflict, *_ = SERIES
  for row in range(number):
    for column in range(row + 1):
      cosine = cosines[row + 1, column]
      if not np.isfinite(cosine):
        continue
      corner = (column - 0.5, row - 0.5)
      colour = agreement if cosine >= 0 else conflict
      opacity = 0.5 * min(abs(cosine), 1)  # the number stays legible
      axes.add_patch(Rectangle(corner, 1, 1, color=colour, alpha=opacity, linewidth=0))
      text = f"{cosine:z.2f}".replace("0.", ".", 1).replace("-", "\N{MINUS SIGN}")
      size = min(FONT_SIZE, 0.38 * cell)
      axes.text(column, row, text, ha="center", va="center", fontsize=size)
  axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5))
  axes.set_xticks(range(number), names[:-1], rotation=90)
  axes.set_yticks(range(number), names[1:])
  axes.tick_params(length=0)
  axes.grid(visible=False)
  return figure
