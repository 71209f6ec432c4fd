"""The files of the report, for whole comparisons and for those under way."""

import csv
import json
import re

import numpy as np
import pytest

from experiments.comparison import report
from experiments.comparison.report import write_report
from experiments.comparison.statistics import compare
from tests.experiments.comparison.made_up import METRICS, TASKS, fail, lose, made_up
from tests.experiments.comparison.page import page_of


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
