"""How the learning rate falls: along a cosine, or where validation stalls."""

import dataclasses
from typing import Literal

import optax
import optax.contrib

from igb_jax.training.config import RunConfig, check_at_least, helpful
from igb_jax.training.step import CONSTANT


@helpful
@dataclasses.dataclass(frozen=True)
class LearningRateConfig(RunConfig):
  """A run whose learning rate falls according to a rule."""

  schedule: Literal["plateau", "cosine"] = "plateau"
  """How the learning rate falls: by --plateau-factor when validation delta_m stalls,
  or along a cosine to 0 at the end of the last epoch."""

  plateau_factor: float = 0.7
  """Factor by which the learning rate is multiplied when validation delta_m stalls;
  this and the next two options apply to the plateau schedule only."""
  plateau_patience: int = 5
  """Number of epochs without improvement in validation delta_m before the learning rate
  is lowered."""
  min_learning_rate: float = 1e-5
  """The learning rate is never lowered below this."""

  def check(self) -> None:
    """Checks what needs neither data nor devices.

    Raises:
      ValueError: an option is out of its range; the message names it.
    """
    super().check()
    if self.schedule == "cosine":
      return  # the options of the plateau have no effect
    if not 0 < self.min_learning_rate <= self.learning_rate:
      raise ValueError(
        "--min-learning-rate must be positive and at most --learning-rate, which is "
        f"{self.learning_rate}, got {self.min_learning_rate}."
      )
    check_at_least(self, {"plateau_patience": 0})
    if not 0 < self.plateau_factor < 1:
      raise ValueError(
        f"--plateau-factor must be between 0 and 1, got {self.plateau_factor}."
      )

  def along(self, num_steps: int) -> optax.Schedule:
    """Number of steps -> current / initial learning rate, without the plateau.

    The whole run has `num_steps`.
    """
    if self.schedule == "cosine":
      return optax.cosine_decay_schedule(1.0, num_steps)
    return CONSTANT

  def plateau(
    self, *, rtol: float = 0.0, atol: float = 0.0
  ) -> optax.GradientTransformationExtraArgs | None:
    """What lowers the learning rate where validation stalls; None along a cosine.

    Args:
      rtol: relative change of the score below which it is no better.
      atol: absolute change of that kind.
    """
    if self.schedule == "cosine":
      return None
    return optax.contrib.reduce_on_plateau(
      factor=self.plateau_factor,
      # optax lowers the rate at the patience-th epoch without progress, PyTorch, whose
      # count is published, after it
      patience=self.plateau_patience + 1,
      rtol=rtol,
      atol=atol,
      min_scale=self.min_learning_rate / self.learning_rate,
    )
