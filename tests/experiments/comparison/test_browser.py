"""The report in a real browser: headless Chromium, from disk, wide and narrow."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, sync_playwright

from experiments.comparison.report import write_report
from tests.experiments.comparison.made_up import PROBE, fail, lose, made_up

pytestmark = pytest.mark.slow

FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BALANCERS = {
  "ew": 30.0, "si": 1.5, "uw": 2.5, "igbv1": 1.49, "nashmtl": 1.2,
  "igbv1+nashmtl": 1.25, PROBE: 9.0,
}  # fmt: skip
Open = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
  found = (shutil.which(name) for name in NAMES)
  executable = os.environ.get("CHROMIUM") or next(filter(None, found), None)
  if executable is None:
    pytest.fail(
      "the report is tested in Chromium, and there is none: install it "
      "(apt-get install chromium), or name one in the environment variable CHROMIUM."
    )
  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A report with every section, in a folder of its own."""
  folder = tmp_path_factory.mktemp("a report")
  plain = {name: factor for name, factor in BALANCERS.items() if name != PROBE}
  results = made_up(folder, balancers=plain | {"probe": BALANCERS[PROBE]})
  for run in results["runs"]:
    if run["balancer"] == "probe":
      run["balancer"] = PROBE
    elif run["balancer"] == "uw" and run["seed"] > 0:
      lose(run)
  results["timing"][PROBE] = results["timing"].pop("probe")
  del results["timing"]["uw"]  # a number that is missing
  results["command"] += " --balancers " + ",".join(BALANCERS) * 3
  fail(results["runs"][0], f"Traceback\n{PROBE}\n{'x' * 300}")
  return write_report(folder, results)[-1]


@pytest.fixture
def open_report(browser: Browser, report: Path) -> Open:
  """Opens the report, and checks at the end that nothing went wrong meanwhile."""

  @contextmanager
  def opened(width: int, *, dark: bool = False) -> Iterator[Page]:
    page = browser.new_page(
      viewport={"width": width, "height": 800},
      color_scheme="dark" if dark else "light",
    )
    wrong: list[str] = []
    requests: list[str] = []

    def refuse(dialog: Dialog) -> None:
      wrong.append(f"dialog: {dialog.message}")
      dialog.dismiss()

    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", refuse)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri(), wait_until="load")
    yield page
    assert wrong == []
    assert requests == [report.as_uri()]
    page.close()

  return opened


@pytest.mark.parametrize("width", [1280, 360])
def test_every_figure_is_seen(open_report, width):
  with open_report(width) as page:
    drawings = page.locator("figure svg")
    assert drawings.count() == 23
    for index in range(drawings.count()):
      box = drawings.nth(index).bounding_box()
      assert box is not None
      assert box["width"] >= 200
      assert box["height"] >= 100
      assert box["x"] >= 0
      assert box["x"] + box["width"] <= width
    drawn = page.evaluate(
      """() => [...document.querySelectorAll("figure svg")].every((drawing) =>
        [...drawing.querySelectorAll("path")].some((path) =>
          path.getBoundingClientRect().width > 50 ||
          path.getBoundingClientRect().height > 20))"""
    )
    assert drawn


@pytest.mark.parametrize("width", [1280, 360])
def test_the_text_of_figures_can_be_read(open_report, width):
  with open_report(width) as page:
    sizes = page.evaluate(
      """() => [...document.querySelectorAll("figure svg text")].map((text) => {
        const { a, b } = text.getScreenCTM();
        return Math.hypot(a, b) * parseFloat(getComputedStyle(text).fontSize);
      })"""
    )
    assert len(sizes) > 100
    assert min(sizes) >= 7.5


@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_never_scrolls_sideways(open_report, width):
  with open_report(width) as page:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tables = page.locator(".scroll")
    assert tables.count() == 2
    widest = "e => [e.clientWidth, e.scrollWidth]"
    inner, whole = page.locator("#metrics .scroll").evaluate(widest)
    assert inner <= width
    if width == 360:
      assert whole > inner  # it scrolls in its own frame
      page.locator("#metrics .scroll").evaluate("e => e.scrollLeft = 10000")
      name = page.locator("#metrics tbody.balancer th").first.bounding_box()
      assert name is not None
      assert 0 <= name["x"] < 40  # the names stay
    page.evaluate("window.scrollTo(500, 0)")
    assert page.evaluate("window.scrollX") == 0


def values(table: Locator, column: int) -> list[float | None]:
  """Those of the balancers' rows from top to bottom, None for those that lack one."""
  cells = table.locator(f"tbody.balancer > tr:first-child > :nth-child({column + 1})")
  found = cells.evaluate_all("cells => cells.map((cell) => cell.dataset.value)")
  return [float(value) if value else None for value in found]


def in_order(found: list[float | None], *, reverse: bool = False) -> list[float | None]:
  known = sorted((value for value in found if value is not None), reverse=reverse)
  return [*known, *[None] * found.count(None)]  # what is missing comes last


def followers(table: Locator) -> dict[str, str]:
  """Of each balancer with a paper's row, that row's text."""
  return table.evaluate(
    """(table) => Object.fromEntries([...table.querySelectorAll("tr.paper")].map(
      (row) => [row.previousElementSibling.cells[0].textContent, row.textContent]))"""
  )


def test_a_click_on_a_header_sorts(open_report):
  with open_report(1280) as page:
    table = page.locator("#metrics table")
    headers = table.locator("thead th")
    papers = followers(table)
    assert set(papers) == {"one network per task", "si", "igbv1"}
    assert headers.nth(2).get_attribute("aria-sort") == "ascending"
    assert values(table, 2) == in_order(values(table, 2))
    num_rows = table.locator("tr").count()
    for column in range(1, headers.count()):
      header = headers.nth(column)
      before = values(table, column)
      header.get_by_role("button").click()
      if header.get_attribute("aria-sort") == "descending":  # it was sorted by it
        header.get_by_role("button").click()
      assert header.get_attribute("aria-sort") == "ascending"
      assert values(table, column) == in_order(before)
      header.get_by_role("button").click()
      assert header.get_attribute("aria-sort") == "descending"
      assert values(table, column) == in_order(before, reverse=True)
      assert followers(table) == papers
      assert table.locator("tr").count() == num_rows
      others = headers.evaluate_all("all => all.map((each) => each.ariaSort)")
      assert sum(each != "none" for each in others) == 1
      first = table.locator("tbody tr").first
      assert first.locator("th").text_content() == "one network per task"


def test_sorting_is_by_number_and_not_by_text(open_report):
  with open_report(1280) as page:
    table = page.locator("#metrics table")
    headers = table.locator("thead th")
    column = next(
      index
      for index in range(headers.count())
      if (headers.nth(index).text_content() or "").strip().startswith("mu")
    )
    headers.nth(column).get_by_role("button").click()
    found = values(table, column)
    assert found == in_order(found)
    assert found != sorted(found, key=str)


def test_names_sort_and_so_does_a_keyboard(open_report):
  with open_report(1280) as page:
    table = page.locator("#metrics table")
    button = table.locator("thead th").first.get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    names = table.locator("tbody.balancer > tr:first-child > th").all_text_contents()
    plain = [name for name in names if name != PROBE]
    assert plain == sorted(plain)
    page.keyboard.press("Space")
    names = table.locator("tbody.balancer > tr:first-child > th").all_text_contents()
    assert [name for name in names if name != PROBE] == plain[::-1]


def test_markup_in_names_and_lines_is_shown_as_text(open_report):
  with open_report(1280) as page:
    names = page.locator("#metrics tbody.balancer > tr:first-child > th")
    assert PROBE in names.all_text_contents()
    assert PROBE in (page.locator("#failed pre").text_content() or "")
    assert page.locator("script").count() == 1
    assert page.locator("figure svg script").count() == 0
    drawn = page.locator("#delta-m svg text").all_text_contents()
    assert any(text.startswith("<script>alert(") for text in drawn)


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_have_contrast(open_report, dark):
  with open_report(1280, dark=dark) as page:
    colours = page.evaluate(
      """() => {
        const of = (selector, what) => [...document.querySelectorAll(selector)].map(
          (each) => getComputedStyle(each)[what]);
        return [of("body", "backgroundColor"), of("p, td, th, h2, small", "color"),
          of("figure svg text", "fill")];
      }"""
    )
    (page_colour,), words, drawn = ([*map(luminance, each)] for each in colours)
    assert (page_colour < 0.05) if dark else (page_colour > 0.9)
    assert len(words) > 50
    assert len(drawn) > 100
    for each in [*words, *drawn]:
      light, deep = max(each, page_colour), min(each, page_colour)
      assert (light + 0.05) / (deep + 0.05) >= 4.5


def luminance(colour: str) -> float:
  """Relative luminance of "rgb(r, g, b)", as WCAG defines it."""
  numbers = colour[colour.index("(") + 1 : -1].split(",")[:3]
  linear = [
    value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
    for value in (float(number) / 255 for number in numbers)
  ]
  return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
