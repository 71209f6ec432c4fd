"""The experiments that can be compared, by the name of their data set."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igb_jax import scene_tasks
from igb_jax.data.qm9 import TARGETS
from igb_jax.training.task_file import load_task

from .. import custom, nyuv2, qm9

_PUBLISHED = Path(__file__).with_name("published.json")


class Dataset(NamedTuple):
  """An experiment as a comparison uses it.

  Attributes:
    module: the experiment, which has `parse_config` and `make_problem`.
    task_names: configuration -> names of the K tasks, before any data are read.
    published: key of the paper's rows, or None where they are of other data.
  """

  module: Any
  task_names: Callable[[Any], Sequence[str]]
  published: str | None = None

  def published_rows(self) -> dict[str, Any] | None:
    """The paper's protocol, source and rows, and records since; or None."""
    if self.published is None:
      return None
    content = json.loads(_PUBLISHED.read_text())
    records = [each for each in content["records"] if each["dataset"] == self.published]
    return {
      "source": content["source"],
      "records": records,
      **content[self.published],
    }


_SCENES = Dataset(nyuv2, lambda _: scene_tasks.TASKS)
DATASETS = {
  "qm9": Dataset(qm9, lambda _: TARGETS, "qm9"),
  "nyuv2": _SCENES._replace(published="nyuv2"),
  "rooms": _SCENES,
  "custom": Dataset(custom, lambda config: load_task(config.task).task_names),
}
