"""Loss balancers, one method a file."""

from igb_jax.balancers.loss.dynamic_weight_average import (
  DynamicWeightAverageState,
  dynamic_weight_average,
)
from igb_jax.balancers.loss.equal import EqualState, equal
from igb_jax.balancers.loss.igbv1 import IGBv1State, igbv1
from igb_jax.balancers.loss.igbv2 import IGBv2State, igbv2
from igb_jax.balancers.loss.random_loss_weighting import (
  RandomLossWeightingState,
  random_loss_weighting,
)
from igb_jax.balancers.loss.scale_invariant import ScaleInvariantState, scale_invariant
from igb_jax.balancers.loss.single_task import SingleTaskState, single_task
from igb_jax.balancers.loss.uncertainty_weighting import (
  UncertaintyWeightingState,
  uncertainty_weighting,
)

__all__ = [
  "DynamicWeightAverageState",
  "EqualState",
  "IGBv1State",
  "IGBv2State",
  "RandomLossWeightingState",
  "ScaleInvariantState",
  "SingleTaskState",
  "UncertaintyWeightingState",
  "dynamic_weight_average",
  "equal",
  "igbv1",
  "igbv2",
  "random_loss_weighting",
  "scale_invariant",
  "single_task",
  "uncertainty_weighting",
]
