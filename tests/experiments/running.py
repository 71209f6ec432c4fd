"""Running an experiment in the process of the tests, and reading what it wrote."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from igb_jax.training.config import RunConfig
from igb_jax.training.experiment import Experiment

TIMINGS = {
  "steps_seconds", "data_seconds", "train_seconds", "seconds_per_step",
  "data_wait_share",
}  # fmt: skip


def exit_code(main: Callable[[list[str]], None], arguments: list[str]) -> int:
  """Runs an experiment and returns its exit code."""
  with pytest.raises(SystemExit) as caught:
    main(arguments)
  assert isinstance(caught.value.code, int)
  return caught.value.code


def read_metrics(folder: Path) -> list[dict]:
  """The lines of metrics.jsonl."""
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def make_experiment(module: ModuleType, config: RunConfig) -> Experiment:
  """The experiment of a module, ready to train."""
  return Experiment(module.make_problem, config)


def assert_help_explains_every_option(experiment: ModuleType, capsys: Any) -> None:
  """Checks that `--help` names every field of an experiment's configuration."""
  with pytest.raises(SystemExit) as caught:
    experiment.parse_config(["--help"])
  assert caught.value.code == 0
  shown = capsys.readouterr().out
  for field in dataclasses.fields(experiment.Config):
    assert "--" + field.name.replace("_", "-") in shown


def one_line(text: str) -> str:
  """What a terminal's frames and line breaks hold."""
  return " ".join(text.replace("│", " ").split())


def untimed(content: dict) -> dict:
  """A JSON object of a run without the fields that are timings."""
  return {name: value for name, value in content.items() if name not in TIMINGS}
