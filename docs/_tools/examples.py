"""Shows the section `Example:` of a docstring as code, as griffe does `Examples:`."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
  """An extension of griffe, which reads the docstrings for the site."""

  def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
    """Renames the section.

    Args:
      obj: whatever was read.
      **others: what griffe passes beside.
    """
    del others
    if obj.docstring is not None:
      obj.docstring.value = re.sub(
        r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE
      )
