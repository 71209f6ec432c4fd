"""The two figures of all balancers: delta_m, and delta_m over the time of a step."""

import numpy as np
from matplotlib.figure import Figure

from .drawing import (
  CHARACTER,
  FONT_SIZE,
  INK,
  PAGE,
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
from .statistics import Comparison
from .words import percentage


@drawn("delta-m", "delta_m with its 95% interval, a row per balancer, the best on top")
def delta_m_figure(comparison: Comparison) -> Figure | None:
  """delta_m of every balancer as a dot, with its interval; None without any."""
  if comparison.reference is None:
    return None
  found = [
    (balancer, delta)
    for balancer in comparison.balancers
    if (delta := comparison.delta_m(balancer)) is not None
  ]
  names = [short(balancer, 26) for balancer, _ in found]
  numbers = [percentage(delta) for _, delta in found]
  left = 10 + CHARACTER * max(map(len, names))
  right = 10 + CHARACTER * max(map(len, numbers))
  figure, axes = figure_of(360, 44 + 17 * len(found), (left, right, 34, 6))
  means = np.array([delta.mean for _, delta in found])
  half_widths = np.array([delta.half_width or 0 for _, delta in found])
  ends = np.concatenate([means - half_widths, means + half_widths])
  on_log = is_log(means)
  # an interval may reach below zero, where a logarithm ends
  low, high = limits(
    np.concatenate([means, ends[ends > 0]]) if on_log else ends, on_log
  )
  axes.set_xlim(low, high)
  if on_log:
    make_log(axes, "x")
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
  axes.set_xlabel("delta_m, %" + (", logarithmic" if on_log else ""))
  return figure


@drawn("cost", "delta_m over the time of a step relative to ew, with the Pareto front")
def cost_figure(comparison: Comparison) -> Figure | None:
  """delta_m over the time of a step; None where no balancer has both."""
  if not comparison.pareto_front:
    return None
  found = {
    balancer: (time, delta.mean)
    for balancer, numbers in comparison.balancers.items()
    if (delta := comparison.delta_m(balancer)) and (time := numbers.time_of_ew)
  }
  points = np.array([(time.median, mean) for time, mean in found.values()])
  times = np.array([[time.least, time.largest] for time, _ in found.values()])
  names = [short(balancer, 20) for balancer in found]
  is_on_front = [balancer in comparison.pareto_front for balancer in found]
  colours = [SERIES[0] if each else INK for each in is_on_front]
  right = 16 + CHARACTER * max(map(len, names))
  figure, axes = figure_of(380, 280, (44, right, 34, 10))
  costs, means = points.T
  on_log = is_log(means)
  slow = bool(costs.max() > 3 * costs.min())
  axes.set_xlim(*limits(times, slow))
  axes.set_ylim(*limits(means, on_log))
  if on_log:
    make_log(axes, "y")
  if slow:
    make_log(axes, "x")
  front = [points[[*found].index(balancer)] for balancer in comparison.pareto_front]
  axes.step(*np.array(front).T, where="post", color=SERIES[0], linestyle="--")
  for point, ends, colour, is_filled in zip(
    points, times, colours, is_on_front, strict=True
  ):
    axes.plot(ends, [point[1]] * 2, color=colour, linewidth=0.8)
    marker = "D" if is_filled else "o"
    face = colour if is_filled else PAGE
    axes.plot(*point, marker, color=colour, markerfacecolor=face, markersize=5)
  placed = fractions(axes, points)
  for members in _clusters(placed[:, 0]):
    heights = apart(placed[members, 1], gap=1.15 * FONT_SIZE / 236, low=0, high=1)
    beside = placed[members, 0].max() + 0.06
    for index, height in zip(members, heights, strict=True):
      label_at(axes, placed[index], (beside, height), names[index], colours[index])
  axes.set_xlabel("time of a step / that of ew" + (", logarithmic" if slow else ""))
  axes.set_ylabel("delta_m, %" + (", logarithmic" if on_log else ""))
  return figure


def _clusters(positions: np.ndarray) -> list[np.ndarray]:
  """Indices of points that stand so close that their labels must share a column."""
  order = np.argsort(positions)
  gaps = np.flatnonzero(np.diff(positions[order]) > 0.3)
  return np.split(order, gaps + 1)
