"""The problem that an `ArrayTask` poses: its arrays in batches, its bases filled in."""

from pathlib import Path

import jax
import numpy as np

from igb_jax.data.molecule_batches import shuffled
from igb_jax.training.array_task import SPLITS, ArrayTask
from igb_jax.training.batches import ArrayBatches, EpochBatches
from igb_jax.training.devices import Devices
from igb_jax.training.learning_rate import LearningRateConfig
from igb_jax.training.problem import Problem, TaskMetric
from igb_jax.training.step import Params, Variables


def problem_of(
  task: ArrayTask,
  path: Path,
  config: LearningRateConfig,
  devices: Devices,
) -> Problem:
  """Makes a task of the user's, which the file `path` defines, a problem.

  Raises:
    ValueError: a batch is larger than the training split, or a metric of the untrained
      network, which is the base where the file gives none, is not positive.
  """
  train, validation, test = num_rows = [task.num_rows(split) for split in SPLITS]
  if config.batch_size > train:
    raise ValueError(
      f"--batch-size={config.batch_size} is larger than the training split, which "
      f"has {train} rows."
    )
  measures = jax.jit(task.measures, out_shardings=devices.whole)

  def measure(params: Params, variables: Variables, split: str) -> np.ndarray:
    del variables
    rows = jax.device_put(getattr(task, split), devices.whole)
    return np.asarray(jax.device_get(measures(params, rows)), np.float64)

  def batches_of_epoch(seed: int, epoch: int) -> ArrayBatches:
    order = shuffled(np.arange(train), seed=seed, epoch=epoch)
    return ArrayBatches(task.train, order, config.batch_size, devices.part)

  steps_per_epoch = train // config.batch_size
  metrics, base, notice = tuple(task.metrics), "task file", None
  if metrics[0].base is None:
    base = "untrained network"
    notice = (
      "delta_m is the change against the untrained network, not against single-task "
      "ones; the task file may give those as base=."
    )
    # the same network for all seeds, so that their delta_m are comparable
    params = jax.device_put(jax.jit(task.init)(jax.random.key(0)), devices.whole)
    bases = measure(params, None, "validation").tolist()
    metrics = tuple(map(_with_base, metrics, bases))
  return Problem(
    name=task.name,
    description=(
      f"{train} rows to train on, {validation} to validate and {test} to test, from "
      f"{path}"
    ),
    task_names=task.task_names,
    metrics=metrics,
    base=base,
    steps_per_epoch=steps_per_epoch,
    batches=lambda seed: EpochBatches(
      lambda epoch: batches_of_epoch(seed, epoch), steps_per_epoch, config.epochs
    ),
    init=task.init,
    losses=task.losses,
    measure=measure,
    trunk=task.trunk,
    present=task.present,
    # absolute, since delta_m may be below zero, where a rise of rtol would do
    plateau=config.plateau(atol=0.01),
    schedule=config.along(config.epochs * steps_per_epoch),
    notice=notice,
    facts={"task": str(path), "num_rows": num_rows},
  )


def _with_base(metric: TaskMetric, base: float) -> TaskMetric:
  if not 0 < base < np.inf:
    raise ValueError(
      f"the metric {metric.name!r} of the untrained network is {base}, which allows "
      "no relative change; give every metric a positive base= in the task file."
    )
  return metric._replace(base=base)
