"""The page of a report, read as a browser does."""

from html.parser import HTMLParser
from pathlib import Path

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
