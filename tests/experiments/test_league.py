"""The league from its command line to its report."""

import collections
import csv
import json
import sys

import pytest

from experiments import league
from experiments.standings import cells as cells_module
from experiments.standings import running, work
from experiments.standings.plan import Cell, cells_of
from experiments.standings.report import write_report
from tests.experiments.made_up_league import SEEDS, some_cells


def started(tmp_path, monkeypatch, *options):
  """The exit code of a league, and what it wrote."""
  monkeypatch.setattr(sys, "argv", ["league", *options])
  with pytest.raises(SystemExit) as ended:
    league.main([*options, f"--out={tmp_path}"])
  return ended.value.code


def rows_of(out):
  return [*csv.DictReader((out / "league.csv").read_text().splitlines())]


SMALL = ("--problems", "toy", "--methods", "ew", "mgda", "si", "--seeds=2")


def test_a_league_is_played_reported_and_gone_on_with(tmp_path, monkeypatch, capfd):
  options = (*SMALL, "--validation-seeds=1", "--parallel=2")
  assert started(tmp_path, monkeypatch, *options) == 0
  planned = cells_of(["toy"], ["ew", "mgda", "si"])
  times = {each: each.path(tmp_path).stat().st_mtime_ns for each in planned}
  page = (tmp_path / "league.html").read_text()
  for word in ("mgda", "needs positive losses", "Mean places", "Problem by problem"):
    assert word in page
  rows = rows_of(tmp_path)
  assert [(row["method"], row["seed"]) for row in rows] == [
    ("ew", "0"),
    ("ew", "1"),
    ("mgda", "0"),
    ("mgda", "1"),
  ]
  found = json.loads((tmp_path / "standings.json").read_text())
  assert (found["finished"], found["order"]) == (["toy"], [])  # both are at the front
  assert "mgda" in (tmp_path / "league.md").read_text()
  # what is there is kept, what is missing is played, and the report is the same
  planned[1].path(tmp_path).unlink()
  assert started(tmp_path, monkeypatch, *options) == 0
  after = {each: each.path(tmp_path).stat().st_mtime_ns for each in planned}
  assert [each for each in planned if after[each] != times[each]] == [planned[1]]
  again = rows_of(tmp_path)
  assert [row["metrics"] for row in again] == [row["metrics"] for row in rows]
  # other seeds do not go together
  capfd.readouterr()
  assert started(tmp_path, monkeypatch, *SMALL, "--validation-seeds=2") == 2
  assert "validation" in capfd.readouterr().err


def write_league(out, problems, methods):
  """A folder with the made-up cells, of which the latest command asked for some."""
  settings = {"problems": problems, "methods": methods}
  settings |= {"seeds": SEEDS, "validation_seeds": 1}
  facts = {"command": "league", "started": "today", "settings": settings}
  (out / "league.json").write_text(json.dumps(facts))
  for each in some_cells():
    cells_module.write(Cell(each["problem"], each["method"]), out, each)


def test_a_report_is_written_of_whatever_is_played(tmp_path):
  methods = ["ew", "ew@2", "mgda", "si", "uw"]
  write_league(tmp_path, ["digits", "diamonds", "burgers", "helmholtz"], methods)
  for path in write_report(tmp_path):
    assert path.stat().st_size > 0
  text = (tmp_path / "league.md").read_text()
  assert "18 cells (a method on a problem) are played" in text
  assert "uw on burgers: needs positive losses" in text
  assert "Runs on digits that were not finite: si (1)" in text


@pytest.mark.parametrize(
  ("problems", "methods", "without_places"),
  [
    (["digits", "helmholtz"], ["ew", "mgda", "si"], {"helmholtz"}),
    # who plays a problem by default and has played another is missing there, even
    # where the latest command asks for nobody
    (["digits"], ["ew"], {"diamonds"}),
    # everybody is asked for, also where others have played before
    (["toy"], None, {"toy", "digits", "diamonds", "burgers"}),
  ],
)
def test_places_are_over_problems_that_everybody_has_played(
  tmp_path, problems, methods, without_places
):
  write_league(tmp_path, problems, methods)
  if "diamonds" in without_places and methods:
    Cell("diamonds", "mgda").path(tmp_path).unlink()
  write_report(tmp_path)
  found = json.loads((tmp_path / "standings.json").read_text())
  assert {*found["scores"]} == {"digits", "diamonds", "burgers"}
  assert {*found["places"]} == {*found["scores"]} - without_places
  notice = (tmp_path / "league.md").read_text().split("**")[1]
  assert all(problem in notice for problem in without_places)


def test_a_cell_that_fails_is_tried_once(tmp_path, monkeypatch):
  settings = {"problems": ["toy"], "methods": ["ew"], "seeds": 1, "validation_seeds": 1}
  (tmp_path / "league.json").write_text(json.dumps({"settings": settings}))
  played = []

  def fail(cell, *rest):
    played.append(cell)
    raise ValueError(f"{cell.method} is ill\nat length")

  monkeypatch.setattr(work, "play", fail)
  monkeypatch.setattr(sys, "argv", ["work", str(tmp_path)])
  for _ in range(2):  # two workers
    work.main()
  planned = cells_of(["toy"], ["ew"])
  assert played == planned
  assert running.errors(planned, tmp_path) == {
    cell: f"ValueError: {cell.method} is ill" for cell in planned
  }


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (("--problems", "moon"), "moon"),
    (("--methods", "ew", "ew"), "each once"),
    (("--seeds=0",), "--seeds must be at least 1"),
  ],
)
def test_wrong_options_are_refused_before_anything_is_written(
  tmp_path, monkeypatch, capsys, options, message
):
  assert started(tmp_path, monkeypatch, *options) == 2
  assert message in capsys.readouterr().err
  assert not [*tmp_path.iterdir()]


def test_a_dry_run_writes_nothing_and_names_the_time(tmp_path, monkeypatch, capsys):
  assert started(tmp_path, monkeypatch, *SMALL, "--dry-run") == 0
  out = capsys.readouterr().out
  assert "toy: 3 methods" in out
  assert "in all with --parallel=1" in out
  assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_quick_league_is_played(tmp_path, monkeypatch):
  assert started(tmp_path, monkeypatch, "--quick", "--parallel=2") == 0
  counts = collections.Counter(
    (row["problem"], row["method"]) for row in rows_of(tmp_path)
  )
  assert counts == {
    ("digits", "stl"): 2,
    ("toy", "ew"): 2,
    ("toy", "mgda"): 2,
    **{
      (problem, name): 2
      for problem in ("helmholtz", "digits")
      for name in ("ew", "igbv1", "mgda")
    },
  }
