"""The report of a comparison as Markdown."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .tables import Cell, Column, Table


def to_markdown(content: Mapping[str, Any]) -> str:
  """The page.

  Args:
    content: what both pages say.
  """
  parts = [f"# {_escaped(content['title'])}", _escaped(content["progress"]) + "."]
  if content["notice"]:
    parts.append(f"**{_escaped(content['notice'])}**")
  parts.append(_bullets(f"{name}: {text}" for name, text in content["facts"]))
  parts += map(_escaped, content["conclusions"])
  table, published = content["table"], content["published"]
  parts += [f"## {table.title}", _markdown_table(table)]
  parts.append(
    "Mean ± half-width of the 95% interval over seeds; ↓ lower is better, ↑ higher is "
    "better; bold: the best of the column. The plots are in report.html."
  )
  if published:
    parts.append(
      "† Another protocol, and delta_m against the paper's own single-task networks; "
      "not comparable number by number: "
      f"{_escaped(published['protocol'])}. Source: {_escaped(published['source'])}."
    )
  if content["records"].rows:
    parts += [f"## {content['records'].title}", _markdown_table(content["records"])]
    parts.append(
      "Each in its own protocol, against its own single-task networks: "
      + " ".join(
        f"{_escaped(each['name'])}: {_escaped(each['protocol'])} "
        f"({_escaped(each['source'])})."
        for each in published["records"]
      )
    )
  if content["differences"].rows:
    differences = content["differences"]
    parts += [f"## {_escaped(differences.title)}", _markdown_table(differences)]
  if content["failed"]:
    parts.append("## Failed runs")
    for name, lines in content["failed"]:
      # indented text is shown as it is, whatever it holds
      quoted = "".join(f"    {line}\n" for line in lines.splitlines())
      parts += [f"{_escaped(name)}:", quoted.rstrip("\n") or "    (no output)"]
  for title, name in (
    ("Missing runs", "missing"),
    ("Curves that could not be read", "problems"),
    ("Limits", "limits"),
    ("Notes", "notes"),
  ):
    if content[name]:
      parts += [f"## {title}", _bullets(content[name])]
  return "\n\n".join(parts) + "\n"


def _bullets(lines: Iterable[str]) -> str:
  return "\n".join(f"* {_escaped(line)}" for line in lines)


def _markdown_table(table: Table) -> str:
  lines = [["balancer", *(_heading(column) for column in table.columns)]]
  lines.append(["---", *["---:"] * len(table.columns)])
  for row in [table.fixed, *table.rows] if table.fixed else table.rows:
    lines.append([_escaped(row.name), *map(_markdown_cell, row.cells)])
    if row.paper:
      lines.append(
        [
          "*paper †, other protocol*",
          *(f"*{_escaped(cell.text)}*" for cell in row.paper),
        ]
      )
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _heading(column: Column) -> str:
  hint = f" ({column.hint})" if column.hint else ""
  return _escaped(column.title + hint) + column.arrow


def _markdown_cell(cell: Cell) -> str:
  return f"**{_escaped(cell.text)}**" if cell.is_best else _escaped(cell.text)


def _escaped(text: str) -> str:
  """One line of Markdown in which nothing is markup."""
  return re.sub(r"([\\`*<>\[\]|#]|\b_|_\b)", r"\\\1", " ".join(text.split()))
