"""The report of a comparison as Markdown."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .tables import Cell, Column, Table


def to_markdown(content: Mapping[str, Any]) -> str:
  """The page."""
  published = content["published"]
  parts = section(content["table"])
  parts.append(
    "Mean ± half-width of the 95% interval over seeds; ↓ lower is better, ↑ higher is "
    "better; bold: the best of the column. The plots are in report.html."
  )
  if published:
    parts.append(
      "† Another protocol, and delta_m against the paper's own single-task networks; "
      "not comparable number by number: "
      f"{escaped(published['protocol'])}. Source: {escaped(published['source'])}."
    )
  if content["records"].rows:
    parts += section(content["records"])
    parts.append(
      "Each in its own protocol, against its own single-task networks: "
      + " ".join(
        f"{escaped(each['name'])}: {escaped(each['protocol'])} "
        f"({escaped(each['source'])})."
        for each in published["records"]
      )
    )
  if content["differences"].rows:
    parts += section(content["differences"])
  if content["failed"]:
    parts.append("## Failed runs")
    for name, lines in content["failed"]:
      # indented text is shown as it is, whatever it holds
      quoted = "".join(f"    {line}\n" for line in lines.splitlines())
      parts += [f"{escaped(name)}:", quoted.rstrip("\n") or "    (no output)"]
  lists = {
    "missing": "Missing runs",
    "problems": "Curves that could not be read",
    "limits": "Limits",
    "notes": "Notes",
  }
  return page(content, parts, lists)


def page(
  content: Mapping[str, Any], sections: Iterable[str], lists: Mapping[str, str]
) -> str:
  """The page of a comparison or of the league.

  Args:
    content: what it says.
    sections: what is between its conclusions and its lists.
    lists: key of sentences in the content -> their title; without any it is left out.
  """
  notice = content["notice"]
  parts = [
    f"# {escaped(content['title'])}",
    escaped(content["progress"]) + ".",
    *([f"**{escaped(notice)}**"] if notice else []),
    _bullets(f"{name}: {text}" for name, text in content["facts"]),
    *map(escaped, content["conclusions"]),
    *sections,
  ]
  for name, title in lists.items():
    if content[name]:
      parts += [f"## {title}", _bullets(content[name])]
  return "\n\n".join(parts) + "\n"


def _bullets(lines: Iterable[str]) -> str:
  return "\n".join(f"* {escaped(line)}" for line in lines)


def section(table: Table) -> list[str]:
  """A table below its title."""
  lines = [["balancer", *(_heading(column) for column in table.columns)]]
  lines.append(["---", *["---:"] * len(table.columns)])
  for row in [table.fixed, *table.rows] if table.fixed else table.rows:
    lines.append([escaped(row.name), *map(_markdown_cell, row.cells)])
    if row.paper:
      lines.append(
        [
          "*paper †, other protocol*",
          *(f"*{escaped(cell.text)}*" for cell in row.paper),
        ]
      )
  text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
  return [f"## {escaped(table.title)}", text]


def _heading(column: Column) -> str:
  hint = f" ({column.hint})" if column.hint else ""
  return escaped(column.title + hint) + column.arrow


def _markdown_cell(cell: Cell) -> str:
  return f"**{escaped(cell.text)}**" if cell.is_best else escaped(cell.text)


def escaped(text: str) -> str:
  """One line of Markdown in which nothing is markup."""
  return re.sub(r"([\\`*<>\[\]|#]|\b_|_\b)", r"\\\1", " ".join(text.split()))
