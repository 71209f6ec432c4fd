"""The figures of a comparison, as SVG to stand in a page; see `drawing`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
  drawn,
  figure_of,
  fractions,
  is_log,
  label_at,
  limits,
  make_log,
  short,
)
from .words import listed


class Kind(NamedTuple):
  """A kind of curves over the epochs.

  Attributes:
    title: the title of its figures.
    name: its name in the curves.
    label: the label of the axis.
    caption: what the figures show.
    shared: whether all balancers have one scale.
  """

  title: str
  name: str
  label: str
  caption: str
  shared: bool = False


KINDS = (
  Kind(
    "Task weights",
    "weights",
    "weight of the loss",
    "Each balancer has its own scale.",
  ),
  Kind(
    "Weights of the task gradients",
    "gradient_weights",
    "weight of the task gradient",
    "What gradient balancers make of them; each has its own scale.",
  ),
  Kind(
    "Training losses",
    "losses",
    "training loss",
    "All balancers have one scale.",
    shared=True,
  ),
  Kind(
    "Improvable gaps",
    "gaps",
    f"loss / loss of epoch {BASE_EPOCH + 1}",
    f"What is left of the loss of epoch {BASE_EPOCH + 1}; less is better. All "
    "balancers have one scale.",
    shared=True,
  ),
)
Group = tuple[str, str, dict[str, Markup | None]]  # title, caption, balancer -> figure


def figure_groups(
  curves: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
) -> list[Group]:
  """Small figures of one kind, one per balancer; kinds that nobody has are left out.

  Args:
    curves: balancer -> its curves.
    tasks: names of the tasks.
  """
  groups = [_curve_group(kind, curves, tasks) for kind in KINDS]
  groups.append(
    (
      "Cosines of the task gradients",
      "In the last epoch, for gradient balancers; a negative cosine is a conflict.",
      cosine_panels(curves, tasks),
    )
  )
  return [group for group in groups if group[2] or "Not drawn" in group[1]]


def _curve_group(
  kind: Kind, curves: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
) -> Group:
  """One line per task; balancers whose numbers are 1 throughout are named instead."""
  caption = kind.caption
  arrays = {
    balancer: np.array(each[kind.name], np.float64)
    for balancer, each in curves.items()
    if each.get(kind.name)
  }
  constant = [name for name, each in arrays.items() if np.all(each == 1)]
  if constant and not kind.shared:
    caption += f" Not drawn, since they are 1 throughout: {listed(constant)}."
    arrays = {name: each for name, each in arrays.items() if name not in constant}
  everything = np.concatenate([each.ravel() for each in arrays.values()] or [[]])
  panels = {
    balancer: drawn(
      f"{kind.name}-{number}",
      f"{kind.label} of each task over the epochs, {balancer}",
    )(_curves)(values, tasks, everything if kind.shared else values)
    for number, (balancer, values) in enumerate(arrays.items())
  }
  return kind.title, caption, panels


def cosine_panels(
  curves: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
) -> dict[str, Markup | None]:
  """Cosines of the task gradients in the last epoch, a figure a gradient balancer."""
  if len(tasks) < 2:
    return {}
  return {
    balancer: drawn(f"cosines-{number}", f"cosines of the task gradients, {balancer}")(
      _cosines
    )(np.array(each["gradient_cosines"], float), tasks)
    for number, (balancer, each) in enumerate(curves.items())
    if "gradient_cosines" in each
  }


def _curves(values: np.ndarray, tasks: Sequence[str], scaled: np.ndarray) -> Figure:
  """One line per task, on a scale that has room for other values too."""
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
