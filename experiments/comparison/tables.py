"""The tables of a comparison's report, ready to be shown."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .estimates import Estimate, Spread
from .statistics import Comparison, Numbers
from .words import number, percentage

SINGLE_TASK = "stl"
_MISSING = "\N{EN DASH}"


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of the table.

  Attributes:
    title: the title of the column.
    hint: what its numbers are.
    higher_is_better: whether they are accuracies rather than errors; None for neither.
  """

  title: str
  hint: str = ""
  higher_is_better: bool | None = None

  @property
  def arrow(self) -> str:
    """Which way is better."""
    if self.higher_is_better is None:
      return ""
    return " ↑" if self.higher_is_better else " ↓"


@dataclasses.dataclass(frozen=True)
class Cell:
  """A number of the table.

  Attributes:
    text: how it is shown.
    value: the number by which rows are sorted, or None.
    is_best: whether it is the best of its column.
  """

  text: str = _MISSING
  value: float | None = None
  is_best: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table, with the paper's beneath.

  Attributes:
    name: the name of the row.
    cells: one a column.
    paper: what the paper has for it, one a column; None where it has nothing.
  """

  name: str
  cells: list[Cell]
  paper: list[Cell] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
  """A table with a name in front of every row.

  Attributes:
    title: the title of the table.
    columns: without that of the names.
    rows: the rows, in their order.
    fixed: a row that stays on top, or None.
    sorted_by: index of the column by which they are in order, or None.
  """

  title: str
  columns: list[Column]
  rows: list[Row]
  fixed: Row | None = None
  sorted_by: int | None = None


def metrics_table(results: Mapping[str, Any], comparison: Comparison) -> Table:
  """Every balancer's metrics, delta_m, rank, time and memory, with the paper's."""
  columns = [
    Column("seeds"),
    Column("delta_m own", "%, against our single-task runs", False),
    Column("delta_m base", f"%, base: {results['base']}", False),
    Column("mean rank", "", False),
    Column("step time", "in steps of ew, median [least, largest]", False),
    Column("memory", "MiB, peak", False),
    *(
      Column(metric["name"], metric["unit"], metric["higher_is_better"])
      for metric in results["metrics"]
    ),
  ]
  asked = Counter(run["balancer"] for run in results["runs"])
  cells = {
    balancer: _cells(numbers, asked[balancer], results)
    for balancer, numbers in comparison.balancers.items()
  }
  best = [
    _best([row[index].value for row in cells.values()], column.higher_is_better)
    for index, column in enumerate(columns)
  ]
  rows = [
    Row(
      balancer,
      [
        dataclasses.replace(cell, is_best=cell.value is not None and cell.value == top)
        for cell, top in zip(row, best, strict=True)
      ],
      _paper_cells(balancer, results),
    )
    for balancer, row in cells.items()
  ]
  sorted_by = {"own": 1, "base": 2, None: None}[comparison.decides]
  fixed = _single_task_row(results, comparison)
  return Table("All metrics", columns, rows, fixed, sorted_by)


def records_table(results: Mapping[str, Any], comparison: Comparison) -> Table:
  """delta_m of every method in other papers' protocols, beside ours."""
  records = (results.get("published") or {}).get("records") or []
  columns = [Column("here", "%", False)]
  columns += [Column(record["name"], "%", False) for record in records]
  methods = dict.fromkeys(name for record in records for name in record["rows"])
  rows = []
  for name in methods:
    is_here = name in comparison.balancers
    cells = [_delta_m_cell(comparison.delta_m(name)) if is_here else Cell()]
    cells += [
      _plain_cell(record["rows"].get(name, {}).get("delta_m"), "{:.1f}")
      for record in records
    ]
    if any(cell.value is not None for cell in cells):
      rows.append(Row(name, cells))
  return Table("delta_m in the literature", columns, rows)


def differences_table(comparison: Comparison) -> Table:
  """How every balancer differs from the reference."""
  columns = [
    Column("difference", "of delta_m, in points"),
    Column("seeds", "in common"),
    Column("p", "corrected (Holm)"),
    Column("verdict"),
  ]
  rows = []
  for name, each in comparison.differences.items():
    found = each.estimate
    cells = [
      Cell(percentage(found, sign="+"), found.mean) if found else Cell(),
      Cell(str(found.seeds), found.seeds) if found else Cell("0", 0),
      Cell() if each.p_holm is None else Cell(_p_value(each.p_holm), each.p_holm),
      Cell(each.verdict),
    ]
    rows.append(Row(name, cells))
  return Table(f"Differences from {comparison.reference}", columns, rows)


def _best(
  values: Iterable[float | None], higher_is_better: bool | None
) -> float | None:
  known = [value for value in values if value is not None]
  if higher_is_better is None or len(known) < 2:
    return None
  return max(known) if higher_is_better else min(known)


def _cells(numbers: Numbers, asked: int, results: Mapping[str, Any]) -> list[Cell]:
  done = len(numbers.seeds)
  memory = numbers.memory_bytes
  return [
    Cell(str(done) if done == asked else f"{done} of {asked}", done),
    _delta_m_cell(numbers.delta_m_own),
    _delta_m_cell(numbers.delta_m_base),
    _plain_cell(numbers.mean_rank, "{:.2f}"),
    _time_cell(numbers.time_of_ew),
    _plain_cell(None if memory is None else memory / 2**20, "{:.0f}"),
    *(_metric_cell(numbers.metrics.get(each["name"])) for each in results["metrics"]),
  ]


def _single_task_row(results: Mapping[str, Any], comparison: Comparison) -> Row | None:
  paper = _paper_cells(SINGLE_TASK, results)
  found = comparison.baselines
  if not found and paper is None:
    return None
  score = comparison.baselines_delta_m
  cells = [
    Cell(),
    Cell() if score is None else Cell("0.0", 0.0),
    Cell() if score is None else _delta_m_cell(Estimate(score, None, 1)),
    *[Cell()] * 3,
    *(_metric_cell(found.get(each["name"])) for each in results["metrics"]),
  ]
  return Row("one network per task", cells, paper)


def _paper_cells(balancer: str, results: Mapping[str, Any]) -> list[Cell] | None:
  row = ((results.get("published") or {}).get("rows") or {}).get(balancer)
  if row is None:
    return None
  return [
    *[Cell()] * 2,
    _plain_cell(row.get("delta_m"), "{:.1f}"),
    Cell(),
    _plain_cell(row.get("relative_train_time"), "{:.2f}"),
    Cell(),
    *(_plain_cell(row.get(each["name"]), "{:g}") for each in results["metrics"]),
  ]


def _p_value(p: float) -> str:
  return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _plain_cell(value: float | None, form: str) -> Cell:
  if value is None:
    return Cell()
  return Cell(form.format(value).replace("-", "\N{MINUS SIGN}"), value)


def _delta_m_cell(delta_m: Estimate | None) -> Cell:
  return Cell() if delta_m is None else Cell(percentage(delta_m), delta_m.mean)


def _metric_cell(value: Estimate | None) -> Cell:
  if value is None:
    return Cell()
  text = number(value.mean)
  if value.half_width is not None:
    text += f" ± {value.half_width:.2g}"
  return Cell(text, value.mean)


def _time_cell(time: Spread | None) -> Cell:
  if time is None:
    return Cell()
  return Cell(f"{time.median:.2f} [{time.least:.2f}, {time.largest:.2f}]", time.median)
