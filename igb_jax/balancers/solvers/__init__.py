"""Small exact optimisation problems on the Gramian of K task gradients."""

from igb_jax.balancers.solvers.bargaining import nash
from igb_jax.balancers.solvers.gramian import Gramian, Mean, Solution
from igb_jax.balancers.solvers.linear import solve
from igb_jax.balancers.solvers.min_norm import min_norm
from igb_jax.balancers.solvers.trust_region import trust_region

__all__ = ["Gramian", "Mean", "Solution", "min_norm", "nash", "solve", "trust_region"]
