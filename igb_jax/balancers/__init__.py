"""Balancers of tasks: pure functions that work inside a jitted step.

Loss balancers weigh the losses: `equal`, `scale_invariant`, `single_task`,
`random_loss_weighting`, `dynamic_weight_average`, `uncertainty_weighting`, `igbv1` and
`igbv2`. Gradient balancers combine the task gradients: `mgda`, `pcgrad`, `cagrad`,
`imtl_g` and `nash_mtl`. `create` makes either, or a combination, by name. `sac` has the
agent of IGBv2, `solvers` the problems that gradient balancers solve.
"""

from igb_jax.balancers import sac, solvers
from igb_jax.balancers.gradient import cagrad, imtl_g, mgda, nash_mtl, pcgrad
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
  "cagrad",
  "create",
  "dynamic_weight_average",
  "equal",
  "igbv1",
  "igbv2",
  "imtl_g",
  "mgda",
  "names",
  "nash_mtl",
  "pcgrad",
  "random_loss_weighting",
  "sac",
  "scale_invariant",
  "single_task",
  "solvers",
  "uncertainty_weighting",
]
