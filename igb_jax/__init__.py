"""igb_jax: task balancing for multi-task learning in JAX."""

from igb_jax import balancers
from igb_jax.balanced_grads import value_and_balanced_grad
from igb_jax.balancers import Balancer, LossBalancer
from igb_jax.diagnosis import Diagnosis, diagnose
from igb_jax.rep_norms import rep_norms
from igb_jax.task_grads import value_and_task_grads

__all__ = [
  "Balancer",
  "Diagnosis",
  "LossBalancer",
  "balancers",
  "diagnose",
  "rep_norms",
  "value_and_balanced_grad",
  "value_and_task_grads",
]

__version__ = "0.1.0"
