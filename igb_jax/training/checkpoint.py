"""Checkpoints: where a run resumes after it was stopped, even killed at any moment.

    checkpoints/<steps>/state/           the TrainState, by orbax
    checkpoints/<steps>/progress/        JSON: the score, and what the loop must know
    checkpoints/<steps>/checksums.json   SHA-256 of every file of the two

`<steps>` counts the training steps before it. All three are written under another name,
and the folder is renamed at the end, so that a checkpoint is there whole or not at all.
The checksums tell what happens to one later: a file that is cut short, changed or gone.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from igb_jax.training.checksums import CHECKSUMS, checksums, damage_of, sync
from igb_jax.training.interval import EVERY_EPOCH, Interval
from igb_jax.training.step import TrainState


class NewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
  """Keeps the newest checkpoints, two at least, and the best one of each seed."""

  def __init__(self, keep: int, scores: Mapping[int, np.ndarray]):
    """Keeps `keep` of the newest; `scores`, steps -> f[S] of the seeds, may grow."""
    self._keep = max(keep, 2)
    self._scores = scores

  def should_preserve(
    self,
    checkpoints: Sequence[Any],
    *,
    context: ocp.checkpoint_managers.PreservationContext,
  ) -> Sequence[bool]:
    """Which of the checkpoints, which are in order, stay."""
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    kept = {*steps[-self._keep :]}
    if self._scores:
      saved = sorted(self._scores)
      best = np.argmin([self._scores[each] for each in saved], axis=0)
      kept.update(saved[place] for place in best)
    return [step in kept for step in steps]


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or none can be read; those before it stay."""


def abstract(state: TrainState) -> TrainState:
  """Shapes, dtypes and shardings of a state, by which another is restored.

  The state may have been donated.
  """
  return jax.tree.map(ocp.utils.to_shape_dtype_struct, state)


class Checkpoints:
  """The folder `checkpoints/` of a run; a context that ends when all is written.

  Keeps the newest checkpoints and that with the least validation score of each seed.
  Saving does not wait for the disk.

  Attributes:
    damaged: number of steps -> what is wrong with that checkpoint, of those that were
      found and cannot be used.
  """

  def __init__(self, folder: Path, *, every: Interval = EVERY_EPOCH, keep: int = 1):
    """Opens the folder, which is created, and examines what it holds."""
    self._folder = folder.absolute()
    self._every = every
    self._saved_at = time.monotonic()
    self._saving = 0
    self._scores: dict[int, np.ndarray] = {}  # steps -> f[S]
    self.damaged: dict[int, str] = {}
    options = ocp.CheckpointManagerOptions(
      preservation_policy=NewestAndBest(keep, self._scores),
      cleanup_tmp_directories=True,  # what a killed run was writing
      lightweight_initialize=True,  # a damaged checkpoint is no error here
      async_options=ocp.AsyncOptions(post_finalization_callback=self._add_checksums),
    )
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    for steps in self._manager.all_steps():
      damage = damage_of(self._folder / str(steps))
      if damage:
        self.damaged[steps] = damage
        continue
      content = self._manager.restore(
        steps, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
      )
      score = content["progress"]["score"]
      if score is not None:
        self._scores[steps] = np.atleast_1d(score)

  @property
  def newest(self) -> int | None:
    """Number of steps before the newest checkpoint, or None if nothing was saved."""
    return self._manager.latest_step()

  def is_due(self, epochs: int | None = None) -> bool:
    """Whether it is time for another checkpoint.

    Args:
      epochs: how many have ended, where one just has; None within an epoch.
    """
    if self._every.seconds is not None:
      return time.monotonic() - self._saved_at >= self._every.seconds
    return epochs is not None and epochs % (self._every.epochs or 1) == 0

  def is_best(self, score: np.typing.ArrayLike) -> bool:
    """Whether no checkpoint has a validation score as low, of one of the seeds."""
    score = np.atleast_1d(np.asarray(score, np.float64))
    before = [*self._scores.values(), np.full_like(score, np.inf)]
    return bool((score < np.min(before, axis=0)).any())

  def save(
    self,
    steps: int,
    state: TrainState,
    progress: Mapping[str, Any],
    score: np.typing.ArrayLike | None = None,
  ) -> None:
    """Saves a state, unless there is a checkpoint after as many steps.

    Args:
      steps: number of training steps before it.
      state: the state.
      progress: what must be known beside it, of what JSON can hold.
      score: the validation score at the end of an epoch, of each seed, lower is better;
        None within an epoch.

    Raises:
      CheckpointError: this one or the one before could not be written.
    """
    if steps in self._manager.all_steps():
      return
    with self._writing():
      self._manager.wait_until_finished()
      newest = self._manager.latest_step()
      if newest is not None and steps < newest:  # orbax would decline, and say nothing
        raise ValueError(f"there is one after {newest} steps, this is after {steps}")
      self._saving = steps
      if score is not None:
        self._scores[steps] = np.atleast_1d(score)
        score = np.squeeze(score).tolist()
      self._manager.save(
        steps,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),  # pyright: ignore[reportCallIssue]
          progress=ocp.args.JsonSave({"score": score, "progress": progress}),
        ),
      )
    self._saved_at = time.monotonic()

  def restore_newest(
    self, template: TrainState
  ) -> tuple[TrainState, dict[str, Any]] | None:
    """Restores the newest checkpoint that is intact, and removes the damaged ones.

    Args:
      template: any state of the same run, or its `abstract`; the restored one gets its
        shardings.

    Returns:
      The state and the progress, or None if nothing was saved.

    Raises:
      CheckpointError: there are checkpoints, and none can be read.
    """
    intact = [step for step in self._manager.all_steps() if step not in self.damaged]
    if intact:
      restored = self._restore(max(intact), template)
      for steps in self.damaged:
        self._manager.delete(steps)
      return restored
    if self.damaged:
      raise CheckpointError(
        f"every checkpoint in {self._folder} is damaged: "
        + "; ".join(f"{steps}: {what}" for steps, what in self.damaged.items())
        + ". Restore one from a copy, or start again with another --out."
      )
    return None

  def restore_best(
    self, template: TrainState, seed: int = 0
  ) -> tuple[TrainState, dict[str, Any]] | None:
    """Restores the checkpoint with the least score, once all are written.

    Args:
      template: see `restore_newest`.
      seed: place of the seed whose score counts.

    Returns:
      The state and the progress, or None if no epoch was saved.

    Raises:
      CheckpointError: it cannot be read, or the last one could not be written.
    """
    with self._writing():
      self._manager.wait_until_finished()
    if not self._scores:
      return None
    best = min(self._scores, key=lambda steps: self._scores[steps][seed])
    return self._restore(best, template)

  def _restore(
    self, steps: int, template: TrainState
  ) -> tuple[TrainState, dict[str, Any]]:
    try:
      content = self._manager.restore(
        steps,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(abstract(template)),  # pyright: ignore[reportCallIssue]
          progress=ocp.args.JsonRestore(),
        ),
      )
    except Exception as error:  # whatever orbax, tensorstore or the disk raise
      hint = ""
      if isinstance(error, ValueError):  # its files are those that were written
        hint = (
          ". Another net or version of igb_jax has written it: resume with that, or "
          "start a new run in another --out"
        )
      raise CheckpointError(
        f"checkpoint {self._folder / str(steps)} could not be read: "
        f"{_reason(error)}{hint}"
      ) from error
    return content["state"], content["progress"]["progress"]

  def _add_checksums(self) -> None:
    """Called by orbax after it wrote the files, before it renames the folder."""
    if jax.process_index() != 0:
      return
    name = str(self._saving)
    (folder,) = (
      path for path in self._folder.iterdir() if path.name.partition(".")[0] == name
    )
    sums = folder / CHECKSUMS
    sums.write_text(json.dumps(checksums(folder)))
    # older ones are deleted soon: this one must survive a power cut by then
    for path in (sums, *folder.glob("*/**/*")):
      if path.is_file():
        sync(path)

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # whatever orbax, tensorstore or the disk raise
      raise CheckpointError(
        f"a checkpoint could not be written to {self._folder}: {_reason(error)}. The "
        "earlier ones are intact; free some space, and resume."
      ) from error

  def __enter__(self) -> "Checkpoints":
    """Returns itself."""
    return self

  def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
    """Waits until all is on disk.

    Raises:
      CheckpointError: the last checkpoint could not be written.
    """
    del kind, traceback
    failures = []
    for finish in (self._manager.wait_until_finished, self._manager.close):
      try:
        with self._writing():
          finish()
      except CheckpointError as failure:
        failures.append(failure)
    if failures and error is None:  # else that error says what happened first
      raise failures[0]


def _reason(error: Exception) -> str:
  """What went wrong, without tensorstore's specification and orbax's advice."""
  ends = (r" \[", r"\. Truncating/padding", r"\s*If this mismatch is intentional")
  return re.split("|".join(ends), str(error), maxsplit=1)[0]
