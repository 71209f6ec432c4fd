"""Balancers of tasks: pure functions that weigh losses inside a jitted step.

Loss balancers are constructed by `equal`, `scale_invariant`, `single_task`,
`random_loss_weighting`, `dynamic_weight_average`, `uncertainty_weighting`, `igbv1` and
`igbv2`, or by name with `create`. `sac` has the agent of IGBv2.
"""

from igb_jax.balancers import sac
from igb_jax.balancers.loss import (
  dynamic_weight_average,
  equal,
  igbv1,
  igbv2,
  random_loss_weighting,
  scale_invariant,
  single_task,
  uncertainty_weighting,
)
from igb_jax.balancers.registry import create, names
from igb_jax.balancers.types import Balancer, LossBalancer

__all__ = [
  "Balancer",
  "LossBalancer",
  "create",
  "dynamic_weight_average",
  "equal",
  "igbv1",
  "igbv2",
  "names",
  "random_loss_weighting",
  "sac",
  "scale_invariant",
  "single_task",
  "uncertainty_weighting",
]
