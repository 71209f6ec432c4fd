"""What the site has beside docs/: files of the repository that pages link to.

A page links to one as it lies in the repository, `../results/NAME/README.md` in docs/,
so that the link works where the repository is read; here the path is that from the
site's root.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

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
