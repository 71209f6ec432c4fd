"""Writes the tables of methods, between the comments that mark them, from `METHODS`.

    python docs/_tools/tables.py

A page has a table wherever it has `<!-- methods: NAME -->` and `<!-- end -->`, with a
name of `TABLES`. `make tables` runs this; a test fails where a page is out of date.
"""

import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from igb_jax.balancers import create
from igb_jax.balancers.methods import (
  ALIASES,
  METHODS,
  Kind,
  LossTraits,
  Method,
)

ROOT = Path(__file__).parents[2]
_MARKED = re.compile(r"(<!-- methods: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def spelt(name: str) -> str:
  """A name in `create`, followed by its aliases.

  Args:
    name: of the method.

  Example:
    >>> spelt("ew")
    '`ew` (`ls`)'
  """
  aliases = ", ".join(f"`{alias}`" for alias, of in ALIASES.items() if of == name)
  return f"`{name}`" + (f" ({aliases})" if aliases else "")


def cost(method: Method) -> str:
  """Forward and backward passes of a step.

  Args:
    method: the method.

  Example:
    >>> cost(METHODS["mgda"])
    '1 + K'
  """
  return f"{method.traits.forward_passes} + {method.traits.backward_passes}"


def traits(method: Method) -> str:
  """What helps to choose, in words that the page of all methods explains.

  Args:
    method: the method.

  Example:
    >>> traits(METHODS["igbv1"])
    'scale-invariant, positive losses, logarithm, joint'
  """
  known = method.traits
  words = {
    "scale-invariant": known.scale_invariant,
    "random": known.draws,
    "positive losses": known.needs_positive,
  }
  if isinstance(known, LossTraits):
    words["logarithm"] = known.takes_log
    words["joint"] = known.ties_tasks
  else:
    words["no conflict"] = known.avoids_conflict
    words["homogeneous"] = known.degree == 1
    words["Gramian"] = known.gramian_only
    words["solver"] = known.solves
    words["ordered"] = not known.equivariant
    words["plain heads"] = known.heads == "summed"
    words[f"K >= {known.fewest_tasks}"] = known.fewest_tasks > 1
  words |= {f"needs `{each}`": True for each in known.needs}
  return ", ".join(word for word, applies in words.items() if applies)


def memory(name: str) -> str:
  """How many numbers the state of a gradient balancer has for each shared parameter.

  Args:
    name: of the method.

  Example:
    >>> memory("moco"), memory("mgda")
    ('K', '0')
  """
  balancer = create(name, num_tasks=3, steps_per_epoch=1).gradient
  assert balancer is not None
  return "K" if balancer.keeps_grads else "0"


def full(kind: Kind) -> str:
  """Every method of a kind, each name with all that is known of it.

  Args:
    kind: "loss" or "gradient".
  """
  extra = ["memory"] if kind == "gradient" else []
  return _table(
    ("name", "constructor", "what it does", "passes", *extra, "traits", "paper"),
    (
      (
        spelt(name),
        _linked(method),
        _cell(method.summary),
        cost(method),
        *([memory(name)] if extra else []),
        traits(method),
        method.paper,
      )
      for name, method in METHODS.items()
      if method.kind == kind
    ),
  )


def both() -> str:
  """The names of both kinds side by side, forms of one constructor in one cell."""
  columns = []
  for kind in ("loss", "gradient"):
    forms: dict[str, list[str]] = {}
    for name, method in METHODS.items():
      if method.kind == kind:
        forms.setdefault(method.constructor_name, []).append(name)
    columns.append(
      [
        f"{', '.join(map(spelt, names))} {METHODS[names[0]].paper}".strip()
        for names in forms.values()
      ]
    )
  rows = itertools.zip_longest(*columns, fillvalue="")
  return _table(("loss balancers", "gradient balancers"), rows)


TABLES: dict[str, Callable[[], str]] = {
  "loss": lambda: full("loss"),
  "gradient": lambda: full("gradient"),
  "both": both,
}


def current(text: str) -> str:
  r"""A page with its tables as they should be.

  Args:
    text: of the page.

  Raises:
    KeyError: a comment names a table that does not exist.

  Example:
    >>> page = current("<!-- methods: loss -->\n<!-- end -->")
    >>> page.splitlines()[2]
    '| name | constructor | what it does | passes | traits | paper |'
  """
  return _MARKED.sub(
    lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text
  )


def pages() -> list[Path]:
  """The files that may have tables: README.md and the pages of docs/."""
  return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _linked(method: Method) -> str:
  made = getattr(method.constructor, "func", method.constructor)
  where = f"{made.__module__}.{made.__qualname__}"
  return f"[`{made.__qualname__}`](api/balancers.md#{where})"


def _cell(text: str) -> str:
  return text.replace("|", r"\|")


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
  lines = [f"| {' | '.join(cells)} |".replace("  ", " ") for cells in (headings, *rows)]
  return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:], ""])


if __name__ == "__main__":
  for page in pages():
    before = page.read_text()
    after = current(before)
    if after != before:
      page.write_text(after)
      print(f"wrote the tables of {page.relative_to(ROOT)}")
