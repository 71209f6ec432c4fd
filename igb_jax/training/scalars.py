"""The numbers in a line of metrics.jsonl, each with a name."""

from collections.abc import Iterator, Mapping
from typing import Any


def scalars_of(line: Mapping[str, Any]) -> dict[str, float]:
  """The numbers in a line of metrics.jsonl, each with a name.

  The names of what is in a dict or a list follow after a slash; a list has a number for
  each task, and a matrix is symmetric, with ones on its diagonal: each pair of tasks is
  named once. Left out are the number of the epoch, which is the scalars' step, words,
  and what is null.

  Args:
    line: as `igb_jax.training.results.metrics_line` makes it.

  Example:
    >>> line = {
    ...   "epoch": 3, "losses": {"a": 1.0, "b": None}, "gradient_weights": [0.5, 1.5],
    ...   "gradient_cosines": [[1.0, -0.25], [-0.25, 1.0]], "conflict_share": 1.0}
    >>> for name, value in scalars_of(line).items():
    ...   print(name, value)
    losses/a 1.0
    gradient_weights/a 0.5
    gradient_weights/b 1.5
    gradient_cosines/a/b -0.25
    conflict_share 1.0
  """
  tasks = list(line["losses"])

  def parts(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
      for key, part in value.items():
        yield from parts(f"{name}/{key}", part)
    elif isinstance(value, list):
      for task, (key, part) in enumerate(zip(tasks, value, strict=True)):
        if isinstance(part, list):
          part = dict(zip(tasks[task + 1 :], part[task + 1 :], strict=True))
        yield from parts(f"{name}/{key}", part)
    elif isinstance(value, int | float):
      yield name, float(value)

  rest = {name: value for name, value in line.items() if name != "epoch"}
  return {name: value for key in rest for name, value in parts(key, rest[key])}
