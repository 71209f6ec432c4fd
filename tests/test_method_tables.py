"""The tables of methods in README and docs are what `METHODS` says."""

import importlib.util
from pathlib import Path

import pytest

from igb_jax.balancers.methods import ALIASES, METHODS

PATH = Path(__file__).parents[1] / "docs" / "_tools" / "tables.py"
spec = importlib.util.spec_from_file_location("tables", PATH)
assert spec is not None
assert spec.loader is not None
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)

PAGES = {page.relative_to(tables.ROOT).as_posix(): page for page in tables.pages()}
MARKED = {
  name: page for name, page in PAGES.items() if "<!-- methods:" in page.read_text()
}


@pytest.mark.parametrize("name", MARKED)
def test_the_tables_of_a_page_are_current(name):
  text = MARKED[name].read_text()
  assert text == tables.current(text), "run `make tables`"
  assert text.count("<!-- methods:") == text.count("<!-- end -->")


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_a_page_has_every_method(page):
  text = PAGES[page].read_text()
  for name in (*METHODS, *ALIASES):
    assert f"`{name}`" in text


def test_rows_follow_the_registry(monkeypatch):
  mgda = METHODS["mgda"]
  traits = mgda.traits._replace(heads="summed", avoids_conflict=False, draws=True)
  added = mgda._replace(traits=traits, paper="A Paper, 2030")
  monkeypatch.setitem(METHODS, "probe", added)
  monkeypatch.setitem(ALIASES, "other", "probe")
  (row,) = [line for line in tables.full("gradient").splitlines() if "probe" in line]
  cells = [cell.strip() for cell in row.split("|")[1:-1]]
  assert cells[0] == "`probe` (`other`)"
  assert cells[2] == mgda.summary
  words = "scale-invariant, random, homogeneous, Gramian, solver, plain heads"
  words = words if traits.scale_invariant else words.partition(", ")[2]
  assert cells[3:] == ["1 + K", "0", words, "A Paper, 2030"]
  assert "probe" not in tables.full("loss")
  # one constructor, one row
  (row,) = [line for line in tables.both().splitlines() if "probe" in line]
  assert "| `mgda`, `probe` (`other`) Sener" in row


def test_an_outdated_table_is_replaced_and_an_unknown_one_refused():
  page = "before\n\n<!-- methods: loss -->\n| old |\n<!-- end -->\n\nafter\n"
  new = tables.current(page)
  assert new.startswith("before\n\n<!-- methods: loss -->\n\n| name |")
  assert new.endswith("\n\n<!-- end -->\n\nafter\n")
  assert "old" not in new
  assert tables.current(new) == new
  with pytest.raises(KeyError):
    tables.current("<!-- methods: none -->\n<!-- end -->")
