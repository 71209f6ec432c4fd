"""The tables of the league."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..comparison.tables import Cell, Column, Row, Table
from ..comparison.words import number
from .statistics import SIMILAR, Against, Standings, places_of_ranked

OVERALL_NOTE = (
  "A place is 0 for the best of all methods on a problem and a seed, and 100 for the "
  "last; those that tie share the mean of their places. The mean is over problems, its "
  "interval from a bootstrap of problems and seeds. Wins and losses are problems with "
  "a p-value below 0.05, corrected for the problems of a pair. At equal time ew is "
  "trained for one, two, four or eight times the steps, whichever takes the most "
  f"similar time; a problem on which that differs by more than a factor of {SIMILAR} "
  "does not count."
)
PROBLEM_NOTE = (
  "Median over seeds that were finite [least, largest]. "
  "Failed: runs that were not finite + runs no better than the trivial solution."
)


def overall(standings: Standings, kinds: Mapping[str, str]) -> Table:
  """All methods, by their mean place."""
  columns = [
    Column("mean place", higher_is_better=False),
    Column("interval"),
    Column("problems"),
    Column("balances"),
    Column("time", "in steps of ew", False),
    Column("against ew", "wins, ties, losses"),
    Column("against si", "wins, ties, losses"),
    Column("against ew", "at equal time"),
    Column("failed", "runs"),
  ]
  times = standings.mean_times()
  rows = []
  for name in standings.order:
    place = standings.place[name]
    failed = sum(
      sum(standings.failures(problem, name))
      for problem in standings.finished
      if name in standings.scores[problem]
    )
    rows.append(
      Row(
        name,
        [
          Cell(f"{place.mean:.0f}", place.mean, name == standings.order[0]),
          Cell(f"{place.low:.0f} to {place.high:.0f}", place.low),
          Cell(f"{place.problems}", place.problems),
          Cell({"both": "losses, gradients"}.get(kinds[name], kinds[name])),
          Cell(f"{times[name]:.2f}", times[name]) if name in times else Cell(),
          _against_cell(standings.against(name, "ew")),
          _against_cell(standings.against(name, "si")),
          _against_cell(standings.against(name, "ew", equal_time=True)),
          Cell(f"{failed}" if failed else "", failed),
        ],
      )
    )
  return Table("All methods", columns, rows, sorted_by=0)


def of_problem(
  cells: Sequence[Mapping[str, Any]], standings: Standings, problem: str
) -> Table:
  """The methods on a problem, by their mean place."""
  here = {
    cell["method"]: cell
    for cell in cells
    if cell["problem"] == problem and "unfit" not in cell
  }
  facts = next(iter(here.values()))
  judged_by, metrics = facts["judged_by"], facts["metrics"]
  scores = standings.scores[problem]
  # forty columns tell nobody anything
  shown = range(len(metrics) if len(metrics) <= 6 else 0)
  own = {"delta_m": ("delta_m", "%"), "mean": (f"mean of {len(metrics)}", "")}
  columns = [Column("place", higher_is_better=False)]
  if judged_by in own:
    columns.append(Column(*own[judged_by], higher_is_better=False))
  columns += [
    Column(metrics[index], facts["units"][index], facts["higher_is_better"][index])
    for index in shown
  ]
  columns += [
    Column("learning rate"),
    Column("time", "in steps of ew", False),
    Column("failed", "runs"),
  ]
  places = places_of_ranked(scores)
  place = {name: float(each.mean()) for name, each in places.items()}
  rows = []
  for name in sorted(here, key=lambda name: place.get(name, np.inf)):
    cell = here[name]
    tests = np.array(cell["test"], np.float64)
    ranked = problem in standings.places and name in place
    cells_of_row = [Cell(f"{place[name]:.0f}", place[name]) if ranked else Cell()]
    cells_of_row += [_median_cell(scores.get(name))] if judged_by in own else []
    cells_of_row += [_median_cell(tests[:, index]) for index in shown]
    time = standings.time_of_ew.get(problem, {}).get(name)
    failed = standings.failures(problem, name) if name in scores else (0, 0)
    cells_of_row += [
      Cell(" ".join(f"{rate:g}" for rate in dict.fromkeys(cell["learning_rates"]))),
      Cell() if time is None else Cell(f"{time:.2f}", time),
      Cell("+".join(map(str, failed)) if any(failed) else "", sum(failed)),
    ]
    rows.append(Row(name, cells_of_row))
  return Table(f"{problem}, {facts['num_tasks']} tasks", columns, rows)


def _median_cell(values: np.ndarray | None) -> Cell:
  """The median over finite runs, between the least and the largest."""
  finite = [] if values is None else values[np.isfinite(values)]
  if not len(finite):
    return Cell()
  median, least, largest = np.median(finite), min(finite), max(finite)
  return Cell(f"{number(median)} [{number(least)}, {number(largest)}]", float(median))


def _against_cell(against: Against | None) -> Cell:
  if against is None:
    return Cell()
  return Cell(
    f"{against.wins}, {against.ties}, {against.losses}", against.wins - against.losses
  )
