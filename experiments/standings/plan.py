"""Who plays: methods with their options, and which of them fit which problem.

A method is named as for `balancers.create`, with hyper-parameters after colons. After
an @ stands how many times as long as others it is trained, or that its gradients are
balanced at the features that the heads read and not at the shared parameters:
"igbv1+nashmtl:update_every=2", "ew@2", "mgda@features".
"""

import dataclasses
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from igb_jax import balancers
from igb_jax.balancers.methods import METHODS
from igb_jax.balancers.registry import names_of
from igb_jax.training.array_task import ArrayTask
from igb_jax.training.balancing import make_balancer

from ..comparison.plan import Contender
from ..problems import entrants_of
from ..problems.base import Training

# What single-task nets reach, to which delta_m is relative.
SINGLE = "stl"
# For the question what ew reaches in the time that a gradient method takes.
LONGER = ("ew@2", "ew@4", "ew@8")
COMBINED = (
  "igbv1+cagrad",
  "igbv1+imtlg",
  "igbv1+nashmtl",
  "si+cagrad",
  "si+dbmtl",
  "si+mgda",
  "si+nashmtl",
)


@dataclasses.dataclass(frozen=True)
class Entrant(Contender):
  """A method as it takes part.

  Attributes:
    length: how many times as long as others it is trained.
    moved: whether it balances at the features though it need not.
  """

  length: int = 1
  moved: bool = False

  @property
  def names(self) -> list[str]:
    """Its loss and gradient balancers."""
    return names_of(self.spec)

  @property
  def at_features(self) -> bool:
    """Whether it balances at the features that the heads read."""
    return self.moved or any(
      METHODS[name].traits.backward_passes == "heads" for name in self.names
    )

  @property
  def kind(self) -> str:
    """One of "loss", "gradient" and "both"."""
    kinds = {METHODS[name].kind for name in self.names}
    return "both" if len(kinds) > 1 else kinds.pop()


def parse(text: str) -> Entrant:
  """Reads the name of an entrant.

  Args:
    text: the name, as this module says; its balancers need not be known.

  Raises:
    ValueError: what stands after the @ is wrong.

  Example:
    >>> parse("igbv1+nashmtl:update_every=2").options, parse("ew@2").length
    (('update_every=2',), 2)
  """
  spec, *options = text.split(":")
  spec, at, other = spec.partition("@")
  if other == "features":
    return Entrant(text, spec, tuple(options), moved=True)
  if at and not (other.isdecimal() and int(other) > 1):
    raise ValueError(
      f'after the @ of {text!r} there must be a number above 1, or "features".'
    )
  return Entrant(text, spec, tuple(options), int(other or 1))


class Cell(NamedTuple):
  """A method on a problem.

  Attributes:
    problem: its name.
    method: its name, as `parse` reads it.
  """

  problem: str
  method: str

  def path(self, out: Path) -> Path:
    """Its file."""
    name = urllib.parse.quote(self.method, safe="+=@")
    return out / "cells" / self.problem / f"{name}.json"

  def error_path(self, out: Path) -> Path:
    """The file that says why it could not be played."""
    return self.path(out).with_suffix(".error")


def cells_of(problems: Sequence[str], methods: Sequence[str] | None) -> list[Cell]:
  """What is to be played, problem by problem, single tasks first.

  Args:
    problems: their names.
    methods: the names of the entrants; None for those that each problem has.
  """
  return [
    Cell(problem, method)
    for problem in problems
    for method in (SINGLE, *players(problem, methods))
  ]


def players(problem: str, methods: Sequence[str] | None) -> Sequence[str]:
  """Who plays a problem, beside single tasks: the methods, or those that it names."""
  return methods or entrants_of(problem) or everyone()


def everyone() -> list[str]:
  """All methods, some combinations, and ew trained for longer."""
  return [*(name for name in METHODS if name != SINGLE), *COMBINED, *LONGER]


def unfit(entrant: Entrant, task: ArrayTask, training: Training) -> str | None:
  """Why a method cannot take part in a problem, or None if it can.

  Example:
    >>> from experiments.problems import load
    >>> unfit(parse("si"), *load("toy"))
    'needs positive losses'
  """
  traits = [METHODS[name].traits for name in entrant.names]
  if any(each.needs_positive for each in traits) and not training.positive:
    return "needs positive losses"
  if entrant.at_features and task.trunk is None:
    return "needs features that all tasks share"
  if entrant.moved and entrant.kind == "loss":
    return "balances no gradients"
  fewest = max(getattr(each, "fewest_tasks", 1) for each in traits)
  if fewest > len(task.task_names):
    return f"needs {fewest} tasks"
  if "pivrg" in entrant.names:
    return "is fairgrad without the scores of single-task nets"
  if entrant.spec == SINGLE and training.judged_by != "delta_m":
    return "judges problems with delta_m alone"
  return None


def make(
  entrant: Entrant, task_names: Sequence[str], steps_per_epoch: int
) -> balancers.Balancer:
  """The balancer, with the published defaults.

  Raises:
    TypeError, ValueError: an option is wrong.
  """
  ones = f"preference={[1] * len(task_names)}"
  without_default = {"cosmos": ones, "pbi": ones, "stchraw": "mu=1"}
  needed = [without_default[name] for name in entrant.names if name in without_default]
  return make_balancer(
    entrant.spec,
    [*needed, *entrant.options],
    task_names=task_names,
    steps_per_epoch=steps_per_epoch,
  )


def check_names(problems: Sequence[str], methods: Sequence[str] | None) -> None:
  """Checks what the command line names, but for the problems' own names.

  Raises:
    TypeError, ValueError: one is there twice, is unknown, or has a bad option.
  """
  for option, names in (("--problems", problems), ("--methods", methods)):
    if names is not None and (not names or len({*names}) < len(names)):
      raise ValueError(f"{option} needs names, each once, got {', '.join(names)!r}.")
  for name in methods or ():
    entrant = parse(name)
    if SINGLE in entrant.names:
      raise ValueError("--methods must not name stl: single tasks are trained anyway.")
    make(entrant, ["a", "b", "c"], 1)  # three tasks are enough for every method
