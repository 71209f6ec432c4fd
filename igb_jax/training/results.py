"""What a run writes of what it found: lines of metrics.jsonl, summary.json, plots."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from igb_jax.training.experiment import Experiment
from igb_jax.training.plots import plot_run
from igb_jax.training.problem import BesideTheMean, Problem
from igb_jax.training.records import (
  EpochRecord,
  Evaluation,
  GradientRecord,
  Progress,
)
from igb_jax.training.run_folder import RunFolder
from igb_jax.training.step import TrainState


def say(console: Console, text: str) -> None:
  """Prints a line as it is, however long."""
  console.print(text, markup=False, highlight=False, soft_wrap=True)


def metrics_line(experiment: Experiment[Any], record: EpochRecord) -> dict[str, Any]:
  """An epoch's line of metrics.jsonl."""
  names = experiment.problem.task_names
  return {
    "epoch": record.epoch,
    "num_steps": record.num_steps,
    "skipped_steps": record.skipped_steps,
    "losses": {
      name: None if np.isnan(loss) else float(loss)  # a task without a label
      for name, loss in zip(names, record.losses, strict=True)
    },
    "weights": dict(zip(names, record.weights.tolist(), strict=True)),
    "learning_rate_scale": record.learning_rate_scale,
    "validation": record.validation.metrics,
    "validation_delta_m": record.validation.score,
    "steps_seconds": record.train_seconds,
    "data_seconds": record.data_seconds,
    "seconds_per_step": _median(record.seconds_per_step),
    **_gradient_facts(record.gradient),
    **experiment.problem.epoch_facts(experiment.config.seed, record.epoch),
  }


def write_results(
  experiment: Experiment[Any],
  folder: RunFolder,
  *,
  reached: Progress,
  final: TrainState,
  best: TrainState,
  best_epoch: int,
  console: Console,
  facts: Mapping[str, Any],
) -> None:
  """Tests a run, writes summary.json and the plots, and shows the table.

  The run `reached` at least one epoch. `final` is the state at the end, and `best` that
  after `best_epoch`, from 0, the epoch with the best validation. `facts` is what else
  belongs in summary.json.

  Raises:
    OSError: a file could not be written.
  """
  problem, config, records = experiment.problem, experiment.config, reached.records
  if problem.averaged_epochs is None:
    test = experiment.evaluate(best, "test")
    tested = f"of epoch {best_epoch + 1}, the best in validation"
    shown = best
  else:
    latest = [record.validation for record in records[-problem.averaged_epochs :]]
    test = _mean(latest)
    tested = f"as the mean over the last {len(latest)} epochs"
    shown = final

  beside = None
  if problem.beside_the_mean is not None:
    beside = problem.beside_the_mean(shown.params, shown.variables)
    names = [metric.name for metric in problem.metrics]
    explained = dict(zip(names, beside.explained.tolist(), strict=True))
    facts = {**facts, "explained": explained}
  last = records[-1]
  summary = folder.write_json(
    "summary.json",
    {
      "dataset": problem.name,
      "data": problem.description,
      "balancer": config.balancer,
      "balancer_options": list(config.balancer_options),
      "seed": config.seed,
      "epochs": len(records),
      "complete": len(records) == config.epochs,
      "best_epoch": best_epoch,
      "num_steps": last.num_steps,
      "skipped_steps": sum(record.skipped_steps for record in records),
      "device": jax.devices()[0].device_kind,
      "train_seconds": reached.seconds,
      "seconds_per_step": _median(
        [seconds for record in records for seconds in record.seconds_per_step]
      ),
      "data_wait_share": sum(record.data_seconds for record in records)
      / sum(record.train_seconds for record in records),
      "delta_m": test.score,
      "test": test.metrics,
      "tested": tested,
      "single_task_base": problem.base,
      "notice": problem.notice,
      **problem.facts,
      "tasks": list(problem.task_names),
      "weights": last.weights.tolist(),
      **_gradient_facts(last.gradient),
      **facts,
    },
  )
  with tempfile.TemporaryDirectory() as discarded:  # every process must take part
    plot_folder = folder.path / "plots" if folder.writes else Path(discarded)
    plots = plot_run(
      plot_folder,
      task_names=problem.task_names,
      losses=np.stack([record.losses for record in records]),
      weights=np.stack([record.weights for record in records]),
      gradients=[record.gradient for record in records if record.gradient],
      title=f"{problem.name}, {config.balancer}, seed {config.seed}",
    )
    plots += problem.plot(plot_folder, shown.params, shown.variables)
  _print_table(console, problem, test, beside, f"{problem.name}: test {tested}")
  if problem.notice:
    say(console, problem.notice)
  say(
    console,
    f"{judged_split(problem)} delta_m {records[0].validation.score:.1f}% after the "
    f"first epoch, {records[best_epoch].validation.score:.1f}% after epoch "
    f"{best_epoch + 1}, the best.",
  )
  say(console, "files:")
  names = ["config.json", "metrics.jsonl"]
  for path in (*(folder.path / name for name in names), summary, *plots):
    say(console, f"  {path}")


def judged_split(problem: Problem) -> str:
  """The split that each epoch is judged by; where the last are averaged, the test's."""
  return "validation" if problem.averaged_epochs is None else "test"


def _median(seconds: Sequence[float]) -> float | None:
  return float(np.median(seconds)) if seconds else None


def _gradient_facts(record: GradientRecord | None) -> dict[str, Any]:
  """In the order of the tasks."""
  if record is None:
    return {}
  return {
    "gradient_weights": record.weights.tolist(),
    "gradient_cosines": record.cosines.tolist(),
    "conflict_share": record.conflict_share,
    "gramian_condition_number": record.condition_number,
    "solver_residual": record.residual,
    "solver_worst_residual": record.worst_residual,
  }


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
  names = evaluations[0].metrics
  return Evaluation(
    metrics={
      name: float(np.mean([each.metrics[name] for each in evaluations]))
      for name in names
    },
    score=float(np.mean([each.score for each in evaluations])),
  )


def _print_table(
  console: Console,
  problem: Problem,
  test: Evaluation,
  beside: BesideTheMean | None,
  title: str,
) -> None:
  values = [test.metrics[metric.name] for metric in problem.metrics]
  columns = {"test": [f"{value:.4g}" for value in values]}
  if beside is not None:
    columns["predicting the mean"] = [f"{value:.4g}" for value in beside.metrics]
    columns["explained"] = [f"{100 * share:.1f}%" for share in beside.explained]
  columns[f"single-task ({problem.base})"] = [f"{base:.4g}" for base in problem.bases]
  columns["change"] = [
    f"{100 * (value - base) / base:+.0f}%"
    for value, base in zip(values, problem.bases, strict=True)
  ]
  table = Table("metric", "unit", title=title)
  for name in columns:
    table.add_column(name, justify="right")
  for metric, *cells in zip(problem.metrics, *columns.values(), strict=True):
    table.add_row(metric.name, metric.unit, *cells)
  table.add_section()
  empty = [""] * (len(columns) - 3)
  table.add_row("delta_m", "%", f"{test.score:.1f}", *empty, "0", "")
  console.print(table)
