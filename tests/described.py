"""The text of a diagnosis, taken apart."""

import re
from typing import NamedTuple


class Text(NamedTuple):
  """What a description says, by how its lines begin; wrapped lines are joined."""

  facts: dict[str, str]
  hints: list[str]

  @classmethod
  def of(cls, text: str) -> "Text":
    assert all(len(line) <= 80 for line in text.splitlines())
    lines = text.replace("\n  ", " ").splitlines()
    pairs = [line.split(": ", 1) for line in lines]
    facts = {label: said for label, said in pairs if label != "hint"}
    return cls(facts, [said for label, said in pairs if label == "hint"])

  def names(self, *tasks: str) -> set[str]:
    """The beginnings of the lines that have all of these words or numbers."""
    return {
      label
      for label, said in self.facts.items()
      if all(
        re.search(rf"(?<![\w.-]){re.escape(task)}(?![\w])", said) for task in tasks
      )
    }
