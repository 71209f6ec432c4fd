"""The experiments that can be compared, by the name of their data set."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igb_jax import scene_tasks
from igb_jax.data.qm9 import TARGETS
from igb_jax.training.array_task import load_task
from igb_jax.training.experiment import Experiment

from .. import custom, nyuv2, qm9

_PUBLISHED = Path(__file__).with_name("published.json")


class Dataset(NamedTuple):
  """An experiment as a comparison uses it.

  Attributes:
    module: what `python -m` runs.
    parse_config: arguments -> configuration.
    make: configuration -> experiment.
    task_names: configuration -> names of the K tasks, before any data are read.
    published: key of the paper's rows, or None where they are of other data.
  """

  module: str
  parse_config: Callable[[Sequence[str]], Any]
  make: Callable[[Any], Experiment]
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


DATASETS = {
  "qm9": Dataset(
    qm9.__name__, qm9.parse_config, qm9.QM9Experiment, lambda _: TARGETS, "qm9"
  ),
  "nyuv2": Dataset(
    nyuv2.__name__,
    nyuv2.parse_config,
    nyuv2.NYUv2Experiment,
    lambda _: scene_tasks.TASKS,
    "nyuv2",
  ),
  "rooms": Dataset(
    nyuv2.__name__,
    nyuv2.parse_config,
    nyuv2.NYUv2Experiment,
    lambda _: scene_tasks.TASKS,
  ),
  "custom": Dataset(
    custom.__name__,
    custom.parse_config,
    custom.CustomExperiment,
    lambda config: load_task(config.task).task_names,
  ),
}
