"""What a step of each balancer costs, beside ew's in turns; a process of its own.

    python -m experiments.comparison.measure REQUEST ANSWER

REQUEST is a JSON file that names the data set, the arguments of its experiment, the
balancers and the seeds; ANSWER becomes one. The steps are real ones, on real batches.
"""

import contextlib
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from igb_jax.training.experiment import Experiment, for_seed
from igb_jax.training.main import use_compilation_cache
from igb_jax.training.results import say
from igb_jax.training.run import EXIT_BAD_INPUT
from igb_jax.training.run_folder import write_whole
from igb_jax.training.seeds import stack, step_together
from igb_jax.training.step import Batch, TrainState

from .datasets import DATASETS, Dataset
from .plan import Contender

# of the answer
FIELDS = frozenset({
  "dataset", "description", "notice", "base", "metrics", "tasks", "steps_per_epoch",
  "made_seconds", "evaluation_seconds", "device", "seeds", "timing",
})  # fmt: skip
TURNS = 5
_EW = Contender("ew", "ew")
_SECONDS_OF_TURN = 0.5
_MEMORY_SHARE = 0.8  # of what is free, for several seeds at once


class _Stepper:
  """Takes steps of an experiment, on a few batches again and again."""

  def __init__(self, step: Callable[[TrainState, Batch], TrainState], state, batches):
    compiled = jax.jit(step, donate_argnums=0).lower(state, batches[0]).compile()
    self._step, self._state, self._batches = compiled, state, batches
    self.memory_bytes = _memory_bytes(compiled)
    self.steps(1)  # the first allocates

  def steps(self, count: int) -> float:
    """Seconds that so many steps take."""
    start = time.perf_counter()
    for index in range(count):
      self._state = self._step(self._state, self._batches[index % len(self._batches)])
    jax.block_until_ready(self._state)
    return time.perf_counter() - start


def _memory_bytes(compiled: Any) -> int | None:
  """The most that a step holds, or None where the platform does not say."""
  plan = compiled.memory_analysis()
  if plan is None:
    return None
  held = plan.argument_size_in_bytes + plan.output_size_in_bytes
  return int(held - plan.alias_size_in_bytes + plan.temp_size_in_bytes)


def measure_steps(
  ew: _Stepper,
  make_experiment: Callable[[Contender], Experiment[Any]],
  contenders: Sequence[Contender],
  say_line: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
  """Seconds of a step and memory of each balancer, in turns with ew.

  Returns:
    name -> `seconds` of a step in each turn, the ratios `of_ew`, `memory_bytes`.
  """
  count = max(1, round(_SECONDS_OF_TURN / ew.steps(1)))
  timing = {}
  for contender in contenders:
    stepper = ew
    if contender != _EW:
      with contextlib.closing(make_experiment(contender)) as experiment:
        stepper = _stepper(experiment)
    seconds, of_ew = [], []
    for turn in range(TURNS):
      pair = [ew, stepper][:: 1 if turn % 2 else -1]  # none is always first
      taken = {each: each.steps(count) / count for each in dict.fromkeys(pair)}
      seconds.append(taken[stepper])
      of_ew.append(taken[stepper] / taken[ew])
    timing[contender.text] = {
      "seconds": seconds,
      "of_ew": of_ew,
      "memory_bytes": stepper.memory_bytes,
    }
    say_line(
      f"{contender.text}: {np.median(seconds):.4f} s a step, {np.median(of_ew):.2f} of "
      "ew's"
    )
  return timing


def _stepper(experiment: Experiment[Any]) -> _Stepper:
  return _Stepper(experiment.step, experiment.init_state(), _some_batches(experiment))


def _some_batches(experiment: Experiment[Any], most: int = 8) -> list[Batch]:
  """Batches of the first epoch of one shape, on the device."""
  batches: list[Batch] = []
  for batch in experiment.epoch_batches(0):
    shapes = jax.tree.map(np.shape, batch)
    if not batches or shapes == jax.tree.map(np.shape, batches[0]):
      batches.append(batch)
    if len(batches) == most:
      break
  return batches


def measure_seeds(
  experiment: Experiment[Any], alone: _Stepper, seeds: Sequence[int], together: str
) -> tuple[int, str | None]:
  """How many seeds of a loss balancer are best trained at once, and why, in a sentence.

  Args:
    experiment: an experiment with ew, on one device.
    alone: takes its steps.
    seeds: the seeds of the comparison.
    together: "always", "never", or "auto" to take what is faster.
  """
  if len(seeds) == 1 or together == "never":
    return 1, None
  if jax.device_count() > 1:
    return 1, "seeds are trained one after another, since each run uses all devices"
  free = free_memory()
  at_once = len(seeds)
  if free is not None and alone.memory_bytes:
    at_once = min(at_once, int(_MEMORY_SHARE * free) // alone.memory_bytes)
  if at_once < 2:
    return 1, "seeds are trained one after another, since memory is for one only"
  if together == "always":
    return at_once, f"{at_once} seeds are trained at once"
  each = [for_seed(experiment, seed) for seed in seeds[:at_once]]
  states = stack([one.init_state() for one in each])
  batches = _some_batches(experiment)
  shifted = [
    tuple(batches[(index + i) % len(batches)] for i in range(at_once))
    for index in range(len(batches))
  ]
  together_step = functools.partial(step_together, experiment.step)
  several = _Stepper(together_step, states, shifted)
  count = max(1, round(_SECONDS_OF_TURN / several.steps(1)))
  ratios = [several.steps(count) / (at_once * alone.steps(count)) for _ in range(TURNS)]
  ratio = float(np.median(ratios))
  how = (
    f"a step of {at_once} seeds at once takes {ratio:.2f} [{min(ratios):.2f}, "
    f"{max(ratios):.2f}] of the time of as many steps"
  )
  if ratio >= 1:
    return 1, f"seeds are trained one after another: {how}, measured with ew"
  return at_once, f"{at_once} seeds are trained at once: {how}"


def free_memory() -> int | None:
  """Bytes that are free on the device, or None where it does not say."""
  device = jax.local_devices()[0]
  if device.platform == "cpu":
    try:
      return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
      return None
  stats = device.memory_stats() or {}
  if "bytes_limit" not in stats:
    return None
  return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def check_parallel(count: int, device: str) -> None:
  """Checks that so many runs at a time fit the device.

  Raises:
    ValueError: it is not a CPU, and there is more than one.
  """
  if count > 1 and device != "cpu":
    raise ValueError(f"--parallel is for CPUs; here each run has {device} to itself.")


def _make_experiment(
  dataset: Dataset, config: Any, contender: Contender
) -> Experiment[Any]:
  changed = dataclasses.replace(
    config, balancer=contender.spec, balancer_options=contender.options
  )
  with _refusing():
    return Experiment(dataset.module.make_problem, changed)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
  """Ends the process with a message where a run would be refused."""
  try:
    yield
  except (ValueError, TypeError, OSError) as error:
    say(Console(), str(error))
    sys.exit(EXIT_BAD_INPUT)


def main() -> None:
  """Reads the request, measures, writes the answer."""
  request_path, answer_path = map(Path, sys.argv[1:])
  request = json.loads(request_path.read_text())
  console = Console()
  use_compilation_cache()
  with _refusing():
    check_parallel(request["parallel"], jax.devices()[0].device_kind)
  dataset = DATASETS[request["dataset"]]
  config = dataset.module.parse_config(request["arguments"])
  make_experiment = functools.partial(_make_experiment, dataset, config)
  start = time.perf_counter()
  ew = make_experiment(_EW)
  made_seconds = time.perf_counter() - start
  with contextlib.closing(ew):
    state = ew.init_state()
    ew.evaluate(state, "validation")  # compiles
    evaluation_seconds = {}
    for split in ("validation", "test"):
      start = time.perf_counter()
      ew.evaluate(state, split)
      evaluation_seconds[split] = time.perf_counter() - start
    stepper = _stepper(ew)
    at_once, why = measure_seeds(ew, stepper, request["seeds"], request["together"])
  contenders = [Contender(**each) for each in request["contenders"]]
  timing = measure_steps(
    stepper, make_experiment, contenders, lambda line: say(console, line)
  )
  problem = ew.problem
  answer = {
    "dataset": problem.name,
    "description": problem.description,
    "notice": problem.notice,
    "base": problem.base,
    "metrics": [metric._asdict() for metric in problem.metrics],
    "tasks": list(problem.task_names),
    "steps_per_epoch": problem.steps_per_epoch,
    "made_seconds": made_seconds,
    "evaluation_seconds": evaluation_seconds,
    "device": jax.devices()[0].device_kind,
    "seeds": {"at_once": at_once, "why": why},
    "timing": timing,
  }
  write_whole(answer_path, json.dumps(answer, indent=2))


if __name__ == "__main__":
  main()
