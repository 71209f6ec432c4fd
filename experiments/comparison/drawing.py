"""How the figures of a comparison are drawn: style, axes, and names beside lines.

Every figure is narrow enough for a phone and scales with the page. Its text stays text,
in the font of the page, and its colours are those of the page: `var(--ink)`,
`var(--faint)` and `var(--series-1)` to `var(--series-6)`, which the page may set for a
dark theme. Lines and points carry their names, so that nothing hangs on colour alone.
"""

import functools
import io
import re
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.optimize import isotonic_regression

_Given = ParamSpec("_Given")
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
FONT_SIZE = 9.0
CHARACTER = 0.57 * FONT_SIZE  # mean width, in points
_STYLE: dict[Any, Any] = {
  "svg.fonttype": "none",
  "svg.hashsalt": "igb_jax",
  "text.parse_math": False,  # a name may hold a dollar
  "font.size": FONT_SIZE,
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


def drawn(
  name: str, label: str
) -> Callable[[Callable[_Given, Figure | None]], Callable[_Given, Markup | None]]:
  """A decorator that has what makes a figure, or None, return it as SVG, or None.

  Args:
    name: the name of the figure, with which the names in it begin.
    label: a description for those who do not see it.
  """

  def decorate(
    make: Callable[_Given, Figure | None],
  ) -> Callable[_Given, Markup | None]:
    @functools.wraps(make)
    def draw(*args: _Given.args, **kwargs: _Given.kwargs) -> Markup | None:
      with matplotlib.rc_context(_STYLE):
        figure = make(*args, **kwargs)
        return None if figure is None else _to_svg(figure, name, label)

    return draw

  return decorate


def _to_svg(figure: Figure, name: str, label: str) -> Markup:
  """In the style of the page."""
  file = io.StringIO()
  nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
  figure.savefig(file, format="svg", metadata=nothing, transparent=True)
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


def figure_of(
  width: float, height: float, margins: tuple[float, float, float, float]
) -> tuple[Figure, Axes]:
  """A figure of so many points with margins left, right, bottom and top."""
  left, right, bottom, top = margins
  figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
  inner = (width - left - right) / width, (height - bottom - top) / height
  return figure, figure.add_axes((left / width, bottom / height, *inner))


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


def label_at(
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


def fractions(axes: Axes, points: np.ndarray) -> np.ndarray:
  """Points of the data in fractions of the axes, float[N, 2]."""
  return axes.transAxes.inverted().transform(axes.transData.transform(points))


def is_log(values: np.ndarray) -> bool:
  """Whether the values differ so much that small ones would not be told apart."""
  values = values[np.isfinite(values)]
  return bool(values.size and values.min() > 0 and values.max() > 10 * values.min())


def limits(values: np.ndarray, log: bool) -> tuple[float, float]:
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


def make_log(axes: Axes, which: str) -> None:
  """Makes one of the axes, "x" or "y", logarithmic, with few ticks."""
  axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
  low, high = sorted(axis.get_view_interval())
  {"x": axes.set_xscale, "y": axes.set_yscale}[which]("log")
  steps = (1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)
  few = high < 4 * low  # hardly more than a factor: too few ticks
  axis.set_major_locator(MaxNLocator(5) if few else LogLocator(subs=steps))
  axis.set_minor_locator(NullLocator())
  axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def short(name: str, length: int) -> str:
  """A name that takes so many characters at most."""
  return name if len(name) <= length else name[: length - 1] + "…"
