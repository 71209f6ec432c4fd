"""What the page of a report and its Markdown say: tables, figures and words."""

import re

from experiments.comparison.report import write_report
from experiments.comparison.statistics import compare
from tests.experiments.comparison.made_up import PROBE, fail, lose, made_up
from tests.experiments.comparison.page import MISSING, page_of


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
  single = page.row("one network per task")
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
  assert page.row("one network per task")[7] == MISSING
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
