"""Checkpoints: the newest and the best epoch of a run, kept by orbax."""

from pathlib import Path
from types import TracebackType
from typing import Any, cast

import jax
import orbax.checkpoint as ocp

from igb_jax.training.step import TrainState


class Checkpoints:
  """The folder `checkpoints/` of a run; a context that ends when all is written.

  Keeps the newest epoch and the one with the least validation score. Saving does not
  wait for the disk.
  """

  def __init__(self, folder: Path):
    """Opens the folder, which is created.

    Args:
      folder: where the checkpoints go.
    """
    preserve = ocp.checkpoint_managers
    options = ocp.CheckpointManagerOptions(
      preservation_policy=preserve.AnyPreservationPolicy(
        [
          preserve.LatestN(1),
          preserve.BestN(get_metric_fn=lambda metrics: -metrics["score"], n=1),
        ]
      ),
      best_fn=lambda metrics: metrics["score"],
      best_mode="min",
    )
    self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

  def save(self, epoch: int, state: TrainState, score: float) -> None:
    """Saves the state at the end of an epoch.

    Args:
      epoch: number of the epoch, from 0.
      state: the state.
      score: the validation score, lower is better.
    """
    self._manager.save(
      epoch, args=ocp.args.StandardSave(state), metrics={"score": score}
    )

  def restore_best(self, state: TrainState) -> tuple[int, TrainState] | None:
    """Restores the epoch with the least score.

    Args:
      state: any state of the same run, for its structure.

    Returns:
      The number of the epoch and its state, or None if nothing was saved.
    """
    self._manager.wait_until_finished()
    epoch = self._manager.best_step()
    if epoch is None:
      return None
    template: Any = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    restored = self._manager.restore(epoch, args=ocp.args.StandardRestore(template))
    return epoch, cast(TrainState, restored)

  def __enter__(self) -> "Checkpoints":
    """Returns itself."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Waits until all is on disk."""
    del kind, error, traceback
    self._manager.wait_until_finished()
    self._manager.close()
