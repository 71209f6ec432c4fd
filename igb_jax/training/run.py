"""A run from its first step to its table: what every problem has alike."""

import contextlib
import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console

from igb_jax.training.checkpoint import CheckpointError, Checkpoints, abstract
from igb_jax.training.experiment import Experiment, for_seed
from igb_jax.training.failures import NonFiniteError
from igb_jax.training.interrupt import stop_on_signal
from igb_jax.training.interval import parse_interval
from igb_jax.training.loggers import Loggers, open_loggers
from igb_jax.training.loop import train
from igb_jax.training.progress import TrainProgress
from igb_jax.training.records import EpochRecord, Progress, progress_from_json
from igb_jax.training.results import judged_split, metrics_line, say, write_results
from igb_jax.training.run_folder import RunFolder
from igb_jax.training.seeds import make_seeds_step, of_seed, stack
from igb_jax.training.step import TrainState

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def run(
  experiment: Experiment[Any], folder: RunFolder, *, console: Console, again: str
) -> int:
  """Trains, tests the epoch with the best validation, and writes the results.

  With `--seeds` every seed has its results in seed0/, seed1/, ... below the run's
  folder, which has the checkpoints of all.

  After Ctrl-C what there is by then is tested and written; after SIGTERM it is saved,
  and no more. A second Ctrl-C, or either one during the test, ends the process at once.
  With several processes either one to any of them has all save after the same step, and
  no more.

  `again` is the command that resumes the run.

  Returns:
    The exit code: 0 if the run took all of its epochs, else that of the signal.

  Raises:
    NonFiniteError: a loss, gradient or metric was not finite. What was saved stays, and
      the results of the other seeds are written.
    LoadingError: a batch could not be loaded. What was saved stays.
    CheckpointError: a checkpoint could not be written, or none of a run that is resumed
      can be read. What was saved stays.
    OSError: another file could not be written.
  """
  config, problem = experiment.config, experiment.problem
  if not (folder.path / "config.json").exists():
    folder.write_json("config.json", dataclasses.asdict(config))
  _announce(experiment, folder, console)
  with contextlib.ExitStack() as opened:
    experiments, folders = [experiment], [folder]
    if config.seeds:
      experiments = [_of_seed(experiment, folder, seed) for seed in config.seeds]
      folders = [
        RunFolder(each.config.out, resumed=config.resume) for each in experiments
      ]
      for each in (*experiments, *folders):
        opened.enter_context(contextlib.closing(each))
    state = stack([each.init_state() for each in experiments])
    template = abstract(state)
    several = len(experiments) > 1
    step = make_seeds_step(experiment.step) if several else experiment.step
    progress = TrainProgress(console, config.epochs, problem.steps_per_epoch)
    checkpoints = Checkpoints(
      folder.checkpoints,
      every=parse_interval(config.checkpoint_every),
      keep=config.keep,
    )
    loggers: list[Loggers] = []

    def batches_of_epoch(epoch: int, start: int) -> Iterable[Any]:
      batches = [each.epoch_batches(epoch, start) for each in experiments]
      return zip(*batches, strict=True) if several else batches[0]

    def on_epoch(index: int, record: EpochRecord) -> None:
      own = experiments[index].config
      line = metrics_line(experiments[index], record)
      folders[index].append_metrics(line)
      loggers[index].write(line)
      seed = f", seed {own.seed}" if several else ""
      progress.line(
        f"epoch {record.epoch + 1}/{own.epochs}{seed}: mean loss "
        f"{np.nanmean(record.losses):.4f}, {judged_split(problem)} delta_m "
        f"{record.validation.score:.1f}%, {record.train_seconds:.1f} s"
      )

    with stop_on_signal() as stop, checkpoints, progress:
      start = [Progress()] * len(experiments)
      if config.resume:
        state, start = _resume(experiment, checkpoints, state, start, console)
        folder.write_json("config.json", dataclasses.asdict(config))  # some may differ
      for each, own, done in zip(experiments, folders, start, strict=True):
        if config.seeds:
          own.write_json("config.json", dataclasses.asdict(each.config))
        # only now: TensorBoard forgets what was logged before
        logger = _start_loggers(each, own, progress)
        loggers.append(opened.enter_context(contextlib.closing(logger)))
        if config.resume:
          lines = [metrics_line(each, record) for record in done.records]
          own.write_metrics(lines)
          for line in lines:
            logger.write(line)
      state, reached = train(
        state,
        step=step,
        batches_of_epoch=batches_of_epoch,
        evaluate=lambda state: experiment.evaluate(state, "validation"),
        plateau=problem.plateau,
        schedule=problem.schedule,
        task_names=problem.task_names,
        num_epochs=config.epochs,
        checkpoints=checkpoints,
        progress=progress,
        stop=stop,
        on_epoch=on_epoch,
        start=start,
        follows_scores=experiment.follows_scores,
      )
      stop.agree()  # a signal may have come during the last validation
      if stop.at_once:
        say(console, f"stopped and saved; to resume: {again}")
        return EXIT_TERMINATED
      places = range(len(experiments))
      best = [checkpoints.restore_best(template, index) for index in places]
    for index, (each, own) in enumerate(zip(experiments, folders, strict=True)):
      found = best[index]
      if reached[index].failure or found is None:
        continue
      best_state, content = found
      write_results(
        each,
        own,
        reached=reached[index],
        final=of_seed(state, index, len(experiments)),
        best=of_seed(best_state, index, len(experiments)),
        best_epoch=len(progress_from_json(content)[index].records) - 1,
        console=console,
        facts={"seeds_at_once": list(config.seeds)} if config.seeds else {},
      )
  failed = [
    f"seed {seed}: {each.failure}"
    for seed, each in zip(config.seeds, reached, strict=False)
    if each.failure
  ]
  if failed:
    raise NonFiniteError(-1, [], " ".join(failed))
  if best[0] is None:
    say(console, "stopped before the first epoch ended: there is nothing to test.")
    say(console, f"to resume: {again}")
    return EXIT_INTERRUPTED
  epochs = len(reached[0].records)
  say(console, f"  {folder.checkpoints}/")
  if epochs == config.epochs:
    return 0
  say(console, f"stopped after {epochs} of {config.epochs} epochs; to resume: {again}")
  return EXIT_INTERRUPTED


def _announce(experiment: Experiment[Any], folder: RunFolder, console: Console) -> None:
  config, problem = experiment.config, experiment.problem
  named = ", ".join(map(str, config.seeds))
  seeds = f"seeds {named}" if config.seeds else f"seed {config.seed}"
  device = experiment.devices.describe()
  say(
    console,
    f"{problem.name}, {config.balancer}, {seeds}: {config.epochs} epochs of "
    f"{problem.steps_per_epoch} steps on {device}; files in {folder.path}",
  )
  say(console, f"data: {problem.description}")
  if problem.notice:
    say(console, problem.notice)


def _of_seed(
  experiment: Experiment[Any], folder: RunFolder, seed: int
) -> Experiment[Any]:
  """One of several seeds, with the configuration that it would have alone."""
  each = for_seed(experiment, seed)
  out = folder.path / f"seed{seed}"
  each.config = dataclasses.replace(each.config, seeds=(), out=out)
  return each


def _start_loggers(
  experiment: Experiment[Any], folder: RunFolder, progress: TrainProgress
) -> Loggers:
  if not folder.writes:
    return Loggers({}, print)
  config = experiment.config
  name = f"{experiment.problem.name}-{config.balancer}-seed{config.seed}"
  return open_loggers(config, folder.path, name=name, report=progress.line)


def _resume(
  experiment: Experiment[Any],
  checkpoints: Checkpoints,
  state: TrainState,
  start: list[Progress],
  console: Console,
) -> tuple[TrainState, list[Progress]]:
  """The newest state that is intact and how far it is; those given if there is none."""
  for steps, what in checkpoints.damaged.items():
    say(console, f"skipping damaged checkpoint {steps}: {what}.")
  restored = checkpoints.restore_newest(state)
  if restored is None:
    say(console, "no checkpoint yet: the run starts from the beginning.")
    return state, start
  state, content = restored
  start = progress_from_json(content)
  epochs, steps = max(len(each.records) for each in start), start[0].steps
  steps_per_epoch = experiment.problem.steps_per_epoch
  num_epochs = experiment.config.epochs
  reached = epochs * steps_per_epoch + steps
  if reached != checkpoints.newest:
    raise CheckpointError(
      f"the data have changed: an epoch has {steps_per_epoch} steps now, so that "
      f"{epochs} epochs and {steps} steps are {reached}, not {checkpoints.newest}. "
      "Restore the old data, or choose another --out."
    )
  begun = epochs + (steps > 0)
  if begun > num_epochs:
    raise CheckpointError(
      f"the run has already reached epoch {begun}; --epochs must be at least {begun}, "
      f"got {num_epochs}."
    )
  of_next = f", step {steps} of the next epoch" if steps else ""
  say(console, f"resuming after epoch {epochs}{of_next}.")
  return state, start
