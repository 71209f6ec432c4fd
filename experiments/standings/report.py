"""The report of the league: league.html, league.md, league.csv, and its numbers.

    python -m experiments.standings.report OUT

writes the report of OUT anew from its cells. The numbers go to standings.json.
"""

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from igb_jax.training.run_folder import read_object, write_whole

from ..comparison.estimates import finite_or_none
from ..comparison.markdown import page, section
from ..comparison.report import to_html
from ..comparison.words import listed, versions
from . import figures, tables, words
from .cells import read_all
from .plan import SINGLE, Cell, cells_of
from .statistics import Standings, standings

_TEMPLATE = Path(__file__).with_name("league.html.jinja")


def write_report(out: Path) -> list[Path]:
  """Writes the report; every file is complete, or as it was.

  Returns:
    The files.

  Raises:
    ValueError: a file of the league is damaged.
    OSError: a file cannot be written.
  """
  league = read_object(out / "league.json")
  settings = league["settings"]
  cells = read_all(out)
  left = _left(settings, cells)
  found = standings(cells, {cell.problem for cell in left})
  kinds = {cell["method"]: cell["kind"] for cell in cells}
  content = _content(league, cells, found, kinds, left)
  drawings = {
    "places_figure": figures.places_figure(found, kinds),
    "heat_map": figures.heat_map(found),
    "cost_figure": figures.cost_figure(found, kinds),
    "overall_note": tables.OVERALL_NOTE,
    "problem_note": tables.PROBLEM_NOTE,
  }
  texts = {
    "standings.json": _to_json(found),
    "league.csv": _to_csv(cells, found),
    "league.md": _to_markdown(content),
    "league.html": to_html(_TEMPLATE, content | drawings),
  }
  for name, text in texts.items():
    write_whole(out / name, text)
  return [out / name for name in texts]


def _content(
  league: Mapping[str, Any],
  cells: Sequence[Mapping[str, Any]],
  found: Standings,
  kinds: dict[str, str],
  left: Sequence[Cell],
) -> dict[str, Any]:
  settings = league["settings"]
  unfit = [
    f"{cell['method']} on {cell['problem']}: {cell['unfit']}"
    for cell in cells
    if "unfit" in cell and cell["method"] != SINGLE
  ]
  seeds, others = settings["seeds"], settings["validation_seeds"]
  asked = {*cells_of(settings["problems"], settings["methods"])}
  of_command = sum(cell in asked for cell in left)
  return {
    "title": "The league of task balancers",
    "progress": f"{len(cells)} cells (a method on a problem) are played, {of_command} "
    "of the latest command are missing",
    "is_complete": not of_command,
    "notice": _notice({cell.problem for cell in left}),
    "facts": [
      (
        "Protocol",
        f"the learning rate of each method is chosen among three with {others} seeds "
        f"on validation, then {seeds} other seeds are tested; a cosine to 0",
      ),
      ("Command", league["command"]),
      ("Started", league["started"]),
      ("Machine", "; ".join(dict.fromkeys(cell["machine"] for cell in cells))),
      ("Versions", "; ".join(dict.fromkeys(versions(c["versions"]) for c in cells))),
    ],
    "conclusions": words.conclusions(found, kinds),
    "table": tables.overall(found, kinds),
    "problems": [tables.of_problem(cells, found, name) for name in found.scores],
    "unfit": unfit,
    "limits": words.limits(found, cells),
  }


def _left(
  settings: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]
) -> list[Cell]:
  """What has still to be played, also what earlier commands left of their problems."""
  played = dict.fromkeys(Cell(cell["problem"], cell["method"]) for cell in cells)
  planned = cells_of(settings["problems"], settings["methods"])
  # who plays a problem by default, has played another, and not this one
  usual = cells_of([*dict.fromkeys(cell.problem for cell in played)], None)
  known = {cell.method for cell in played}
  everyone = settings["methods"] is None
  planned += [cell for cell in usual if everyone or cell.method in known]
  return [cell for cell in dict.fromkeys(planned) if cell not in played]


def _notice(unfinished: Collection[str]) -> str | None:
  if not unfinished:
    return None
  verb = "is" if len(unfinished) == 1 else "are"
  return (
    f"{listed(sorted(unfinished))} {verb} not complete: what is there is in tables, "
    "but does not count towards places."
  )


def _to_json(found: Standings) -> str:
  content = dataclasses.asdict(found)
  for name in ("p_values", "verdicts"):
    content[name] = {" | ".join(pair): each for pair, each in content[name].items()}
  return json.dumps(content, indent=1, default=finite_or_none) + "\n"


def _to_csv(cells: Sequence[Mapping[str, Any]], found: Standings) -> str:
  file = io.StringIO()
  columns = ["problem", "method", "kind", "seed", "learning_rate", "score"]
  columns += ["seconds_per_step", "metrics"]
  writer = csv.DictWriter(file, columns, lineterminator="\n")
  writer.writeheader()
  for cell in cells:
    if "unfit" in cell:
      continue
    scores = found.scores.get(cell["problem"], {}).get(cell["method"])
    for seed, metrics in enumerate(cell["test"]):
      writer.writerow(
        {name: cell[name] for name in ("problem", "method", "kind")}
        | {
          "seed": seed,
          "learning_rate": " ".join(map(str, cell["learning_rates"])),
          "score": None if scores is None else scores[seed],
          "seconds_per_step": cell["seconds_per_step"],
          "metrics": " ".join(map(str, metrics)),
        }
      )
  return file.getvalue()


def _to_markdown(content: Mapping[str, Any]) -> str:
  sections = [*section(content["table"]), tables.OVERALL_NOTE]
  for table in content["problems"]:
    sections += [*section(table), tables.PROBLEM_NOTE]
  lists = {"unfit": "Did not take part", "limits": "What it does not show"}
  return page(content, sections, lists)


def main() -> None:
  """Writes the report of the folder that the command line names.

  Raises:
    SystemExit: there is no folder of a league.
  """
  if len(sys.argv) != 2:
    sys.exit(f"usage: python -m {__package__}.report OUT")
  try:
    for path in write_report(Path(sys.argv[1])):
      print(path)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()
