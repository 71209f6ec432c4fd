"""What is to be run: single-task baselines, then every balancer with every seed.

    OUT/baselines/stl-<task>/                 a run each
    OUT/runs/<balancer>/seed0/ ...            a run each, trained one by one, or
    OUT/runs/<balancer>/together-0-1-2/seed0/ ...    several seeds in one step

A job is one process that trains one run or several seeds at once.
"""

import dataclasses
import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igb_jax.balancers.registry import names_of
from igb_jax.training.balancing import balances_gradients, make_balancer
from igb_jax.training.run_folder import read_object


@dataclasses.dataclass(frozen=True)
class Contender:
  """A balancer with its hyper-parameters.

  Attributes:
    text: as it was named, "igbv1" or "igbv2:start_epoch=0:warmup_epochs=1".
    spec: as for `balancers.create`.
    options: its hyper-parameters, each NAME=VALUE.
  """

  text: str
  spec: str
  options: tuple[str, ...] = ()

  @property
  def kind(self) -> str:
    """The word "gradient" if it takes K backward passes, else "loss"."""
    return "gradient" if balances_gradients(self.spec) else "loss"

  @property
  def arguments(self) -> list[str]:
    """Of the experiment's command line."""
    options = [f"--balancer-options={option}" for option in self.options]
    return [f"--balancer={self.spec}", *options]


def parse_contenders(text: str, task_names: Sequence[str]) -> list[Contender]:
  """Reads the option --balancers.

  Args:
    text: balancers, separated by commas; the hyper-parameters of each follow it after
      colons, and may be lists.
    task_names: the names of the K tasks.

  Returns:
    Them in order.

  Raises:
    ValueError: there is none, one is there twice, is unknown, or is `stl`.
    TypeError: a hyper-parameter is unknown.

  Example:
    >>> parse_contenders("ew,igbv1:base_epoch=0", ["a", "b"])[1].options
    ('base_epoch=0',)
  """
  # no comma within brackets, which do not nest
  names = [name.strip() for name in re.split(r",(?![^\[\]]*\])", text)]
  if not all(names):
    raise ValueError(f"--balancers must be names separated by commas, got {text!r}.")
  if len(set(names)) < len(names):
    raise ValueError(f"--balancers names a balancer twice: {text!r}.")
  contenders = []
  for name in names:
    spec, *options = name.split(":")
    if "stl" in names_of(spec):
      raise ValueError(
        "--balancers must not name stl: a baseline is run for each task by itself."
      )
    make_balancer(spec, options, task_names=task_names, steps_per_epoch=1)
    contenders.append(Contender(name, spec, tuple(options)))
  return contenders


@dataclasses.dataclass(frozen=True)
class Run:
  """One training run.

  Attributes:
    name: what it is called while it runs.
    folder: below OUT.
    seed: its seed.
    contender: its balancer; None for a baseline.
    task: the task of a baseline; None otherwise.
  """

  name: str
  folder: str
  seed: int
  contender: Contender | None = None
  task: str | None = None


@dataclasses.dataclass(frozen=True)
class Job:
  """One process.

  Attributes:
    name: what it is called while it runs.
    folder: its --out, below OUT.
    arguments: the arguments of the experiment, beside those that all jobs have.
    runs: what it trains.
    cost: the balancer whose step it takes, for the estimate of its time.
  """

  name: str
  folder: str
  arguments: tuple[str, ...]
  runs: tuple[Run, ...]
  cost: str

  @property
  def log(self) -> str:
    """What the process writes, below OUT."""
    return f"{self.folder}.log"


def missing(out: Path, runs: Sequence[Run], num_epochs: int) -> list[Run]:
  """The runs that are not complete."""
  return [run for run in runs if read_summary(out / run.folder, num_epochs) is None]


def read_summary(folder: Path, num_epochs: int) -> dict[str, Any] | None:
  """The summary.json of a complete run, or None."""
  try:
    summary = read_object(folder / "summary.json")
  except (OSError, ValueError):
    return None
  return summary if summary.get("epochs") == num_epochs else None


def baseline_jobs(task_names: Sequence[str]) -> list[Job]:
  """A job for the single-task run of each task."""
  jobs = []
  for task in task_names:
    name, folder = f"stl {task}", f"baselines/stl-{_file_name(task)}"
    jobs.append(
      Job(
        name=name,
        folder=folder,
        arguments=("--balancer=stl", f"--balancer-options=task={task}", "--seed=0"),
        runs=(Run(name, folder, seed=0, task=task),),
        cost="ew",
      )
    )
  return jobs


def contender_jobs(
  contender: Contender, seeds: Sequence[int], at_once: int
) -> list[Job]:
  """The jobs that train a balancer with every seed.

  Args:
    contender: the balancer.
    seeds: all of them.
    at_once: how many are trained in one step; 1 for one after another.
  """
  folder = f"runs/{_file_name(contender.text)}"
  jobs = []
  for start in range(0, len(seeds), at_once):
    some = seeds[start : start + at_once]
    if len(some) == 1:
      (seed,) = some
      own, arguments = f"{folder}/seed{seed}", (f"--seed={seed}",)
      folders = [own]
      name = f"{contender.text}, seed {seed}"
    else:
      own = f"{folder}/together-{'-'.join(map(str, some))}"
      arguments = ("--devices=1", "--seeds", *map(str, some))
      folders = [f"{own}/seed{seed}" for seed in some]
      name = f"{contender.text}, seeds {', '.join(map(str, some))}"
    jobs.append(
      Job(
        name=name,
        folder=own,
        arguments=(*contender.arguments, *arguments),
        runs=tuple(
          Run(f"{contender.text}, seed {seed}", path, seed, contender=contender)
          for seed, path in zip(some, folders, strict=True)
        ),
        cost=contender.text,
      )
    )
  return jobs


def _file_name(text: str) -> str:
  return urllib.parse.quote(text, safe="+=")
