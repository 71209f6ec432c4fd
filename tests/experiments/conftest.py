"""What tests of experiments share: molecules, what runs compile, and blank plots."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from igb_jax.training import main
from igb_jax.training.config import RunConfig
from igb_jax.training.experiment import Experiment
from tests.molecules import molecules as molecules
from tests.molecules import qm9_dir as qm9_dir

# options that nothing is compiled with, nor any data chosen by
_OF_FILES = RunConfig()
_UNCOMPILED = ("out", "resume", "keep", "checkpoint_every", "tensorboard", "wandb")


@pytest.fixture
def drawn() -> None:
  """Has the plots of a run drawn."""


@pytest.fixture(autouse=True)
def leave_plots_blank(
  request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
  """Saves empty pictures unless `drawn`: drawing took a quarter of a short run."""
  save = Figure.savefig

  def save_blank(figure: Figure, file: Any, **options: Any) -> None:
    if isinstance(file, Path):
      file.touch()
    else:  # a picture within a report
      save(figure, file, **options)

  if "drawn" not in request.fixturenames:
    monkeypatch.setattr(Figure, "savefig", save_blank)


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
  """Runs of a module that differ in their files alone share what they compile.

  As seeds do that are trained at once, see `for_seed`.
  """
  made: dict[Any, Experiment[Any]] = {}

  def make(make_problem: Callable[..., Any], config: RunConfig) -> Experiment[Any]:
    config.check()
    files = {name: getattr(_OF_FILES, name) for name in _UNCOMPILED}
    key = make_problem, dataclasses.replace(config, **files)
    if key not in made:
      made[key] = Experiment(make_problem, config)
    experiment = copy.copy(made[key])
    experiment.config = config
    experiment.set_seed(config.seed)
    return experiment

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(main, "Experiment", make)
    yield
