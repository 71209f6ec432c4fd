"""The Nash bargaining solution of the task gradients.

    G a = 1 / a,  a > 0     the minimum of     a^T G a / 2 - sum_k log a_k

which is the alpha-fair combination with alpha = 1. Reference: Navon et al., "Multi-Task
Learning as a Bargaining Game", ICML 2022, equation 2.
"""

from typing import Any

from igb_jax.balancers.solvers.fairness import alpha_fair
from igb_jax.balancers.solvers.gramian import Gramian, Solution


def nash(gramian: Gramian, leaves: list[Any] | None = None) -> Solution:
  """The weights with which G a = 1 / a.

  Args:
    gramian: see `igb_jax.balancers.solvers.fairness.alpha_fair`.
    leaves: see there.

  Returns:
    Positive weights. The residual is the largest |(G a)_k - 1 / a_k| over tasks,
    relative to sum_j |G_kj| a_j + 1 / a_k: the relative change of G that would make the
    solution exact.

  Example:
    >>> import jax.numpy as jnp
    >>> solution = nash(Gramian.of([jnp.array([[1.0, 0.0], [0.0, 2.0]])]))
    >>> print(solution.weights)
    [1.  0.5]
  """
  return alpha_fair(gramian, 1.0, leaves=leaves)
