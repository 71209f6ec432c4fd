"""Small exact optimisation problems on the Gramian of K task gradients."""

from igb_jax.balancers.solvers.bargaining import nash
from igb_jax.balancers.solvers.combination import Combination, Mean, refine
from igb_jax.balancers.solvers.gramian import Gramian, Solution
from igb_jax.balancers.solvers.linear import pseudo_inverse, solve
from igb_jax.balancers.solvers.min_norm import min_norm
from igb_jax.balancers.solvers.trust_region import trust_region

__all__ = [
  "Combination",
  "Gramian",
  "Mean",
  "Solution",
  "min_norm",
  "nash",
  "pseudo_inverse",
  "refine",
  "solve",
  "trust_region",
]
