"""The figures of a comparison, as SVG to stand in a page.

Every figure is narrow enough for a phone and scales with the page. Its text stays text,
in the font of the page, and its colours are those of the page: `var(--ink)`,
`var(--faint)` and `var(--series-1)` to `var(--series-6)`, which the page may set for a
dark theme. Lines and points carry their names, so that nothing hangs on colour alone.
"""

import dataclasses
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.optimize import isotonic_regression

from igb_jax.training.plots import BASE_EPOCH

from .statistics import Comparison
from .words import percentage

INK = "#1c2126"
FAINT = "#c3c9cf"
PAGE = "#fefefe"  # not the white that a figure may hold otherwise
SERIES = ("#0b62a4", "#a34d00", "#1b7a3d", "#7b3fa0", "#b3213b", "#00707a")
_VARIABLES = {
  INK: "--ink",
  FAINT: "--faint",
  PAGE: "--page",
  **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)},
}
_POINTS_PER_INCH = 72
_FONT = "DejaVu Sans"
_FONT_SIZE = 9.0
_CHARACTER = 0.57 * _FONT_SIZE  # mean width, in points
_STYLE: dict[Any, Any] = {
  "svg.fonttype": "none",
  "svg.hashsalt": "igb_jax",
  "text.parse_math": False,  # a name may hold a dollar
  "font.size": _FONT_SIZE,
  "font.family": _FONT,
  "text.color": INK,
  "axes.edgecolor": FAINT,
  "axes.labelcolor": INK,
  "axes.linewidth": 0.8,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "grid.color": FAINT,
  "grid.linewidth": 0.5,
  "grid.alpha": 0.6,
  "axes.axisbelow": True,
  "xtick.color": FAINT,
  "ytick.color": FAINT,
  "xtick.labelcolor": INK,
  "ytick.labelcolor": INK,
  "lines.linewidth": 1.4,
  "lines.solid_capstyle": "round",
}


@dataclasses.dataclass(frozen=True)
class Panel:
  """A figure and what it shows.

  Attributes:
    title: of the figure; text, not HTML.
    svg: the figure, HTML.
  """

  title: str
  svg: Markup


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of curves over the epochs.

  Attributes:
    name: of it in the curves.
    label: of the axis.
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
    kind: which curves.
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
      _draw(
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
    kind: which curves.
    curves: of one balancer.

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
      _draw(
        lambda each=each: _cosines(np.array(each["gradient_cosines"], float), tasks),
        f"cosines-{number}",
        f"cosines of the task gradients, {balancer}",
      ),
    )
    for number, (balancer, each) in enumerate(curves.items())
    if "gradient_cosines" in each
  ]


def delta_m_figure(comparison: Comparison) -> Markup | None:
  """delta_m of every balancer as a dot, with its interval.

  Args:
    comparison: the numbers.

  Returns:
    SVG, or None without any delta_m.
  """
  if comparison.reference is None:
    return None
  label = "delta_m with its 95% interval, a row a balancer, the best on top"
  return _draw(lambda: _dots(comparison), "delta-m", label)


def cost_figure(comparison: Comparison) -> Markup | None:
  """delta_m over the time of a step, with the Pareto front.

  Args:
    comparison: the numbers.

  Returns:
    SVG, or None where no balancer has both.
  """
  if not comparison.pareto_front:
    return None
  label = "delta_m over the time of a step relative to ew, with the Pareto front"
  return _draw(lambda: _cost(comparison), "cost", label)


def _draw(make: Callable[[], Figure], name: str, label: str) -> Markup:
  with matplotlib.rc_context(_STYLE):
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    make().savefig(file, format="svg", metadata=nothing, transparent=True)
  svg = file.getvalue()
  svg = svg[svg.index("<svg") :]
  # several figures stand in one page, each with a figure_1 in it
  svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
  # the page says how large the figure is
  svg = re.sub(
    r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg, flags=re.DOTALL
  )
  svg = svg.replace(f"font-family: '{_FONT}'", "font-family: inherit")
  for colour, variable in _VARIABLES.items():
    svg = svg.replace(colour, f"var({variable}, {colour})")
  named = f'<svg role="img" aria-label="{escape(label)}" '
  return Markup(svg.replace("<svg ", named, 1))


def _figure(
  width: float, height: float, margins: tuple[float, float, float, float]
) -> tuple[Figure, Axes]:
  """A figure of so many points with margins left, right, bottom and top."""
  left, right, bottom, top = margins
  figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
  inner = (width - left - right) / width, (height - bottom - top) / height
  return figure, figure.add_axes((left / width, bottom / height, *inner))


def _curves(values: np.ndarray, tasks: Sequence[str], scaled: np.ndarray) -> Figure:
  """A line a task, on a scale that has room for other values too."""
  names = [_short(task, 14) for task in tasks]
  right = 12 + _CHARACTER * max(map(len, names))
  figure, axes = _figure(280, 190, (38, right, 30, 10))
  epochs = np.arange(1, len(values) + 1)
  colours = [SERIES[number % len(SERIES)] for number in range(len(tasks))]
  for column, colour in zip(values.T, colours, strict=True):
    marker = "." if len(values) < 3 else None
    axes.plot(epochs, column, color=colour, marker=marker, clip_on=False)
  axes.set_ylim(*_limits(scaled, _is_log(scaled)))
  if _is_log(scaled):
    _make_log(axes, "y")
  axes.set_xlim(1, max(len(values), 2))
  axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  axes.set_xlabel("epoch")
  axes.grid(visible=False, axis="x")
  ends = _fractions(
    axes, np.column_stack([np.full(len(tasks), epochs[-1]), values[-1]])
  )
  known = np.flatnonzero(np.isfinite(ends[:, 1]))
  placed = apart(ends[known, 1], gap=1.05 * _FONT_SIZE / 150, low=0, high=1)
  for index, position in zip(known, placed, strict=True):
    _label(axes, ends[index], (1.06, position), names[index], colours[index])
  return figure


def _cosines(cosines: np.ndarray, tasks: Sequence[str]) -> Figure:
  """The half below the diagonal; blue for agreement, orange for conflict."""
  names = [_short(task, 12) for task in tasks]
  margin = 8 + _CHARACTER * max(map(len, names))
  number = len(tasks) - 1
  cell = min((300 - margin) / number, 60)
  side = margin + cell * number
  width = max(side + 4, 280)  # as wide as the other figures of a balancer
  figure, axes = _figure(width, side + 4, (margin, width - side, margin, 4))
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
      size = min(_FONT_SIZE, 0.38 * cell)
      axes.text(column, row, text, ha="center", va="center", fontsize=size)
  axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5))
  axes.set_xticks(range(number), names[:-1], rotation=90)
  axes.set_yticks(range(number), names[1:])
  axes.tick_params(length=0)
  axes.grid(visible=False)
  return figure


def _dots(comparison: Comparison) -> Figure:
  found = [
    (balancer, delta)
    for balancer in comparison.balancers
    if (delta := comparison.delta_m(balancer)) is not None
  ]
  names = [_short(balancer, 26) for balancer, _ in found]
  numbers = [percentage(delta) for _, delta in found]
  left = 10 + _CHARACTER * max(map(len, names))
  right = 10 + _CHARACTER * max(map(len, numbers))
  figure, axes = _figure(360, 44 + 17 * len(found), (left, right, 34, 6))
  means = np.array([delta.mean for _, delta in found])
  half_widths = np.array([delta.half_width or 0 for _, delta in found])
  ends = np.concatenate([means - half_widths, means + half_widths])
  is_log = _is_log(means)
  # an interval may reach below zero, where a logarithm ends
  low, high = _limits(
    np.concatenate([means, ends[ends > 0]]) if is_log else ends, is_log
  )
  axes.set_xlim(low, high)
  if is_log:
    _make_log(axes, "x")
  elif low < 0 < high:
    axes.axvline(0, color=INK, linewidth=0.8)
  for row, (balancer, delta) in enumerate(found):
    colour = SERIES[0] if balancer == comparison.reference else INK
    if delta.half_width:
      lower = max(delta.mean - delta.half_width, low)
      upper = delta.mean + delta.half_width
      axes.plot([lower, upper], [row, row], color=colour)
    face = colour if delta.seeds > 1 else PAGE
    marker = "D" if balancer == comparison.reference else "o"
    axes.plot(delta.mean, row, marker, color=colour, markerfacecolor=face, markersize=5)
    axes.annotate(
      numbers[row],
      (1, row),
      (6, 0),
      xycoords=("axes fraction", "data"),
      textcoords="offset points",
      va="center_baseline",
    )
  axes.set_ylim(len(found) - 0.5, -0.5)
  axes.set_yticks(range(len(found)), names)
  axes.tick_params(axis="y", length=0)
  axes.spines["left"].set_visible(False)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel("delta_m, %" + (", logarithmic" if is_log else ""))
  return figure


def _cost(comparison: Comparison) -> Figure:
  found = [
    (balancer, time, delta)
    for balancer, numbers in comparison.balancers.items()
    if (delta := comparison.delta_m(balancer)) and (time := numbers.time_of_ew)
  ]
  costs = np.array([time.median for _, time, _ in found])
  means = np.array([delta.mean for *_, delta in found])
  names = [_short(balancer, 20) for balancer, *_ in found]
  right = 16 + _CHARACTER * max(map(len, names))
  figure, axes = _figure(380, 280, (44, right, 34, 10))
  is_log = _is_log(means)
  slow = bool(costs.max() > 3 * costs.min())
  times = np.array([[time.least, time.largest] for _, time, _ in found])
  axes.set_xlim(*_limits(times, slow))
  axes.set_ylim(*_limits(means, is_log))
  if is_log:
    _make_log(axes, "y")
  if slow:
    _make_log(axes, "x")
  front = [
    (cost, mean)
    for balancer in comparison.pareto_front
    for (each, *_), cost, mean in zip(found, costs, means, strict=True)
    if each == balancer
  ]
  axes.step(*zip(*front, strict=True), where="post", color=SERIES[0], linestyle="--")
  for (balancer, time, _), mean in zip(found, means, strict=True):
    is_on_front = balancer in comparison.pareto_front
    colour = SERIES[0] if is_on_front else INK
    axes.plot([time.least, time.largest], [mean, mean], color=colour, linewidth=0.8)
    axes.plot(
      time.median,
      mean,
      "D" if is_on_front else "o",
      color=colour,
      markerfacecolor=colour if is_on_front else PAGE,
      markersize=5,
    )
  points = _fractions(axes, np.column_stack([costs, means]))
  for members in _clusters(points[:, 0]):
    heights = apart(points[members, 1], gap=1.15 * _FONT_SIZE / 236, low=0, high=1)
    beside = points[members, 0].max() + 0.06
    for index, height in zip(members, heights, strict=True):
      is_on_front = found[index][0] in comparison.pareto_front
      colour = SERIES[0] if is_on_front else INK
      _label(axes, points[index], (beside, height), names[index], colour)
  axes.set_xlabel("time of a step / that of ew" + (", logarithmic" if slow else ""))
  axes.set_ylabel("delta_m, %" + (", logarithmic" if is_log else ""))
  return figure


def apart(positions: np.ndarray, *, gap: float, low: float, high: float) -> np.ndarray:
  """Moves positions as little as possible until no two are closer than a gap.

  Args:
    positions: float[N], where labels should stand.
    gap: the least distance; less where they would not fit between the limits.
    low: the lower limit.
    high: the upper limit.

  Returns:
    float[N], where they stand, in the same order.

  Example:
    >>> apart(np.array([0.5, 0.5, 0.0]), gap=0.25, low=0.0, high=1.0).tolist()
    [0.375, 0.625, 0.0]
  """
  if not len(positions):
    return positions
  order = np.argsort(positions, kind="stable")
  gap = min(gap, (high - low) / max(len(order) - 1, 1))
  steps = gap * np.arange(len(order))
  placed = np.empty(len(order))
  # what is left once the gaps are taken out need only not decrease
  fitted = isotonic_regression(positions[order] - steps).x
  placed[order] = np.clip(fitted, low, high - steps[-1]) + steps
  return placed


def _clusters(positions: np.ndarray) -> list[np.ndarray]:
  """Indices of points that stand so close that their labels must share a column."""
  order = np.argsort(positions)
  gaps = np.flatnonzero(np.diff(positions[order]) > 0.3)
  return np.split(order, gaps + 1)


def _label(
  axes: Axes,
  point: np.ndarray,
  place: tuple[float, float],
  text: str,
  colour: str,
) -> None:
  """Text beside a point, with a thin line to it; both in fractions of the axes."""
  axes.annotate(
    text,
    tuple(point),
    place,
    xycoords="axes fraction",
    textcoords="axes fraction",
    va="center",
    color=colour,
    annotation_clip=False,
    arrowprops={
      "arrowstyle": "-",
      "color": colour,
      "linewidth": 0.5,
      "shrinkA": 0,
      "shrinkB": 3,
      "relpos": (0, 0.5),
    },
  )


def _fractions(axes: Axes, points: np.ndarray) -> np.ndarray:
  return axes.transAxes.inverted().transform(axes.transData.transform(points))


def _is_log(values: np.ndarray) -> bool:
  """Whether the values differ so much that small ones would not be told apart."""
  values = values[np.isfinite(values)]
  return bool(values.size and values.min() > 0 and values.max() > 10 * values.min())


def _limits(values: np.ndarray, log: bool) -> tuple[float, float]:
  """A little more than the values take; above zero where the axis is logarithmic."""
  values = values[np.isfinite(values)]
  if not values.size:
    return 0.0, 1.0
  low, high = float(values.min()), float(values.max())
  if log:
    margin = max((high / low) ** 0.05, 1.05)
    return low / margin, high * margin
  margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
  return low - margin, high + margin


def _make_log(axes: Axes, which: str) -> None:
  axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
  low, high = sorted(axis.get_view_interval())
  {"x": axes.set_xscale, "y": axes.set_yscale}[which]("log")
  steps = (1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)
  few = high < 4 * low  # hardly more than a factor: too few ticks
  axis.set_major_locator(MaxNLocator(5) if few else LogLocator(subs=steps))
  axis.set_minor_locator(NullLocator())
  axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _short(name: str, length: int) -> str:
  return name if len(name) <= length else name[: length - 1] + "…"
