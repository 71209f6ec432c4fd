"""The options of a comparison, checked before anything is run."""

import dataclasses
import hashlib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from igb_jax.training.config import LOGGERS, check_at_least, helpful, option_of
from igb_jax.training.loggers import check_loggers
from igb_jax.training.run_folder import differing_options, read_object

from .datasets import DATASETS, Dataset
from .plan import Contender, Job, baseline_jobs, contender_jobs, parse_contenders
from .processes import cores

_OWN_OPTIONS = ("balancer", "balancer_options", "seed", "seeds", "out", "resume")


@helpful
@dataclasses.dataclass(frozen=True)
class Config:
  """Compares balancers by repeated runs on the same data, and writes a report.

  Options that are not listed here, such as --epochs, go to the experiment.
  """

  dataset: Literal["qm9", "nyuv2", "rooms"] | None = None
  """The data set to learn; nyuv2 needs --data-dir."""
  task: Path | None = None
  """Instead of --dataset: a Python file with a data set and a net of your own; see
  docs/custom_task.md."""
  balancers: str = "ew,si,uw,igbv1,igbv2,nashmtl,igbv1+nashmtl"
  """Balancers, separated by commas; hyper-parameters follow after colons, as in
  igbv1:base_epoch=0 or cosmos:preference=[1,2]."""
  seeds: int = 3
  """Number of runs of each loss balancer, with the seeds 0, 1, ..."""
  gradient_seeds: int | None = None
  """Number of seeds for gradient balancers and combinations, which are slower; by
  default the same as --seeds."""
  baselines: bool = True
  """Whether to run a single-task baseline, the base of delta_m, for each task."""
  together: Literal["auto", "always", "never"] = "auto"
  """Whether to train all seeds of a loss balancer in one vmapped step. auto: only where
  memory allows and it is faster than one after another; always: wherever memory
  allows; never: one after another."""
  parallel: int = 1
  """Number of runs at a time, on CPUs; on Linux each has its share of the cores. Small
  steps leave cores idle, so small runs take less time side by side. Each needs as much
  memory as it would alone, which is not checked."""
  out: Path | None = None
  """Folder for the comparison's files."""
  dry_run: bool = False
  """List the planned runs, estimate from a few measured steps how long they will take,
  and exit."""


class Comparison:
  """Everything that one comparison needs to know."""

  def __init__(self, config: Config, experiment_arguments: Sequence[str]):
    """Checks all options; nothing is run or written.

    Raises:
      TypeError, ValueError, OSError: an option is wrong.
      SystemExit: an option of the experiment is wrong.
    """
    self.config = config
    if (config.dataset is None) == (config.task is None):
      raise ValueError("give either --dataset (qm9, nyuv2, rooms) or --task FILE.")
    self.dataset_name = config.dataset or "custom"
    self.dataset: Dataset = DATASETS[self.dataset_name]
    given = [] if config.task is None else [f"--task={config.task}"]
    self.arguments = [*experiment_arguments, *given]
    parse_config = self.dataset.module.parse_config
    self.options, default = parse_config(self.arguments), parse_config(given)
    for name in _OWN_OPTIONS:
      if getattr(self.options, name) != getattr(default, name):
        raise ValueError(
          f"the comparison itself sets {option_of(name)} for its runs; "
          "give --balancers, --seeds and --out instead."
        )
    has_folder = self.dataset_name in ("nyuv2", "rooms") and self.options.data_dir
    if self.dataset_name == "nyuv2" and not has_folder:
      raise ValueError(
        "--dataset nyuv2 needs --data-dir, the folder of the scenes; --dataset rooms "
        "trains on generated ones."
      )
    if self.dataset_name == "rooms" and has_folder:
      raise ValueError("--dataset rooms takes no --data-dir; --dataset nyuv2 does.")
    check_loggers(self.options)
    check_at_least(config, {"seeds": 1, "gradient_seeds": 1, "parallel": 1})
    if config.parallel > len(cores()):
      raise ValueError(
        f"--parallel must be at most {len(cores())}, the number of cores, got "
        f"{config.parallel}."
      )
    self.tasks = list(self.dataset.task_names(self.options))
    self.contenders = parse_contenders(config.balancers, self.tasks)
    if config.out is None and not config.dry_run:
      raise ValueError("--out, the folder of the comparison, is missing.")

  @property
  def seeds(self) -> list[int]:
    """Of each loss balancer."""
    return list(range(self.config.seeds))

  def seeds_of(self, contender: Contender) -> list[int]:
    """Those of a balancer."""
    fewer = self.config.gradient_seeds
    if contender.kind == "gradient" and fewer is not None:
      return list(range(fewer))
    return self.seeds

  @property
  def settings(self) -> dict[str, Any]:
    """What decides the results, for compare.json."""
    own = dataclasses.asdict(self.config)
    for name in ("out", "dry_run", "parallel"):
      own.pop(name)
    experiment = dataclasses.asdict(self.options)
    for name in (*_OWN_OPTIONS, *LOGGERS):  # which decide nothing
      experiment.pop(name)
    if self.config.task is not None:
      code = self.config.task.expanduser().read_bytes()
      own["sha256 of the task"] = hashlib.sha256(code).hexdigest()
    own |= {f"experiment.{name}": value for name, value in experiment.items()}
    return own

  def jobs(self, seeds_at_once: int) -> list[Job]:
    """What is to be run, in order: what is cheap first."""
    jobs = baseline_jobs(self.tasks) if self.config.baselines else []
    for kind, at_once in (("loss", seeds_at_once), ("gradient", 1)):
      of_kind = [
        contender_jobs(contender, self.seeds_of(contender), at_once)
        for contender in self.contenders
        if contender.kind == kind
      ]
      # every balancer with its first seeds before any with the next
      for turn in range(max(map(len, of_kind), default=0)):
        jobs += [each[turn] for each in of_kind if turn < len(each)]
    return jobs


def begun(
  what: str, path: Path, settings: Mapping[str, Any], free: Container[str] = ()
) -> dict[str, Any]:
  """What a comparison or a league wrote when it began, if it has the same settings.

  Args:
    what: which of the two it is, for the message.
    path: the file, in its folder.
    settings: those with which it is to be resumed.
    free: names of those that may differ.

  Raises:
    ValueError: it has other settings, or the file is damaged.
  """
  content = read_object(path)
  before = content.get("settings")
  if not isinstance(before, dict):
    raise ValueError(f"{path} is damaged: it has no settings.")
  if differences := differing_options(before, settings, free):
    raise ValueError(
      f"the {what} in {path.parent} has other settings: {'; '.join(differences)}. Use "
      "the same settings, or choose another --out."
    )
  return content
