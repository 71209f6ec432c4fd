"""Balancers of tasks: pure functions that work inside a jitted step.

Loss balancers weigh the losses, gradient balancers combine the task gradients; `create`
makes either, or a combination, by name. Each is one line here and one file, which says
in its `@method` what it is called in `create`. `sac` has the agent of IGBv2, `solvers`
the problems that gradient balancers solve.
"""

from igb_jax.balancers import sac as sac
from igb_jax.balancers import solvers as solvers
from igb_jax.balancers.gradient.aligned_mtl import aligned_mtl as aligned_mtl
from igb_jax.balancers.gradient.base import GradientBalancer as GradientBalancer
from igb_jax.balancers.gradient.base import GradientState as GradientState
from igb_jax.balancers.gradient.cagrad import cagrad as cagrad
from igb_jax.balancers.gradient.conflict_free import conflict_free as conflict_free
from igb_jax.balancers.gradient.db_mtl import db_mtl as db_mtl
from igb_jax.balancers.gradient.dualproj import dualproj as dualproj
from igb_jax.balancers.gradient.excess_mtl import excess_mtl as excess_mtl
from igb_jax.balancers.gradient.fairgrad import fairgrad as fairgrad
from igb_jax.balancers.gradient.graddrop import graddrop as graddrop
from igb_jax.balancers.gradient.gradient_norm_balance import (
  gradient_norm_balance as gradient_norm_balance,
)
from igb_jax.balancers.gradient.gradnorm import gradnorm as gradnorm
from igb_jax.balancers.gradient.gradvac import gradvac as gradvac
from igb_jax.balancers.gradient.imtl_g import imtl_g as imtl_g
from igb_jax.balancers.gradient.inverse_dirichlet import (
  inverse_dirichlet as inverse_dirichlet,
)
from igb_jax.balancers.gradient.krum import krum as krum
from igb_jax.balancers.gradient.learning_rate_annealing import (
  learning_rate_annealing as learning_rate_annealing,
)
from igb_jax.balancers.gradient.mgda import mgda as mgda
from igb_jax.balancers.gradient.moco import moco as moco
from igb_jax.balancers.gradient.modo import modo as modo
from igb_jax.balancers.gradient.nash_mtl import nash_mtl as nash_mtl
from igb_jax.balancers.gradient.ntkmtl import ntkmtl as ntkmtl
from igb_jax.balancers.gradient.pcd import pcd as pcd
from igb_jax.balancers.gradient.pcgrad import pcgrad as pcgrad
from igb_jax.balancers.gradient.pivrg import pivrg as pivrg
from igb_jax.balancers.gradient.sdmgrad import sdmgrad as sdmgrad
from igb_jax.balancers.gradient.trimmed_mean import trimmed_mean as trimmed_mean
from igb_jax.balancers.gradient.unit_gradients import unit_gradients as unit_gradients
from igb_jax.balancers.gradient.upgrad import upgrad as upgrad
from igb_jax.balancers.gradient.weighting import weighting as weighting
from igb_jax.balancers.grouping import grouped as grouped
from igb_jax.balancers.loss.cosmos import cosmos as cosmos
from igb_jax.balancers.loss.dynamic_weight_average import (
  dynamic_weight_average as dynamic_weight_average,
)
from igb_jax.balancers.loss.equal import equal as equal
from igb_jax.balancers.loss.famo import famo as famo
from igb_jax.balancers.loss.geometric import geometric as geometric
from igb_jax.balancers.loss.go4align import go4align as go4align
from igb_jax.balancers.loss.igbv1 import igbv1 as igbv1
from igb_jax.balancers.loss.igbv2 import igbv2 as igbv2
from igb_jax.balancers.loss.imtl_l import imtl_l as imtl_l
from igb_jax.balancers.loss.ldc_mtl import ldc_mtl as ldc_mtl
from igb_jax.balancers.loss.ntkmtl_sr import ntkmtl_sr as ntkmtl_sr
from igb_jax.balancers.loss.pbi import pbi as pbi
from igb_jax.balancers.loss.random_loss_weighting import (
  random_loss_weighting as random_loss_weighting,
)
from igb_jax.balancers.loss.relobralo import relobralo as relobralo
from igb_jax.balancers.loss.scale_invariant import scale_invariant as scale_invariant
from igb_jax.balancers.loss.single_task import single_task as single_task
from igb_jax.balancers.loss.slaw import slaw as slaw
from igb_jax.balancers.loss.smooth_tchebycheff import (
  smooth_tchebycheff as smooth_tchebycheff,
)
from igb_jax.balancers.loss.smooth_tchebycheff_raw import (
  smooth_tchebycheff_raw as smooth_tchebycheff_raw,
)
from igb_jax.balancers.loss.softadapt import softadapt as softadapt
from igb_jax.balancers.loss.uncertainty_softmax import (
  uncertainty_softmax as uncertainty_softmax,
)
from igb_jax.balancers.loss.uncertainty_weighting import (
  uncertainty_weighting as uncertainty_weighting,
)
from igb_jax.balancers.registry import create as create
from igb_jax.balancers.registry import names as names
from igb_jax.balancers.smoothing import smooth_weights as smooth_weights
from igb_jax.balancers.types import Balancer as Balancer
from igb_jax.balancers.types import BalancerState as BalancerState
from igb_jax.balancers.types import LossBalancer as LossBalancer
