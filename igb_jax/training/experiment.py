"""What a run must know of a data set, a net and a balancer: the protocols."""

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import optax

from igb_jax.training.loop import Evaluation
from igb_jax.training.step import Batch, TrainState


class Metric(NamedTuple):
  """A number that a run reports.

  Attributes:
    name: of the metric.
    unit: in which it is reported.
    single_task: the single-task run's value, the base of delta_m.
    higher_is_better: whether it is an accuracy rather than an error.
    task: to which it belongs.
  """

  name: str
  unit: str
  single_task: float
  higher_is_better: bool = False
  task: str = ""


class RunConfig(Protocol):
  """The fields of a configuration that every run needs; a frozen dataclass."""

  @property
  def out(self) -> Path | None:
    """Folder of the run's files, or None for one below runs/."""
    ...

  @property
  def balancer(self) -> str:
    """Specification of the balancer."""
    ...

  @property
  def balancer_options(self) -> Sequence[str]:
    """Its hyper-parameters, each NAME=VALUE."""
    ...

  @property
  def seed(self) -> int:
    """Seed of the run."""
    ...

  @property
  def seeds(self) -> Sequence[int]:
    """Seeds of the runs that are trained at once; none for one run, of `seed`."""
    ...

  @property
  def devices(self) -> int | None:
    """How many devices are used; None for all."""
    ...

  @property
  def mesh(self) -> str | None:
    """Sizes of the mesh's axes, see `parse_mesh`; None for all devices in one."""
    ...

  @property
  def epochs(self) -> int:
    """Number of epochs."""
    ...

  @property
  def resume(self) -> bool:
    """Whether the run in `out` goes on."""
    ...

  @property
  def checkpoint_every(self) -> str:
    """Time from one checkpoint to the next, see `parse_interval`."""
    ...

  @property
  def keep(self) -> int:
    """How many of the newest checkpoints are kept."""
    ...

  @property
  def tensorboard(self) -> bool:
    """Whether there are event files for TensorBoard."""
    ...

  @property
  def wandb(self) -> bool:
    """Whether Weights & Biases gets the numbers."""
    ...


class Experiment(Protocol):
  """What a run needs to know of a data set, a net and a balancer."""

  @property
  def dataset(self) -> str:
    """Name of the data set."""
    ...

  @property
  def task_names(self) -> Sequence[str]:
    """Names of the K tasks."""
    ...

  @property
  def metrics(self) -> Sequence[Metric]:
    """What is reported of the test split."""
    ...

  @property
  def description(self) -> str:
    """What the data are and where they come from; shown at the start."""
    ...

  @property
  def base(self) -> str:
    """Whose single-task metrics are the base of delta_m, in a word or two."""
    ...

  @property
  def notice(self) -> str | None:
    """What a reader of the results must know; shown, and kept in summary.json."""
    ...

  @property
  def averaged_epochs(self) -> int | None:
    """How many last epochs' validations are averaged to be the test.

    None where the epoch with the best validation is tested instead.
    """
    ...

  @property
  def steps_per_epoch(self) -> int:
    """Number of training batches."""
    ...

  @property
  def step(self) -> Callable[[TrainState, Batch], TrainState]:
    """The jitted training step."""
    ...

  @property
  def plateau(self) -> optax.GradientTransformationExtraArgs:
    """What lowers the learning rate."""
    ...

  def set_seed(self, seed: int) -> None:
    """Sets what depends on the seed anew: initial parameters, order of the batches."""
    ...

  def init_state(self) -> TrainState:
    """The state before the first step."""
    ...

  def epoch_batches(self, epoch: int, start: int = 0) -> Iterable[Batch]:
    """The batches of an epoch from one of them on, a function of the epoch alone."""
    ...

  def epoch_facts(self, epoch: int) -> dict[str, float]:
    """What else is worth a place in the epoch's line of metrics.jsonl.

    A function of the epoch alone: a run that is resumed asks again.
    """
    ...

  def run_facts(self) -> dict[str, Any]:
    """What else is worth a place in summary.json."""
    ...

  def evaluate(
    self, state: TrainState, split: Literal["validation", "test"]
  ) -> Evaluation:
    """The metrics of a split."""
    ...

  def plot(self, folder: Path, state: TrainState) -> list[Path]:
    """Draws what is particular to the data set; returns the files."""
    ...

  def close(self) -> None:
    """Ends what still loads batches."""
    ...


_Experiment = TypeVar("_Experiment", bound=Experiment)


def for_seed(experiment: _Experiment, seed: int) -> _Experiment:
  """The same with another seed; it shares data, net and compiled functions.

  Args:
    experiment: stays as it is.
    seed: the other one.
  """
  other = copy.copy(experiment)
  other.set_seed(seed)
  return other
