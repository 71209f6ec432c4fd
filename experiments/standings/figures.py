"""The figures of the league: mean places, methods by problems, and cost."""

import numpy as np
from matplotlib.figure import Figure

from ..comparison.drawing import (
  CHARACTER,
  FAINT,
  FONT_SIZE,
  INK,
  SERIES,
  apart,
  drawn,
  figure_of,
  fractions,
  label_at,
  make_log,
)
from ..comparison.estimates import pareto_front
from .statistics import Standings

_WIDTH = 470.0
_ROW = 1.6 * FONT_SIZE
_COLOURS = {"loss": SERIES[0], "gradient": SERIES[1], "both": SERIES[2]}


def _names_left(order: list[str]) -> float:
  return CHARACTER * max(map(len, order)) + 8


@drawn("places", "Mean place of every method with its interval, best first.")
def places_figure(standings: Standings, kinds: dict[str, str]) -> Figure | None:
  """Mean places with their intervals, and bars over what cannot be told apart.

  Returns:
    None where nobody has a place.
  """
  if not standings.order:
    return None
  order = standings.order
  bars = standings.cliques
  right = 10.0 + 5.0 * len(bars)
  height = _ROW * len(order) + 45
  figure, axes = figure_of(_WIDTH, height, (_names_left(order), right, 35, 10))
  for row, name in enumerate(order):
    place, colour = standings.place[name], _COLOURS[kinds[name]]
    axes.plot([place.low, place.high], [row, row], color=colour, linewidth=1)
    axes.plot(place.mean, row, "o", color=colour, markersize=4)
  inner = _WIDTH - _names_left(order) - right
  for index, (first, last) in enumerate(bars):
    x = 1 + (6 + 5 * index) / inner
    axes.plot(
      [x, x],
      [first - 0.3, last + 0.3],
      transform=axes.get_yaxis_transform(),
      color=INK,
      linewidth=1.5,
      clip_on=False,
    )
  axes.set_yticks(range(len(order)), order)
  axes.set_ylim(len(order) - 0.5, -0.5)
  axes.set_xlim(0, 100)
  axes.set_xlabel("mean place (0: always first, 100: always last)")
  return figure


@drawn("heat", "Places of all methods on all problems.")
def heat_map(standings: Standings) -> Figure | None:
  """Every method's place on every problem; None where nobody has one."""
  if not standings.order:
    return None
  order, problems = standings.order, [*standings.places]
  values = np.array(
    [
      [
        standings.places[problem].get(name, np.array(np.nan)).mean()
        for problem in problems
      ]
      for name in order
    ]
  )
  top = CHARACTER * max(map(len, problems)) * 0.8 + 8
  height = _ROW * len(order) + top + 8
  figure, axes = figure_of(_WIDTH, height, (_names_left(order), 0.5 * top, 8, top))
  axes.imshow(values, cmap="RdYlBu_r", vmin=0, vmax=100, aspect="auto")
  for (row, column), value in np.ndenumerate(values):
    text = f"{value:.0f}" if np.isfinite(value) else ""
    dark = not 25 < value < 75
    axes.text(
      column,
      row,
      text,
      ha="center",
      va="center",
      color="white" if dark else "black",
      fontsize=0.8 * FONT_SIZE,
    )
  axes.grid(visible=False)
  axes.set_yticks(range(len(order)), order)
  axes.set_xticks(range(len(problems)), problems, rotation=60, ha="left")
  axes.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False)
  return figure


@drawn("cost", "Mean place over the time of a step, with the Pareto front.")
def cost_figure(standings: Standings, kinds: dict[str, str]) -> Figure | None:
  """Mean place over the time of a step; None where nothing was timed beside ew."""
  times = standings.mean_times()
  if not times:
    return None
  points = {name: (time, standings.place[name].mean) for name, time in times.items()}
  front = pareto_front(points)
  figure, axes = figure_of(_WIDTH, 320, (45, 100, 40, 10))
  for name, point in points.items():
    axes.plot(*point, "o", color=_COLOURS[kinds[name]], markersize=4)
  make_log(axes, "x")
  axes.set_xlabel("time of a step, in steps of ew")
  axes.set_ylabel("mean place")
  along = np.array([points[name] for name in front])
  axes.step(*along.T, where="post", color=FAINT, linestyle="--", zorder=0)
  at = fractions(axes, along)
  heights = apart(at[:, 1], gap=1.3 * FONT_SIZE / 270, low=0, high=1)
  for name, point, height in zip(front, at, heights, strict=True):
    label_at(axes, point, (1.02, float(height)), name, _COLOURS[kinds[name]])
  return figure
