"""What the site has beside docs/, and that it has every public name of the package.

A page links to such a file as it lies in the repository, `../results/NAME/README.md` in
docs/, so that the link works where the repository is read; here the path is that from
the site's root.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocstrings import Inventory

_LOG = logging.getLogger("mkdocs.hooks")  # its warnings end a strict build
_PACKAGE = "igb_jax"
_PATTERNS = (
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "benchmarks/results.md",
  "examples/*.py",
  "examples/*.ipynb",
  "results/*/**/*.*",
  "tests/balancers/*.py",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the files.

  Args:
    files: of docs/.
    config: of the site.
  """
  root = Path(config.config_file_path).parent
  for pattern in _PATTERNS:
    for path in sorted(root.glob(pattern)):
      name = path.relative_to(root).as_posix()
      files.append(File.generated(config, name, abs_src_path=str(path)))
  return files


def on_page_markdown(markdown: str, page: Page, **others: Any) -> str:
  """Takes one `../` from links that leave docs/.

  Args:
    markdown: of the page.
    page: the page.
    **others: what mkdocs passes beside.
  """
  del others
  if page.file.generated_by is not None:  # not of docs/
    return markdown
  out = "../" * page.file.src_uri.count("/")
  return re.sub(rf"\]\({re.escape(out)}\.\./(?!\.\./)", f"]({out}", markdown)


def on_post_build(config: MkDocsConfig) -> None:
  """Warns of public names without a docstring, and of those that no page shows.

  Args:
    config: of the site.
  """
  root = Path(config.config_file_path).parent
  with (Path(config.site_dir) / "objects.inv").open("rb") as file:
    shown = Inventory.parse_sphinx(file)
  package = griffe.load(_PACKAGE, search_paths=[root])  # read, not imported
  assert isinstance(package, griffe.Module)
  for found in _public(package):
    name = found.canonical_path
    if found.docstring is None:
      _LOG.warning("%s is public and has no docstring.", name)
    elif name not in shown:
      _LOG.warning(
        "%s is public and on no page: add its module to one in docs/api.", name
      )


def _public(parent: griffe.Object) -> Iterator[griffe.Object]:
  """Public classes, functions and methods, and what `__all__` has from elsewhere."""
  for name, member in parent.members.items():
    if name.startswith("_"):
      continue
    if isinstance(member, griffe.Alias):
      if name in (parent.exports or ()) and not member.final_target.is_module:
        yield member.final_target
    elif isinstance(member, griffe.Module):
      yield from _public(member)
    elif isinstance(member, griffe.Class):
      yield member
      yield from _public(member)
    elif isinstance(member, griffe.Function):
      yield member
