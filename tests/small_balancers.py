"""Loss balancers so small that a few steps reach every part of them."""

from typing import Any

from igb_jax import balancers


def small_loss_balancer(
  name: str,
  num_tasks: int,
  steps_per_epoch: int,
  *,
  absent: Any = "leave_out",
  **of_igbv2: Any,
) -> balancers.LossBalancer:
  """A loss balancer by name.

  Args:
    name: as for `balancers.create`.
    num_tasks: K; `stl` has the last task.
    steps_per_epoch: for those that need it.
    absent: what becomes of tasks that a batch lacks.
    **of_igbv2: more options of igbv2.
  """
  options = {
    "stl": {"task": num_tasks - 1},
    "dwa": {"window": 2},
    "dwalog": {"window": 2},
    "igbv2": {
      "buffer_size": 20, "update_every": 4, "num_updates": 2, "batch_size": 8,
      **of_igbv2,
    },
  }.get(name, {})  # fmt: skip
  balancer = balancers.create(
    name,
    num_tasks=num_tasks,
    steps_per_epoch=steps_per_epoch,
    absent=absent,
    **options,
  ).loss
  assert balancer is not None
  return balancer
