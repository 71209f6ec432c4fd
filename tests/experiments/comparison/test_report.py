"""The files of the report, for whole comparisons and for those under way."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from experiments.comparison import figures, report
from experiments.comparison.curves import read_curves
from experiments.comparison.datasets import DATASETS
from experiments.comparison.report import write_report
from experiments.comparison.statistics import compare
from experiments.comparison.tables import records_table
from experiments.qm9 import SINGLE_TASK_ERRORS
from igb_jax import scene_tasks
from igb_jax.data import qm9
from tests.experiments.comparison.made_up import (
  EPOCHS,
  GRADIENT,
  METRICS,
  PROBE,
  TASKS,
  fail,
  lose,
  made_up,
)

MISSING = "\N{EN DASH}"


class Page(HTMLParser):
  """What a page has: texts of the rows and headings, ids, and tags with attributes."""

  VOID = frozenset({"meta", "link", "br"})

  def __init__(self, text: str):
    super().__init__()
    self.tags: list[tuple[str, dict[str, str | None]]] = []
    self.open: list[str] = []
    self.rows: list[list[str]] = []
    self.headings: list[str] = []
    self.scripts: list[str] = []
    self.command = ""
    self.feed(text)
    assert self.open == [], "a tag is not closed"

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)
    if tag == "tr":
      self.rows.append([])
    elif tag in ("td", "th"):
      self.rows[-1].append("")
    elif tag in ("h2", "h3"):
      self.headings.append("")

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if "td" in self.open or "th" in self.open:
      self.rows[-1][-1] += data
    if self.open and self.open[-1] in ("h2", "h3"):
      self.headings[-1] += data
    if "code" in self.open:
      self.command += data
    if "script" in self.open:
      self.scripts.append(data)

  def row(self, name: str) -> list[str]:
    return next(row for row in self.rows if row[0].strip() == name)


def page_of(folder: Path) -> Page:
  return Page((folder / "report.html").read_text())


def test_writes_four_files_and_nothing_else(tmp_path):
  paths = write_report(tmp_path, made_up(tmp_path))
  names = ["results.json", "results.csv", "report.md", "report.html"]
  assert paths == [tmp_path / name for name in names]
  assert {path.name for path in tmp_path.iterdir()} == {*names, "runs"}


def test_an_earlier_report_stays_whole_where_the_new_one_fails(tmp_path, monkeypatch):
  results = made_up(tmp_path)
  paths = write_report(tmp_path, results)
  before = [path.read_bytes() for path in paths]

  def break_down(*_):
    raise OSError("No space left on device")

  monkeypatch.setattr("os.replace", break_down)
  with pytest.raises(OSError, match="No space"):
    write_report(tmp_path, results | {"dataset": "other"})
  assert [path.read_bytes() for path in paths] == before


def test_a_number_that_is_not_finite_is_refused(tmp_path):
  results = made_up(tmp_path)
  results["timing"]["ew"]["seconds"] = [float("nan")]
  with pytest.raises(ValueError, match="not JSON compliant"):
    write_report(tmp_path, results)
  assert not (tmp_path / "results.json").exists()


def test_the_same_results_give_the_same_bytes(tmp_path):
  results = made_up(tmp_path)
  first = [path.read_bytes() for path in write_report(tmp_path, results)]
  assert [path.read_bytes() for path in write_report(tmp_path, results)] == first


def test_the_json_has_the_results_and_what_was_computed(tmp_path):
  results = made_up(tmp_path)
  write_report(tmp_path, results)
  text = (tmp_path / "results.json").read_text()
  found = json.loads(text)
  computed = found.pop("comparison")
  assert found == results
  expected = compare(results)
  assert computed["best"] == expected.best
  assert computed["differences"]["ew"]["p_holm"] == expected.differences["ew"].p_holm
  assert computed["curves"].keys() == {"ew", "si", "igbv1", "nashmtl"}
  assert re.search(r'"of_ew": \[0\.98, 1\.02, 1\.0\]', text)  # numbers on one line


def test_lists_on_one_line_leave_texts_alone(tmp_path):
  results = made_up(tmp_path)
  fail(results["runs"][0], 'shape [\n  2,\n  3\n] of "[ 1,  2 ]" {')
  write_report(tmp_path, results)
  found = json.loads((tmp_path / "results.json").read_text())
  assert found["runs"] == results["runs"]


def test_the_csv_has_a_row_a_run(tmp_path):
  results = made_up(tmp_path)
  fail(results["runs"][0], "boom, and\nmore")
  write_report(tmp_path, results)
  with (tmp_path / "results.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == len(results["runs"]) + len(results["baselines"])
  assert [row["task"] for row in rows[:3]] == list(TASKS)
  assert rows[0]["balancer"] == "stl"
  assert (float(rows[0]["mu"]), rows[0]["alpha"]) == (0.4, "")
  assert (rows[3]["status"], rows[3]["mu"]) == ("failed", "")
  last, run = rows[-1], results["runs"][-1]
  assert (last["balancer"], last["seed"]) == ("nashmtl", "2")
  for metric in METRICS:
    assert float(last[metric["name"]]) == run["test"][metric["name"]]
  deltas = [float(row["delta_m_own"]) for row in rows if row["balancer"] == "nashmtl"]
  estimate = compare(results).balancers["nashmtl"].delta_m_own
  assert estimate is not None
  assert np.mean(deltas) == pytest.approx(estimate.mean)


def test_the_page_has_everything_in_it(tmp_path):
  results = made_up(tmp_path)
  write_report(tmp_path, results)
  text, page = (tmp_path / "report.html").read_text(), page_of(tmp_path)
  assert page.command == results["command"]
  for each in ("machine", "notice", "description", "started"):
    assert results[each] in text
  assert "jax 0.10.2" in text
  assert "12 of 12" not in text
  assert "15 of 15 runs done" in text
  for _, attributes in page.tags:
    for name in ("src", "href", "xlink:href"):
      assert (attributes.get(name) or "#").startswith(("#", "data:"))
  assert not re.search(r"@import|url\((?!#)", text)
  assert '<meta name="viewport" content="width=device-width' in text
  assert "prefers-color-scheme: dark" in text


def test_the_table_has_means_intervals_and_the_papers_rows(tmp_path):
  results = made_up(tmp_path)
  write_report(tmp_path, results)
  page = page_of(tmp_path)
  numbers = compare(results).balancers["igbv1"]
  assert numbers.delta_m_own is not None
  assert numbers.delta_m_base is not None
  row = page.row("igbv1")
  assert row[1] == "3"
  deltas = (numbers.delta_m_own, numbers.delta_m_base)
  for cell, delta in zip(row[2:4], deltas, strict=True):
    assert cell == f"{delta.mean:.1f} ± {delta.half_width:.1f}"
  assert row[5] == "1.00 [0.98, 1.02]"
  assert row[6] == "302"
  mu = numbers.metrics["mu"]
  assert row[7] == f"{mu.mean:.4f} ± {mu.half_width:.2g}"
  below = page.rows[page.rows.index(row) + 1]
  assert below[0].split() == ["paper†", "other", "protocol"]
  assert below[2:] == [MISSING, "17.1", MISSING, "1.01", MISSING, "0.61", "2.5", "77"]
  below = page.rows[page.rows.index(page.row("si")) + 1]
  assert below[3] == "77.8"
  assert below[7:] == [MISSING] * 3
  below = page.rows[page.rows.index(page.row("nashmtl")) + 1]
  assert "paper" not in below[0]
  single = page.row("one network a task")
  assert single[2:4] == ["0.0", "\N{MINUS SIGN}6.7"]
  assert single[7:] == ["0.4000", "1.600", "64.00"]


def test_the_columns_say_their_units_and_which_way_is_better(tmp_path):
  write_report(tmp_path, made_up(tmp_path))
  header = page_of(tmp_path).rows[0]
  assert [cell.strip() for cell in header[-3:]] == ["mu ↓D", "alpha ↓bohr^3", "acc ↑%"]
  assert header[3].strip() == "delta_m base ↓%, base: paper"


def test_every_figure_is_there_with_ids_of_its_own(tmp_path):
  balancers = {"ew": 3.0, "igbv1": 2.0, "nashmtl": 1.2, "igbv1+nashmtl": 1.1}
  results = made_up(tmp_path, balancers=balancers)
  write_report(tmp_path, results)
  text, page = (tmp_path / "report.html").read_text(), page_of(tmp_path)
  drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
  labels = [attributes["aria-label"] or "" for attributes in drawings]
  # ew and nashmtl have loss weights of 1, which is said and not drawn
  assert sum("weight of the loss" in label for label in labels) == 2
  assert "throughout: nashmtl and ew" in " ".join(text.split())
  assert sum("weight of the task gradient" in label for label in labels) == 2
  assert sum(label.startswith("training loss") for label in labels) == 4
  assert sum(label.startswith("loss / loss of epoch 2") for label in labels) == 4
  assert sum(label.startswith("cosines") for label in labels) == 2
  assert sum(label.startswith("delta_m") for label in labels) == 2
  assert len(labels) == 16
  assert all(attributes["viewbox"] for attributes in drawings)
  ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
  assert len(ids) == len(set(ids))
  for target in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text):
    assert "".join(target) in ids


def test_the_text_of_figures_is_text_in_the_colours_of_the_page(tmp_path):
  write_report(tmp_path, made_up(tmp_path))
  text = (tmp_path / "report.html").read_text()
  drawings = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
  for drawing in drawings:
    assert (
      ">epoch</text>" in drawing
      or "delta_m, %" in drawing
      or ">.alpha<" in (drawing.replace(">alpha<", ">.alpha<"))
    )
    assert "var(--ink" in drawing
    assert "DejaVu" not in drawing
    assert "metadata" not in drawing
  assert "Matplotlib" not in text


def test_names_and_lines_are_text_and_never_markup(tmp_path):
  name = f"{PROBE}$x$|&*a*`b`"
  # its runs are not in a folder of that name
  results = made_up(tmp_path, balancers={"ew": 2.0, "probe": 1.5})
  for run in results["runs"]:
    if run["balancer"] == "probe":
      run["balancer"] = name
  results["timing"][name] = results["timing"].pop("probe")
  for each in ("notice", "command", "machine", "description", "dataset"):
    results[each] = f"{each} {PROBE}"
  results["notes"] = [PROBE]
  results["published"]["protocol"] = PROBE
  fail(results["runs"][0], f"Traceback\n{PROBE}\n```\n</pre>")
  write_report(tmp_path, results)
  page = page_of(tmp_path)
  assert page.row(name)
  assert sum(tag == "script" for tag, _ in page.tags) == 1
  assert "run over" not in "".join(page.scripts)
  text = (tmp_path / "report.html").read_text()
  assert "<script>alert" not in text
  assert text.count("&lt;script&gt;alert") > 10
  markdown = (tmp_path / "report.md").read_text()
  outside_code = re.sub(r"^    .*$", "", markdown, flags=re.MULTILINE)
  assert "alert" in outside_code
  assert not re.search(r"(?<!\\)[<>`]", outside_code)
  assert f"    {PROBE}\n    ```\n    </pre>" in markdown
  table = [line for line in markdown.splitlines() if line.startswith("| ")]
  assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table[:6]}) == 1


def test_the_markdown_has_the_same_numbers(tmp_path):
  results = made_up(tmp_path)
  write_report(tmp_path, results)
  markdown = (tmp_path / "report.md").read_text()
  page = page_of(tmp_path)
  row = next(line for line in markdown.splitlines() if line.startswith("| igbv1 |"))
  cells = [cell.strip(" *") for cell in row.strip("|").split("|")]
  assert cells == [
    cell.replace("[", "\\[").replace("]", "\\]") for cell in page.row("igbv1")
  ]
  assert markdown.count("| *paper †, other protocol* |") == 3
  assert "## Limits" in markdown
  assert "## Failed runs" not in markdown


def test_failed_and_missing_runs_are_said(tmp_path):
  results = made_up(tmp_path)
  fail(results["runs"][1], "ValueError: the loss of mu is NaN")
  lose(results["runs"][5])
  fail(results["baselines"][0], "killed")
  write_report(tmp_path, results)
  text, page = (tmp_path / "report.html").read_text(), page_of(tmp_path)
  assert "12 of 15 runs done, 2 failed, 1 missing" in text
  assert "ValueError: the loss of mu is NaN" in text
  assert "ew, seed 1" in page.headings
  assert "single task mu, seed 0" in page.headings
  assert "<li>si, seed 2</li>" in text
  assert page.row("ew")[1] == "2 of 3"
  assert "our own single-task runs lack mu" in " ".join(text.split())
  assert page.row("one network a task")[7] == MISSING
  for heading in ("Failed runs", "Missing runs"):
    assert f"## {heading}" in (tmp_path / "report.md").read_text()


def test_the_paragraph_says_who_cannot_be_told_apart(tmp_path):
  results = made_up(tmp_path)
  write_report(tmp_path, results)
  text = " ".join((tmp_path / "report.md").read_text().split())
  assert "nashmtl has the lowest" in text
  assert "nashmtl can be told apart from every other" in text
  assert "Worse than nashmtl: igbv1, si and ew." in text
  assert "nashmtl is also the best for its cost" in text

  balancers = {"ew": 3.0, "si": 1.2, "nashmtl": 1.165}
  results = made_up(tmp_path / "b", balancers=balancers)
  write_report(tmp_path / "b", results)
  text = " ".join((tmp_path / "b" / "report.md").read_text().split())
  assert "From nashmtl cannot be told apart: si." in text
  assert "Worse than nashmtl: ew." in text
  assert "Best for its cost is si: of nashmtl and those that cannot be told" in text


@pytest.mark.parametrize(
  "change",
  ["nothing ran", "one seed", "one balancer", "one of each", "no baselines",
   "no timing", "no files", "no published", "only one task", "zero base"],
)  # fmt: skip
def test_is_written_whatever_is_there(tmp_path, change):
  balancers = {"igbv1": 2.0} if change in ("one balancer", "one of each") else None
  one_task = change == "only one task"
  results = made_up(
    tmp_path,
    balancers=balancers,
    seeds=[0] if change in ("one seed", "one of each") else [0, 1, 2],
    tasks=TASKS[:1] if one_task else TASKS,
    metrics=METRICS[:1] if one_task else METRICS,
  )
  if change == "nothing ran":
    for run in [*results["runs"], *results["baselines"]]:
      lose(run)
    results["timing"] = {}
  elif change == "no baselines":
    results["baselines"] = []
  elif change == "no timing":
    results["timing"] = {}
  elif change == "no files":
    for run in results["runs"]:
      (tmp_path / run["folder"] / "metrics.jsonl").unlink()
  elif change == "no published":
    results["published"] = None
  elif change == "zero base":
    results["baselines"] = []
    results["metrics"][0]["base"] = 0.0
  write_report(tmp_path, results)
  page = page_of(tmp_path)
  expected = {
    "nothing ran": "nothing can be said",
    "one seed": "Too few seeds to tell: igbv1",
    "one balancer": "the only balancer with results",
    "one of each": "the only balancer with results",
    "no baselines": "against the base (paper)",
    "no timing": "cannot be said: too few seeds, or times of a step are missing",
    "no files": "No such file",
    "no published": "nashmtl has the lowest",
    "only one task": "nashmtl has the lowest",
    "zero base": "nothing can be said",
  }[change]
  assert expected in " ".join((tmp_path / "report.html").read_text().split())
  drawings = sum(tag == "svg" for tag, _ in page.tags)
  without_figures = {"nothing ran": 0, "no files": 2, "zero base": 11}
  if change in without_figures:
    assert drawings == without_figures[change]
  assert ("paper†" in str(page.rows)) == (change not in ("no published"))


def test_the_report_is_written_anew_without_the_runs(tmp_path, capsys):
  write_report(tmp_path / "a", made_up(tmp_path / "a"))
  (tmp_path / "b").mkdir()
  (tmp_path / "b" / "results.json").write_bytes(
    (tmp_path / "a" / "results.json").read_bytes()
  )
  report.main([str(tmp_path / "b")])
  assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "b" / "report.html")
  before, after = page_of(tmp_path / "a"), page_of(tmp_path / "b")
  drawings = [sum(tag == "svg" for tag, _ in page.tags) for page in (before, after)]
  assert drawings[0] == drawings[1]
  assert "could not be read" not in str(after.headings)


def test_writing_anew_needs_results(tmp_path):
  with pytest.raises(SystemExit, match=r"no results\.json of a comparison"):
    report.main([str(tmp_path)])
  with pytest.raises(SystemExit, match="usage"):
    report.main([])


def test_curves_are_means_over_the_seeds(tmp_path):
  results = made_up(tmp_path)
  curves, problems = read_curves(tmp_path, results)
  assert problems == []
  runs = [
    [
      json.loads(line)
      for line in (tmp_path / f"runs/nashmtl/seed{seed}/metrics.jsonl")
      .read_text()
      .splitlines()
    ]
    for seed in range(3)
  ]
  losses = np.array(
    [[list(line["losses"].values()) for line in lines] for lines in runs]
  )
  found = curves["nashmtl"]
  assert np.array(found["losses"]) == pytest.approx(losses.mean(axis=0), rel=1e-4)
  gaps = (losses / losses[:, 1:2]).mean(axis=0)
  assert np.array(found["gaps"]) == pytest.approx(gaps, rel=1e-4)
  cosines = np.mean([lines[-1]["gradient_cosines"] for lines in runs], axis=0)
  assert np.array(found["gradient_cosines"]) == pytest.approx(
    cosines, rel=1e-3, abs=1e-5
  )
  assert "gradient_cosines" not in curves["igbv1"]


def test_a_task_without_labels_has_no_curve(tmp_path):
  results = made_up(tmp_path, balancers={"ew": 2.0}, seeds=[0])
  path = tmp_path / "runs/ew/seed0/metrics.jsonl"
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line in lines:
    line["losses"]["mu"] = None
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  curves, problems = read_curves(tmp_path, results)
  assert problems == []
  assert [row[0] for row in curves["ew"]["gaps"]] == [None] * EPOCHS
  write_report(tmp_path, results)
  assert (tmp_path / "report.html").exists()


def test_damaged_curves_are_left_out_and_named(tmp_path):
  results = made_up(tmp_path, balancers={"ew": 2.0, "si": 1.0})
  (tmp_path / "runs/ew/seed1/metrics.jsonl").write_text('{"epoch": 0, "lo')
  (tmp_path / "runs/si/seed0/metrics.jsonl").write_text("")
  curves, problems = read_curves(tmp_path, results)
  assert [problem.split(":")[0] for problem in problems] == ["ew, seed 1", "si, seed 0"]
  assert len(curves["ew"]["losses"]) == EPOCHS


def test_labels_do_not_touch():
  random = np.random.default_rng(0)
  for number in (1, 2, 5, 11):
    for _ in range(50):
      wanted = random.uniform(-0.2, 1.2, size=number)
      placed = figures.apart(wanted, gap=0.08, low=0.0, high=1.0)
      assert (np.diff(np.sort(placed)) >= 0.08 - 1e-9).all()
      assert placed.min() >= -1e-9
      assert placed.max() <= 1 + 1e-9
      assert (np.argsort(placed) == np.argsort(wanted)).all()
  crowded = figures.apart(np.zeros(30), gap=0.08, low=0.0, high=1.0)
  assert np.sort(crowded) == pytest.approx(np.linspace(0, 1, 30))
  assert figures.apart(np.zeros(0), gap=0.1, low=0.0, high=1.0).size == 0


def test_the_papers_rows_have_our_names():
  published = json.loads((Path(report.__file__).parent / "published.json").read_text())
  more = {"delta_m", "relative_train_time"}
  assert "UAI 2023" in published["source"]
  for dataset, metrics in (("qm9", qm9.TARGETS), ("nyuv2", scene_tasks.METRICS)):
    rows = published[dataset]["rows"]
    assert published[dataset]["protocol"]
    for name, row in rows.items():
      assert set(row) <= {*metrics, *more}
      assert name in ("si", "stl") or set(row) == {*metrics, *more}
  for value, base in zip(
    (published["qm9"]["rows"]["stl"][name] for name in qm9.TARGETS),
    SINGLE_TASK_ERRORS,
    strict=True,
  ):
    assert value == pytest.approx(base, rel=5e-3)


def test_records_have_our_names_and_stand_beside_our_numbers(tmp_path):
  content = json.loads((Path(report.__file__).parent / "published.json").read_text())
  known = {"qm9": {*qm9.TARGETS}, "nyuv2": {*scene_tasks.METRICS}}
  for record in content["records"]:
    assert record["protocol"]
    assert record["source"]
    for row in record["rows"].values():
      extra = set(row) - {"delta_m", "mean_rank"}
      assert record["dataset"] not in known or extra <= known[record["dataset"]]
  datasets = {record["dataset"] for record in content["records"]}
  assert datasets == {"qm9", "nyuv2", "cityscapes", "celeba"}
  results = made_up(tmp_path)
  results["published"] = DATASETS["qm9"].published_rows()
  comparison = compare(results)
  table = records_table(results, comparison)
  titles = [column.title for column in table.columns]
  assert titles == ["here", "QM9, batches of 120", "QM9, batches of 60"]
  rows = {row.name: [cell.value for cell in row.cells] for row in table.rows}
  here = comparison.delta_m("nashmtl")
  assert here is not None
  assert rows["nashmtl"] == [here.mean, 62.0, 72.9]
  assert rows["fairgrad"][0] is None
  write_report(tmp_path, results)
  assert "delta_m in the literature" in page_of(tmp_path).headings
  assert "## delta_m in the literature" in (tmp_path / "report.md").read_text()


def test_gradient_balancers_alone_have_cosines(tmp_path):
  curves, _ = read_curves(tmp_path, made_up(tmp_path))
  panels = figures.cosine_panels(curves, TASKS)
  assert [panel.title for panel in panels] == [
    name for name in curves if name in GRADIENT
  ]
  assert figures.cosine_panels(curves, TASKS[:1]) == []
