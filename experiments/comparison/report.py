"""The report of a comparison: results.json, results.csv, report.md and report.html.

    python -m experiments.comparison.report FOLDER

writes the report of FOLDER anew from its results.json.
"""

import csv
import dataclasses
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from igb_jax.training.run_folder import read_object, write_whole

from . import figures, overview, words
from .curves import read_curves
from .markdown import to_markdown
from .statistics import (
  Comparison,
  baseline_metrics,
  compare,
  delta_m_against,
  is_done,
)
from .tables import (
  SINGLE_TASK,
  differences_table,
  metrics_table,
  records_table,
)

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write_report(folder: Path, results: dict[str, Any]) -> list[Path]:
  """Writes the report; every file is complete, or as it was.

  Args:
    folder: the folder of the comparison; the folders of the runs are below it.
    results: the results of the comparison; runs may be missing or failed.

  Returns:
    The files: results.json (the results and a part "comparison": what is computed from
    them, and the curves), results.csv (a row per run), report.md and report.html.

  Raises:
    ValueError: a number is not finite.
    OSError: a file cannot be written.
  """
  comparison = compare(results)
  curves, problems = read_curves(folder, results)
  computed = dataclasses.asdict(comparison) | {"curves": curves}
  content = _content(results, comparison, problems)
  drawings = {
    "delta_m_figure": overview.delta_m_figure(comparison),
    "cost_figure": overview.cost_figure(comparison),
    "figure_groups": figures.figure_groups(
      {name: curves[name] for name in comparison.balancers if name in curves},
      results["tasks"],
    ),
  }
  texts = {
    "results.json": _to_json(results | {"comparison": computed}),
    "results.csv": _to_csv(results),
    "report.md": to_markdown(content),
    "report.html": to_html(_TEMPLATE, content | drawings),
  }
  for name, text in texts.items():
    write_whole(folder / name, text)
  return [folder / name for name in texts]


def _to_json(results: Mapping[str, Any]) -> str:
  text = json.dumps(results, indent=2, allow_nan=False)
  # a list of numbers takes one line; within a string there is no line break
  return re.sub(r'\[\n[^\[\]{}"]*\]', lambda found: _on_one_line(found[0]), text) + "\n"


def _on_one_line(numbers: str) -> str:
  return "[" + " ".join(numbers[1:-1].split()) + "]"


def _to_csv(results: Mapping[str, Any]) -> str:
  metrics = [metric["name"] for metric in results["metrics"]]
  own = {name: value.mean for name, value in baseline_metrics(results).items()}
  facts = [
    "epochs",
    "best_epoch",
    "num_steps",
    "train_seconds",
    "skipped_steps",
    "folder",
  ]
  file = io.StringIO()
  columns = ["balancer", "task", "seed", "status", "delta_m_own", "delta_m_base"]
  writer = csv.DictWriter(file, [*columns, *metrics, *facts], lineterminator="\n")
  writer.writeheader()
  base = {metric["name"]: metric["base"] for metric in results["metrics"]}
  for run in [*results["baselines"], *results["runs"]]:
    row = {"balancer": run.get("balancer", SINGLE_TASK), "task": run.get("task")}
    row |= {name: run.get(name) for name in ("seed", "status", *facts)}
    if is_done(run):
      row |= run["test"]
      if "balancer" in run:
        for kind, against in (("own", own), ("base", base)):
          score = delta_m_against(run["test"], against, results["metrics"])
          row[f"delta_m_{kind}"] = score
    writer.writerow(row)
  return file.getvalue()


def _content(
  results: Mapping[str, Any], comparison: Comparison, problems: Sequence[str]
) -> dict[str, Any]:
  """What both pages say."""
  runs = [*results["baselines"], *results["runs"]]
  counts = Counter(run["status"] for run in runs)
  progress = f"{counts['done']} of {len(runs)} runs done"
  for kind in ("failed", "missing"):
    if counts[kind]:
      progress += f", {counts[kind]} {kind}"
  return {
    "title": f"Task balancers on {results['dataset']}",
    "progress": progress,
    "is_complete": counts["done"] == len(runs),
    "notice": results.get("notice"),
    "facts": _facts(results),
    "conclusions": words.conclusions(results, comparison),
    "table": metrics_table(results, comparison),
    "published": results.get("published"),
    "records": records_table(results, comparison),
    "differences": differences_table(comparison),
    "failed": [
      (_name_of(run), run.get("last_lines") or "")
      for run in runs
      if run["status"] == "failed"
    ],
    "missing": [_name_of(run) for run in runs if run["status"] == "missing"],
    "problems": problems,
    "limits": words.limits(results, comparison),
    "notes": results.get("notes") or [],
  }


def _name_of(run: Mapping[str, Any]) -> str:
  name = run.get("balancer") or f"single task {run['task']}"
  return f"{name}, seed {run['seed']}"


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
  config = results["config"].items()
  options = [(name, value) for name, value in config if value is not None]
  return [
    ("Data", f"{results['dataset']}: {results['description']}"),
    ("Protocol", words.protocol(results)),
    ("Command", results["command"]),
    ("Started", results["started"]),
    ("Machine", results["machine"]),
    ("Versions", words.versions(results["versions"])),
    ("Options", ", ".join(f"{name} {_plain(value)}" for name, value in options)),
  ]


def _plain(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value)


def to_html(template: Path, content: Mapping[str, Any]) -> str:
  """A page.

  Args:
    template: its template, beside which others may lie, or in this folder.
    content: what it says.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template(template.name).render(content)


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes the report of a folder anew.

  Raises:
    SystemExit: there is no folder with results.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  if len(arguments) != 1:
    sys.exit(f"usage: python -m {__package__}.report FOLDER")
  folder = Path(arguments[0])
  try:
    results = read_object(folder / "results.json")
  except (OSError, ValueError) as error:
    sys.exit(f"error: {folder} has no results.json of a comparison: {error}")
  for path in write_report(folder, results):
    print(path)


if __name__ == "__main__":
  main()
